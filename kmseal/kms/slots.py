"""The places for requests in flight to one region, of which background work never takes all.

Handed out by ``kmseal.kms.budget`` and held by a provider around each request. Whoever waits in the foreground goes
before everybody who waits in the background, and a quarter of the places is never given to the background: so a
request that somebody waits for finds a place at once, however many re-wrappings are on their way. It knows no clock:
callers bound their waiting by a timeout of their own.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

_RESERVED_SHARE: Final = 4
"""One place in so many is for the foreground alone, at least one; a single place has to serve both."""


class Slots:
    """``limit`` places, first come, first served within each of the two priorities. Belongs to one event loop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.background_limit = max(1, limit - max(1, limit // _RESERVED_SHARE))
        self.in_flight = 0
        self._in_background = 0
        self._foreground: deque[asyncio.Future[None]] = deque()
        self._background: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._foreground) + len(self._background)

    @property
    def idle(self) -> bool:
        """Whether nobody holds a place or waits for one, so that new slots would behave the same."""
        return not (self.in_flight or self.waiting)

    @asynccontextmanager
    async def hold(self, *, background: bool) -> AsyncIterator[None]:
        """Waits for a place and holds it for as long as the block runs."""
        await self._enter(background)
        try:
            yield
        finally:
            self._leave(background)

    async def _enter(self, background: bool) -> None:
        queue = self._background if background else self._foreground
        # Joins its queue even when there is room, so that nobody overtakes; it is admitted in the same breath then.
        place = asyncio.get_running_loop().create_future()
        queue.append(place)
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave(background)  # Admitted and cancelled in the same turn of the loop: the place goes on.
            elif place in queue:
                queue.remove(place)
            raise

    def _leave(self, background: bool) -> None:
        self.in_flight -= 1
        self._in_background -= background
        self._admit()

    def _admit(self) -> None:
        while self._foreground and self.in_flight < self.limit:
            self._give(self._foreground.popleft(), background=False)
        while self._background and self.in_flight < self.limit and self._in_background < self.background_limit:
            self._give(self._background.popleft(), background=True)

    def _give(self, place: asyncio.Future[None], *, background: bool) -> None:
        if place.cancelled():
            return
        self.in_flight += 1
        self._in_background += background
        place.set_result(None)
