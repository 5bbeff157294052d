"""Retries with full jitter inside the caller's deadline.

Called by providers around one request. Only errors that say "wait and try again" are retried, and a pause that would
end after the deadline is not begun: the caller then gets the error itself, and has its own schedule. The server's wish
(``Throttled.retry_after``) is honoured, with jitter on top so that those who were refused together do not come back
together.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from kmseal.errors import Retryable, Throttled
from kmseal.kms.breaker import CircuitOpen
from kmseal.kms.timing import Timing

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how far apart. Seconds; the n-th pause is drawn from 0 to ``first * 2**n``, at most ``longest``."""

    attempts: int = 4
    first: float = 0.1
    longest: float = 2.0

    def pause(self, failed: int, error: Retryable, chance: Callable[[], float]) -> float:
        """Seconds to wait after ``failed`` attempts, the last of which ended with ``error``."""
        jitter = chance() * min(self.longest, self.first * 2.0 ** (failed - 1))
        if isinstance(error, Throttled) and error.retry_after is not None:
            return error.retry_after + jitter
        return jitter


POLICY: Final = RetryPolicy()


async def retry(
    attempt: Callable[[], Awaitable[_T]], *, deadline: float, timing: Timing, policy: RetryPolicy = POLICY
) -> _T:
    """Calls ``attempt`` until it succeeds, fails for good, or no time is left.

    :param deadline: on ``timing.clock``; attempts keep to it themselves
    :raises KmsealError: the last attempt's error
    """
    failed = 0
    while True:
        try:
            return await attempt()
        except CircuitOpen:
            raise  # Waiting for the breaker is longer than any deadline, and another endpoint may be up.
        except Retryable as error:
            failed += 1
            pause = policy.pause(failed, error, timing.chance)
            if failed >= policy.attempts or timing.clock() + pause >= deadline:
                raise
        await timing.sleep(pause)
