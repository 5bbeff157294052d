"""The controller of KMSKeys: polls each key and writes what it finds into its status.

One metadata call for each KMSKey and interval, never one for an object. A status is written when something in it
changed, and at most once in ``pause`` seconds while objects move, so that a rotation of 10,000 objects costs a handful
of writes. It re-wraps nothing: ``rewrapping`` is told what changed and does that.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from kmseal.cluster.connections import Connections
from kmseal.cluster.entry import Entry
from kmseal.cluster.events import Announcer
from kmseal.cluster.holdings import Holdings
from kmseal.cluster.keys import Keys
from kmseal.cluster.names import FIELD_MANAGER, Key
from kmseal.errors import Conflict, KeyUnusable, KmsealError
from kmseal.kms.connection import CA_BUNDLE, CREDENTIALS, ENDPOINT
from kmseal.kms.provider import NOT_FOUND, UNUSABLE_STATES, KeyDescription
from kmseal.kube import KMS_KEYS, KubeClient
from kmseal_operator.ledger import Ledger
from kmseal_operator.metrics import Metrics
from kmseal_operator.moves import Moves
from kmseal_operator.queue import KeyedQueue
from kmseal_operator.report import build_status, is_due, is_urgent, transitions

_EARLIEST: Final = 0.8
"""Intervals are shortened at random down to this part: never lengthened, so that one interval is a promise."""
_AFTER_FAILURE: Final = 30.0
_CONNECTION_FIELDS: Final = frozenset({ENDPOINT, CA_BUNDLE, CREDENTIALS})
_log = logging.getLogger(__name__)


class Describer(Protocol):
    """The part of the keyring that polling needs."""

    async def describe(self, key: str) -> KeyDescription:
        """State and primary version of a key."""
        ...


class Keeper:
    """Polls and reports.

    :param pause: seconds between two writes of one status while objects move
    :param is_complete: whether the inventory shows the whole cluster by now: nothing is reported before
    :param sees_all: whether the API server has been heard of lately: else nothing is called safe
    :param failed: the objects that the re-wrapper could not do
    :param on_rotation: called when destinations may have changed
    """

    def __init__(
        self, kube: KubeClient, keyring: Describer, connections: Connections, keys: Keys, ledger: Ledger,
        queue: KeyedQueue, *, announcer: Announcer, metrics: Metrics, pause: float, is_complete: Callable[[], bool],
        sees_all: Callable[[], bool], failed: Callable[[], frozenset[Key]], on_rotation: Callable[[], None],
        now: Callable[[], datetime], clock: Callable[[], float], chance: Callable[[], float],
    ) -> None:  # fmt: skip
        self._kube = kube
        self._keyring = keyring
        self._connections = connections
        self._keys = keys
        self._moves = Moves(keys)
        self._ledger = ledger
        self._queue = queue
        self._announcer = announcer
        self._metrics = metrics
        self._pause = pause
        self._is_complete = is_complete
        self._sees_all = sees_all
        self._failed = failed
        self._on_rotation = on_rotation
        self._now = now
        self._clock = clock
        self._chance = chance
        self._dirty: set[str] = set()
        self._written_at: dict[str, float] = {}
        self._polled: dict[str, asyncio.Event] = {}

    def touch(self, name: str) -> None:
        """A KMSKey is new, changed or gone: looks at it at once."""
        self._queue.add(Key("", name))

    def ask_soon(self, key_id: str) -> None:
        """A key did not open something: asks for its state now, and not only at its next turn."""
        for entry in self._keys.covering(key_id):
            asked_lately = entry.polled_at is not None and self._clock() - entry.polled_at < self._pause
            if entry.key_id == key_id and not (entry.is_shut or asked_lately):
                self.ask_again(entry)

    def ask_again(self, entry: Entry) -> None:
        """Asks for a key's state at once."""
        entry.polled_at = None
        self._queue.hurry(Key("", entry.key.name), 0.0)

    def _ask_within_the_pause(self, entry: Entry) -> None:
        """Asks for a key's state soon, but once in the pause at the most: whoever writes objects can bring it about."""
        if entry.ask_at is None:
            last = entry.polled_at if entry.polled_at is not None else self._clock() - self._pause
            entry.ask_at = max(self._clock(), last + self._pause)
            self._queue.hurry(Key("", entry.key.name), entry.ask_at - self._clock())

    def on_holdings(self, before: Holdings, after: Holdings) -> None:
        """Objects have moved: the status is renewed within the pause. An unknown version may be a newer one: asks."""
        for use in {use for held in after for use in held}:
            for entry in self._keys.covering(use.key_id):
                if entry.meet(use):
                    self._ask_within_the_pause(entry)
        for key_id in {use.key_id for held in {*before, *after} for use in held}:
            for entry in self._keys.covering(key_id):
                self._dirty.add(entry.key.name)
                self._queue.hurry(Key("", entry.key.name), self._pause)

    async def work(self) -> None:
        """A worker: takes KMSKeys for ever. An unexpected error costs one of them a retry, never the worker."""
        while True:
            key = await self._queue.take()
            try:
                await self._turn(key)
            except KmsealError as error:
                delay = self._queue.failed(key, error.reason, cap=self._patience(key))
                _log.warning(
                    "a KMSKey could not be served: %s", error, extra={"object": str(key), "retry_seconds": delay}
                )
            except Exception as error:  # noqa: BLE001  # The last line of defence; its text may quote anything.
                delay = self._queue.failed(key, "Unexpected", cap=self._patience(key))
                _log.error("unexpected error", extra={"object": str(key), "error": type(error).__name__})

    async def polled_once(self, seconds: float) -> None:
        """Waits until every KMSKey that is known now has been asked once, but no longer than that."""
        for entry in self._keys.entries():
            self.touch(entry.key.name)
        waiting = [self._polled.setdefault(entry.key.name, asyncio.Event()) for entry in self._keys.entries()]
        try:
            async with asyncio.timeout(seconds):
                for event in waiting:
                    await event.wait()
        except TimeoutError:
            _log.warning("not every key could be asked at the start: what is known of the others is believed")

    async def _turn(self, key: Key) -> None:
        name = key.name
        entry = self._keys.get(name)
        if entry is None:
            for heir in self._connections.disconnect(name):
                heir.connected = False
                self.touch(heir.key.name)
            self._polled.pop(name, None)
            self._written_at.pop(name, None)
            self._queue.done(key)
            return
        self._dirty.discard(name)
        now = self._clock()
        # The interval may have been made shorter since the last poll.
        due = entry.polled_at is None or now >= entry.polled_at + _EARLIEST * _interval(entry)
        if due or not entry.connected or (entry.ask_at is not None and now >= entry.ask_at):
            entry.ask_at = None
            await self._poll(entry)
            self._polled.setdefault(name, asyncio.Event()).set()
        if self._keys.get(name) is entry and self._is_complete():
            await self._report(entry)
        if self._keys.get(name) is not entry:
            self._queue.rest(key, 0.0)  # It was changed while it was asked for: what was learned may not be its own.
            return
        # None: somebody wants it asked again already.
        spread = _interval(entry) * (_EARLIEST + (1 - _EARLIEST) * self._chance())
        wait = 0.0 if entry.polled_at is None else entry.polled_at + spread - self._clock()
        if not entry.connected and entry.failure is None:
            wait = 0.0  # Somebody else spoke for the key until a moment ago.
        if entry.ask_at is not None:
            wait = min(wait, entry.ask_at - self._clock())
        if name in self._dirty:
            wait = min(wait, self._pause)
        self._queue.rest(key, max(0.0, wait))

    def _patience(self, key: Key) -> float:
        """The longest wait after a failure: a status that cannot be written must not keep the key from being asked."""
        entry = self._keys.get(key.name)
        return min(_interval(entry), _AFTER_FAILURE) if entry else _AFTER_FAILURE

    async def _poll(self, entry: Entry) -> None:
        if entry.invalid:
            # Not asked for, and looked at again like any other failure: without one, a KMSKey that was reached in a way
            # of its own before would be due at once, for ever.
            entry.fail(entry.invalid, self._clock())
            return
        before, heard = (entry.description, entry.former), frozenset(entry.unheard)
        try:
            await self._connections.connect(entry)
            self._keys.connect(entry)
            description = await self._keyring.describe(entry.key.key_id)
        except KeyUnusable as error:
            state = UNUSABLE_STATES.get(error.reason)
            if state and entry.key_id and not entry.key.is_alias:
                # A dedicated gateway refuses to describe a key that is shut, and so tells its state. What an alias
                # names by now it does not tell: that is a fault, or a moved alias would shut the key of before.
                self._keys.learn(entry, KeyDescription(entry.key_id, state, entry.primary), self._clock(), heard)
            elif error.reason in NOT_FOUND:
                entry.miss(error, self._clock())
            else:
                entry.fail(error, self._clock())
        except KmsealError as error:
            if error.field in _CONNECTION_FIELDS:
                error.field = f"spec.{error.field}"
            entry.fail(error, self._clock())
        else:
            named = entry.key_id
            self._keys.learn(entry, description, self._clock(), heard)
            if entry.key_id != named:
                await self._connections.connect(entry)
            await self._poll_formers(entry)
        self._metrics.polled("ok" if entry.failure is None else entry.failure.reason)
        if before != (entry.description, entry.former) or heard:
            self._on_rotation()

    async def _poll_formers(self, entry: Entry) -> None:
        """Asks for the former keys that objects still hold, so that disabling one of them is seen as well."""
        for key_id in sorted(entry.former):
            has_its_own = any(other.key_id == key_id for other in self._keys.covering(key_id))
            if has_its_own or not self._ledger.inventory.holders([key_id]):
                continue
            try:
                self._keys.learn_former(entry, key_id, (await self._keyring.describe(key_id)).state)
            except KmsealError as error:
                if state := UNUSABLE_STATES.get(error.reason):
                    self._keys.learn_former(entry, key_id, state)
                _log.debug("a former key could not be asked: %s", error, extra={"object": entry.key.name})

    async def _report(self, entry: Entry) -> None:
        status = build_status(
            entry, self._moves, self._ledger.inventory, failed=self._failed(), complete=self._sees_all(),
            now=self._now(),
        )  # fmt: skip
        if not is_due(status, entry.status):
            return
        if (
            not is_urgent(status, entry.status)
            and self._clock() - self._written_at.get(entry.key.name, 0) < self._pause
        ):
            self._dirty.add(entry.key.name)
            return
        gone = dict.fromkeys(entry.status.keys() - status.keys())
        try:
            answer = await self._kube.patch_status(
                KMS_KEYS, None, entry.key.name, status | gone, version=entry.version, manager=FIELD_MANAGER
            )
        except Conflict:
            self._dirty.add(entry.key.name)  # It has changed: the feed brings it, and the next turn decides anew.
            return
        if answer is None:
            return
        self._written_at[entry.key.name] = self._clock()
        events = list(transitions(entry, status))
        entry.status, entry.version = status, max(entry.version, int(answer["metadata"]["resourceVersion"]))
        for warning, reason, text in events:
            await self._announcer.tell(KMS_KEYS, Key("", entry.key.name), entry.uid, reason, text, warning=warning)


def _interval(entry: Entry) -> float:
    """Seconds between polls: a key that could not be asked is not left alone for a day."""
    return min(entry.key.poll_seconds, _AFTER_FAILURE) if entry.failure else entry.key.poll_seconds
