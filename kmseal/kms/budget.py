"""How many requests may be made: token buckets per account and region, and a limit on what is in flight.

Called by a provider before each request. The quotas of KMS belong to the account, not to this process: staying well
below them is what keeps other applications working while thousands of objects are being opened. A caller whose turn
would come after its deadline is told so at once, with the wait, and does not queue in vain.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from kmseal.errors import Throttled
from kmseal.kms.settings import KmsSettings
from kmseal.kms.wiring import Timing

_ALLOWANCES_MAX: Final = 256
"""Accounts are read from manifests, which others write: beyond this, the idle ones are forgotten."""


class TokenBucket:
    """Lets ``per_second`` callers through each second, after a pause up to one second's worth at once, in order."""

    def __init__(self, per_second: float, timing: Timing) -> None:
        self._rate = per_second
        self._burst = max(1.0, per_second)
        self._tokens = self._burst  # Below zero: that many callers have been given later turns.
        self._timing = timing
        self._counted_at = timing.clock()

    async def take(self, patience: float) -> None:
        """Waits for this caller's turn.

        :param patience: seconds that the caller can wait
        :raises Throttled: at once, when the turn would come later than that; nothing is used up then
        """
        self._count()
        wait = max(0.0, (1.0 - self._tokens) / self._rate)
        if wait > patience:
            raise Throttled("our own limit on KMS requests is reached", retry_after=wait)
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
        self._tokens = min(self._tokens, 1.0 - seconds * self._rate)

    @property
    def idle(self) -> bool:
        """Whether the bucket is full, so that a new one would behave the same."""
        self._count()
        return self._tokens >= self._burst

    def _count(self) -> None:
        now = self._timing.clock()
        self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._rate)
        self._counted_at = now


@dataclass(frozen=True, slots=True)
class Allowance:
    """The two buckets of one account in one region: KMS counts metadata queries apart from cryptography."""

    crypto: TokenBucket
    metadata: TokenBucket


class Budget:
    """The allowances of all accounts and regions, and the slots for requests in flight of each region."""

    def __init__(self, settings: KmsSettings, timing: Timing) -> None:
        self._settings = settings
        self._timing = timing
        self._allowances: dict[tuple[str, str], Allowance] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}

    def allowance(self, account: str, region: str) -> Allowance:
        """The buckets of an account in a region."""
        found = self._allowances.get((account, region))
        if found is None:
            if len(self._allowances) >= _ALLOWANCES_MAX:
                self._allowances = {
                    name: kept
                    for name, kept in self._allowances.items()
                    if not (kept.crypto.idle and kept.metadata.idle)
                }
            found = self._allowances[account, region] = Allowance(
                TokenBucket(self._settings.crypto_per_second, self._timing),
                TokenBucket(self._settings.metadata_per_second, self._timing),
            )
        return found

    def slots(self, region: str) -> asyncio.Semaphore:
        """The semaphore to hold while a request to the region is in flight."""
        found = self._slots.get(region)
        if found is None:
            found = self._slots[region] = asyncio.Semaphore(self._settings.concurrency)
        return found
