"""The providers that a keyring has made, one for each way of reaching keys, and which key is reached by which.

Belongs to ``kmseal.kms.keyring``. A provider is made when the first call needs it, kept for as long as some key is
connected by its connection, and closed after its last call then; the process's own is kept until the end. It knows no
operation of a provider but ``healthy``, ``endpoints`` and ``close``.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from kmseal.envelope import shorten
from kmseal.errors import Malformed
from kmseal.kms.connection import OWN, Connection
from kmseal.kms.figures import EndpointFigures
from kmseal.kms.provider import Provider
from kmseal.kms.wiring import Wiring

Factory = Callable[[Wiring], Provider]
"""Makes a provider. Runs in a thread, so it may import slowly and read files; it must not need an event loop."""

_Way = tuple[str, Connection]
"""The prefix of the keys that a provider serves, and the connection by which it serves them."""


@dataclass(slots=True)
class _Line:
    """A provider and the number of calls that use it now."""

    provider: Provider
    calls: int = 0


class Lines:
    """All lines of one keyring. Belongs to one event loop."""

    def __init__(self, wiring: Wiring, factories: Mapping[str, Factory]) -> None:
        """:param factories: by the prefix of the keys that their providers serve"""
        self._wiring = wiring
        self._factories = factories
        self._connections: dict[str, Connection] = {}
        self._keys: Counter[_Way] = Counter()
        """How many keys are connected that way."""
        self._made: dict[_Way, _Line] = {}
        self._making = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    def connect(self, key: str, connection: Connection) -> None:
        """Decides how a key is reached from the next call on: see ``Keyring.connect``."""
        before = self._way(key)
        if before[1] == connection:
            return
        if connection == OWN:
            del self._connections[key]
        else:
            self._connections[key] = connection
            self._keys[self._way(key)] += 1
        if before[1] != OWN:
            self._keys[before] -= 1
            if not self._keys[before]:
                del self._keys[before]  # And with it a secret that may have been taken back.
            self._close_if_unused(before)

    @asynccontextmanager
    async def to(self, key: str) -> AsyncIterator[Provider]:
        """The provider for a key, which is not closed before the block ends.

        Raises Malformed for a name that is no key's, and Misconfigured where the provider cannot be made.
        """
        way = self._way(key)
        line = self._made.get(way) or await self._make(way, key)
        line.calls += 1
        try:
            yield line.provider
        finally:
            line.calls -= 1
            self._close_if_unused(way)

    def healthy(self, key: str) -> bool:
        """What is known without asking anybody; who was never asked counts as healthy."""
        line = self._made.get(self._way(key))
        return line is None or line.provider.healthy(key)

    def endpoints(self) -> tuple[EndpointFigures, ...]:
        """One of each endpoint that was asked, by whichever provider, ordered by name."""
        found: dict[str, EndpointFigures] = {}
        for line in self._made.values():
            for one in line.provider.endpoints():
                found[one.endpoint] = one.joined(found.get(one.endpoint, one))
        return tuple(found[endpoint] for endpoint in sorted(found))

    async def close(self) -> None:
        """Closes all providers, also those that are in use."""
        while self._made:
            _, line = self._made.popitem()
            await line.provider.close()
        await asyncio.gather(*self._closing)

    def _way(self, key: str) -> _Way:
        prefix = next((prefix for prefix in self._factories if key.startswith(prefix)), "")
        return prefix, self._connections.get(key, OWN)

    async def _make(self, way: _Way, key: str) -> _Line:
        prefix, connection = way
        factory = self._factories.get(prefix)
        if factory is None:
            raise Malformed(
                f"{shorten(key)} is not the name of a key",
                reason="KeyId",
                remedy="give the ARN of a KMS key or alias (acs:kms:…), or local:<name>",
            )
        async with self._making:
            if way not in self._made:
                # In a thread, because importing the SDK and reading authorities would stop the event loop for 0.6 s.
                provider = await asyncio.to_thread(factory, replace(self._wiring, connection=connection))
                self._made[way] = _Line(provider)
            return self._made[way]

    def _close_if_unused(self, way: _Way) -> None:
        line = self._made.get(way)
        if line is None or line.calls or way[1] == OWN or way in self._keys:
            return
        del self._made[way]
        task = asyncio.get_running_loop().create_task(line.provider.close(), name="kmseal provider close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
