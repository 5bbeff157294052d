"""The queue between the feeds and the workers: ``backlog`` with waiting.

The feeds add keys from the event loop's thread; N workers take them. It is bounded by the number of objects, since each
key is in it once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection

from kmseal.cluster.names import Key
from kmseal_operator.backlog import Backlog, Lane


class KeyedQueue:
    """A backlog whose :meth:`take` waits.

    :param on_wait: called with the seconds that each key has waited, for metrics
    """

    def __init__(
        self, backlog: Backlog, *, clock: Callable[[], float], on_wait: Callable[[float], None] = lambda seconds: None
    ) -> None:
        self.backlog = backlog
        self._clock = clock
        self._on_wait = on_wait
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = float("inf")

    def add(self, key: Key, lane: Lane = Lane.FRONT) -> None:
        """Makes a key ready (see Backlog.add)."""
        self.backlog.add(key, lane, self._clock())
        self._wake()

    def drop(self, key: Key) -> None:
        """Forgets a key that no longer exists."""
        self.backlog.drop(key)

    async def take(self) -> Key:
        """Waits for the next key. The caller must call :meth:`done` or :meth:`failed` for it."""
        while (taken := self.backlog.take(self._clock())) is None:
            self._arm()
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                # This taker may have been woken already, and nobody else will be for the same key.
                self._wake()
                raise
        key, waited = taken
        self._on_wait(waited)
        if self.backlog.ready:
            self._wake()  # One wake-up may stand for several keys: pass it on.
        return key

    def done(self, key: Key) -> None:
        """The worker has finished with a key."""
        self.backlog.done(key, self._clock())
        self._wake()

    def failed(self, key: Key, cause: str, *, cap: float | None = None, at_least: float = 0.0) -> float:
        """The worker has failed with a key; returns the seconds until its next try."""
        delay = self.backlog.failed(key, cause, self._clock(), cap=cap, at_least=at_least)
        self._arm()
        self._wake()
        return delay

    def rest(self, key: Key, seconds: float) -> None:
        """The worker has finished with a key that is to come again (see Backlog.rest)."""
        self.backlog.rest(key, self._clock(), seconds)
        self._arm()
        self._wake()

    def hurry(self, key: Key, seconds: float) -> None:
        """Brings a waiting key forward (see Backlog.hurry)."""
        self.backlog.hurry(key, self._clock(), seconds)
        self._arm()

    def hasten(self, causes: Collection[str]) -> int:
        """Tries again at once what waits for one of these causes."""
        count = self.backlog.hasten(causes, self._clock())
        self._wake()
        return count

    def _wake(self) -> None:
        if not self.backlog.ready:
            return
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _arm(self) -> None:
        """Sets the one timer to the earliest retry."""
        due = self.backlog.next_due()
        if due is None or (self._timer is not None and self._timer_due <= due):
            return
        if self._timer:
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - self._clock()), self._ring)

    def _ring(self) -> None:
        self._timer = None
        # What is due becomes ready here and now: with all workers busy, a timer for it would ring without end.
        self.backlog.promote(self._clock())
        self._wake()
        self._arm()
