"""Reaches each key as its KMSKey says, here as in the operator; but asks KMS for no state: the operator does that.

``runtime`` makes ``Keys`` call :meth:`touch` for each KMSKey that is new, changed or gone. Access keys that stand in
Secrets are read again every few minutes, so that a renewed one is taken up without a restart.
"""

import asyncio
import logging
from collections.abc import Callable

from kmseal.cluster.connections import Connections
from kmseal.cluster.keys import Keys
from kmseal.cluster.names import Backoff
from kmseal.errors import KmsealError
from kmseal.kms.connection import CA_BUNDLE, CREDENTIALS, ENDPOINT

_CONNECTION_FIELDS = frozenset({ENDPOINT, CA_BUNDLE, CREDENTIALS})
_log = logging.getLogger(__name__)


class Connecting:
    """Does it, one KMSKey after the other.

    :param again: seconds between two looks at the Secrets of access keys
    """

    def __init__(
        self, connections: Connections, keys: Keys, *, backoff: Backoff, clock: Callable[[], float], again: float
    ) -> None:
        self._connections = connections
        self._keys = keys
        self._backoff = backoff
        self._clock = clock
        self._again = again
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Event()

    def touch(self, name: str) -> None:
        """A KMSKey is new, changed or gone: sees to it at once."""
        self._due[name] = self._clock()
        self._wake.set()

    async def run(self) -> None:
        """Connects until cancelled."""
        while True:
            self._wake.clear()
            for name, due in list(self._due.items()):
                if due <= self._clock():
                    await self.connect(name)
            wait = min(self._due.values(), default=None)
            try:
                async with asyncio.timeout(None if wait is None else max(0.0, wait - self._clock())):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def connect_all(self) -> None:
        """Tries each one once: what fails is tried again by :meth:`run`."""
        for entry in self._keys.entries():
            await self.connect(entry.key.name)

    async def connect(self, name: str) -> None:
        """Sees to one KMSKey. Never raises what may pass: until it does, its keys are refused with the reason."""
        self._due.pop(name, None)
        entry = self._keys.get(name)
        if entry is None:
            self._failures.pop(name, None)
            for heir in self._connections.disconnect(name):
                heir.connected = False
                self.touch(heir.key.name)
            return
        if entry.invalid:
            return  # Nobody may use its key.
        try:
            await self._connections.connect(entry)
        except KmsealError as error:
            if error.field in _CONNECTION_FIELDS:
                error.field = f"spec.{error.field}"
            entry.failure = error
            self._failures[name] = self._failures.get(name, 0) + 1
            delay = self._backoff.delay(self._failures[name])
            _log.warning(
                "a KMSKey could not be connected: %s", error,
                extra={"object": name, "retry_seconds": round(delay, 1)},
            )  # fmt: skip
            self._due.setdefault(name, self._clock() + delay)
            return
        self._failures.pop(name, None)
        if self._keys.get(name) is not entry:
            self.touch(name)  # It was changed meanwhile: what was connected may be the old way.
            return
        entry.failure = None
        self._keys.connect(entry)
        if entry.key.secret_name:
            self._due.setdefault(name, self._clock() + self._again)
