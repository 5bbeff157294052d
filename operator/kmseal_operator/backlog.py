"""Which objects wait for a worker: deduplicated keys in two lanes, and failed ones with the time of their next try.

Pure and synchronous, so that its rules can be tested with any order of calls; ``queue`` adds the waiting. The rules:
a key is held by one worker at a time; a key added meanwhile comes again when that worker is done; the front lane (new
and changed objects) goes before the back lane (retries and re-checks); one key's failures never delay another.
"""

import heapq
from collections.abc import Collection
from enum import IntEnum
from typing import Final

from kmseal.cluster.names import Backoff, Key


class Lane(IntEnum):
    """Who goes first."""

    FRONT = 0
    BACK = 1


class Backlog:
    """The waiting keys. Times are seconds of any one monotonic clock, passed in."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff: Final = backoff
        self._lanes: tuple[dict[Key, float], dict[Key, float]] = ({}, {})
        self._taken: set[Key] = set()
        self._again: dict[Key, Lane] = {}
        self._failures: dict[Key, int] = {}
        self._delayed: dict[Key, tuple[float, str]] = {}
        self._due: list[tuple[float, Key]] = []

    def add(self, key: Key, lane: Lane, now: float) -> None:
        """Makes a key ready, also one that waits for a retry; the front lane takes over from the back."""
        if key in self._taken:
            self._again[key] = min(lane, self._again.get(key, lane))
            return
        self._delayed.pop(key, None)
        front, back = self._lanes
        if lane is Lane.FRONT:
            front.setdefault(key, back.pop(key, now))
        elif key not in front:
            back.setdefault(key, now)

    def take(self, now: float) -> tuple[Key, float] | None:
        """Hands the next key to a worker, with the seconds it has waited; None where nothing is ready."""
        self.promote(now)
        for lane in self._lanes:
            if lane:
                key = next(iter(lane))
                since = lane.pop(key)
                self._taken.add(key)
                return key, now - since
        return None

    def done(self, key: Key, now: float) -> None:
        """The worker has finished: its failures are forgotten."""
        self._failures.pop(key, None)
        self._release(key, now)

    def failed(self, key: Key, cause: str, now: float, *, cap: float | None = None, at_least: float = 0.0) -> float:
        """The worker has failed: the key comes again after a growing delay, whose seconds are returned.

        ``cause`` is a word by which :meth:`hasten` can find it; ``at_least`` is what a server asked for.
        """
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, min(self._backoff.delay(failures), cap or self._backoff.cap))
        self._delay(key, now + delay, cause)
        self._release(key, now)
        return delay

    def rest(self, key: Key, now: float, seconds: float) -> None:
        """The worker has finished, and the key is to come again after that time."""
        self._failures.pop(key, None)
        self._delay(key, now + seconds, "")
        self._release(key, now)

    def hurry(self, key: Key, now: float, seconds: float) -> None:
        """Brings a waiting key forward, so that it comes in that time at the latest; others are not touched."""
        waiting = self._delayed.get(key)
        if waiting and waiting[0] > now + seconds:
            self._delay(key, now + seconds, waiting[1])

    def drop(self, key: Key) -> None:
        """Forgets a key that no longer exists; a worker that holds it still calls :meth:`done`."""
        for lane in self._lanes:
            lane.pop(key, None)
        self._again.pop(key, None)
        self._delayed.pop(key, None)
        self._failures.pop(key, None)

    def hasten(self, causes: Collection[str], now: float) -> int:
        """Makes ready all keys that wait for a retry for one of these causes; says how many."""
        keys = [key for key, (_, cause) in self._delayed.items() if cause in causes]
        for key in keys:
            self.add(key, Lane.BACK, now)
        return len(keys)

    def next_due(self) -> float | None:
        """When the next retry is due."""
        while self._due and self._is_stale(*self._due[0]):
            heapq.heappop(self._due)
        return self._due[0][0] if self._due else None

    def promote(self, now: float) -> None:
        """Makes ready all keys whose retry is due."""
        while (due := self.next_due()) is not None and due <= now:
            _, key = heapq.heappop(self._due)
            if key not in self._taken:
                self.add(key, Lane.BACK, now)

    def is_taken(self, key: Key) -> bool:
        """Whether a worker holds the key."""
        return key in self._taken

    @property
    def ready(self) -> int:
        """How many keys a worker could take now."""
        return sum(map(len, self._lanes))

    @property
    def delayed(self) -> int:
        """How many keys wait for a retry."""
        return len(self._delayed)

    @property
    def idle(self) -> bool:
        """Nothing is ready and nobody works; retries may be waiting."""
        return not self.ready and not self._taken

    def _delay(self, key: Key, due: float, cause: str) -> None:
        self._delayed[key] = (due, cause)
        heapq.heappush(self._due, (due, key))

    def _release(self, key: Key, now: float) -> None:
        self._taken.discard(key)
        if (lane := self._again.pop(key, None)) is not None:
            self.add(key, lane, now)

    def _is_stale(self, due: float, key: Key) -> bool:
        return self._delayed.get(key, (None,))[0] != due
