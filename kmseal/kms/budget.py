"""How many requests may be made: token buckets per account and region, and a limit on what is in flight.

Called by a provider before each request. The quotas of KMS belong to the account, not to this process: staying well
below them is what keeps other applications working while thousands of objects are being opened. A caller whose turn
would come after its deadline is told so at once, with the wait, and does not queue in vain.

There are two priorities. Work inside :func:`in_background` (re-wrapping) only ever gets what nobody in the foreground
asks for, which is the full rate when nobody does: so a rotation of thousands of keys delays no new object.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from kmseal.errors import Throttled
from kmseal.kms.figures import CRYPTO, METADATA, AllowanceFigures, RegionFigures
from kmseal.kms.settings import KmsSettings
from kmseal.kms.slots import Slots
from kmseal.kms.timing import Timing

_NAMES_MAX: Final = 256
"""Accounts and regions are read from manifests, which others write: beyond this, the idle ones are forgotten."""

_NEGLIGIBLE: Final = 0.000_001
"""Seconds. Rounding may leave the smallest part of a token missing after a sleep: no clock would move by so little."""

_background: ContextVar[bool] = ContextVar("kmseal_kms_background", default=False)


@contextmanager
def in_background() -> Iterator[None]:
    """Makes every request inside, retries and fallbacks included, give way to those outside of it.

    It holds for this task and for the tasks that it starts inside, whichever keyring they use.
    """
    token = _background.set(True)
    try:
        yield
    finally:
        _background.reset(token)


class TokenBucket:
    """Lets ``per_second`` callers through each second, after a pause up to one second's worth at once, in order.

    Callers in the foreground are given turns in advance, in the order in which they come, and sleep until theirs.
    Callers in the background take a token only where one is there that nobody has been promised: they stand in a queue
    of their own, of which only the first looks, again and again.
    """

    def __init__(self, per_second: float, timing: Timing) -> None:
        self.rate = per_second
        self._burst = max(1.0, per_second)
        self._tokens = self._burst  # Below zero: that many callers have been given later turns.
        self._timing = timing
        self._counted_at = timing.clock()
        self._behind = asyncio.Lock()  # Is fair: who waits longest for it gets it next.
        self.waiting_in_background = 0

    async def take(self, patience: float) -> None:
        """Waits for this caller's turn.

        :param patience: seconds that the caller can wait
        :raises Throttled: when the turn would come later than that, or, in the background, is not to be had in that
            time; at once where that can be foreseen. Nothing is used up then
        """
        self._count()
        if _background.get():
            await self._take_what_is_left(patience)
            return
        wait = max(0.0, (1.0 - self._tokens) / self.rate)
        if wait > patience:
            raise _refusal(wait)
        self._tokens -= 1.0
        if wait == 0.0:
            return
        try:
            await self._timing.sleep(wait)
        except BaseException:
            # Cancelled before its turn: no request is made, so the turn goes back.
            self._tokens += 1.0
            raise

    def pause(self, seconds: float) -> None:
        """Gives no turns for that long: the server said so to one caller, and means all of them."""
        self._count()
        self._tokens = min(self._tokens, 1.0 - seconds * self.rate)

    @property
    def tokens(self) -> float:
        """How many callers could pass now; below zero, how many of the foreground wait for turns given already."""
        self._count()
        return self._tokens

    @property
    def idle(self) -> bool:
        """Whether the bucket is full and nobody waits, so that a new one would behave the same."""
        return self.tokens >= self._burst and not self.waiting_in_background

    async def _take_what_is_left(self, patience: float) -> None:
        # The least that it can take: those ahead in the background take a token each, and the foreground some more.
        wait = max(0.0, (self.waiting_in_background + 1.0 - self._tokens) / self.rate)
        if wait > patience:
            raise _refusal(wait)
        give_up_at = self._timing.clock() + patience + _NEGLIGIBLE
        self.waiting_in_background += 1
        try:
            if not await self._first_in_line(patience):
                raise _refusal(self.waiting_in_background / self.rate)
            try:
                while (wait := self._until_a_token_is_there()) > _NEGLIGIBLE:
                    if self._timing.clock() + wait > give_up_at:
                        raise _refusal(wait)
                    await self._timing.sleep(wait)
                self._tokens -= 1.0
            finally:
                self._behind.release()
        finally:
            self.waiting_in_background -= 1

    async def _first_in_line(self, patience: float) -> bool:
        """Waits for the lock that makes this caller the first of the background; False when patience ends before."""
        try:
            async with asyncio.timeout(patience):
                await self._behind.acquire()
        except TimeoutError:
            return False
        return True

    def _until_a_token_is_there(self) -> float:
        self._count()
        return max(0.0, (1.0 - self._tokens) / self.rate)

    def _count(self) -> None:
        now = self._timing.clock()
        self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self.rate)
        self._counted_at = now


@dataclass(frozen=True, slots=True)
class Allowance:
    """The two buckets of one account in one region: KMS counts metadata queries apart from cryptography."""

    crypto: TokenBucket
    metadata: TokenBucket

    @property
    def idle(self) -> bool:
        """Whether new buckets would behave the same."""
        return self.crypto.idle and self.metadata.idle


class Budget:
    """The allowances of all accounts and regions, and the slots for requests in flight of each region.

    One keyring has one, whatever providers and connections it has.
    """

    def __init__(self, settings: KmsSettings, timing: Timing) -> None:
        self._settings = settings
        self._timing = timing
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._slots: dict[str, Slots] = {}

    def allowance(self, account: str, region: str) -> Allowance:
        """The buckets of an account in a region."""
        found = self._allowances.get((account, region))
        if found is None:
            if len(self._allowances) >= _NAMES_MAX:
                self._allowances = {name: kept for name, kept in self._allowances.items() if not kept.idle}
            found = self._allowances[account, region] = Allowance(
                TokenBucket(self._settings.crypto_per_second, self._timing),
                TokenBucket(self._settings.metadata_per_second, self._timing),
            )
        return found

    def slot(self, region: str) -> AbstractAsyncContextManager[None]:
        """To be held while a request to the region is in flight; waits for a place."""
        found = self._slots.get(region)
        if found is None:
            if len(self._slots) >= _NAMES_MAX:
                self._slots = {name: kept for name, kept in self._slots.items() if not kept.idle}
            found = self._slots[region] = Slots(self._settings.concurrency)
        return found.hold(background=_background.get())

    def allowances(self) -> tuple[AllowanceFigures, ...]:
        """All buckets as they are now, ordered by account and region."""
        return tuple(
            AllowanceFigures(account, region, kind, bucket.tokens, bucket.rate, bucket.waiting_in_background)
            for (account, region), allowance in sorted(self._allowances.items())
            for kind, bucket in ((CRYPTO, allowance.crypto), (METADATA, allowance.metadata))
        )

    def regions(self) -> tuple[RegionFigures, ...]:
        """The requests under way in each region, ordered by region."""
        return tuple(
            RegionFigures(region, slots.in_flight, slots.limit, slots.waiting)
            for region, slots in sorted(self._slots.items())
        )


def _refusal(wait: float) -> Throttled:
    return Throttled("our own limit on KMS requests is reached", retry_after=wait)
