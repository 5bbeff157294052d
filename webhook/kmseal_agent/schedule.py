"""When to ask: retries with full jitter below a ceiling, a deadline, and the pace of refreshes.

Called by ``rounds``. Clock, sleep and chance are passed in as ``Surroundings``; nothing here knows what is asked for.
"""

import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from kmseal_agent.errors import DeadlinePassed, Retryable

_T = TypeVar("_T")

BASE_SECONDS: Final = 0.5
RETRY_CAP_SECONDS: Final = 10.0
"""The ceiling of a retry at start-up, when the pod waits for us."""
REFRESH_CAP_SECONDS: Final = 60.0
"""The ceiling while the pod runs: a broker that is down for an hour must not meet all its pods at once afterwards."""


class Surroundings(NamedTuple):
    """What tests replace: a monotonic clock and a sleep in seconds, and numbers in [0, 1)."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[], float] = random.random  # Spreads load; nothing depends on its being unpredictable.


def pause(failures: int, *, cap: float, chance: Callable[[], float], retry_after: float | None = None) -> float:
    """Seconds to wait after ``failures`` (1 or more) failures in a row.

    Full jitter between nothing and a ceiling that doubles; what the broker asked for comes on top, so that all pods
    that it sent away at one moment do not come back at one moment.
    """
    ceiling = min(cap, BASE_SECONDS * 2.0 ** min(failures - 1, 32))
    return (retry_after or 0.0) + chance() * ceiling


def next_refresh(refresh: float, lifetime: float, *, chance: Callable[[], float]) -> float:
    """Seconds until the next refresh: the asked interval +-10 %, and always before the grant ends."""
    return min(refresh * (0.9 + 0.2 * chance()), lifetime * (0.9 + 0.1 * chance()))


def ask_until(
    seconds: float,
    ask: Callable[[float], _T],
    *,
    surroundings: Surroundings,
    failed: Callable[[Retryable, float], None],
) -> _T:
    """Asks until there is an answer or ``seconds`` are over.

    ``ask`` gets the seconds that are left; ``failed`` hears of each failure and of the pause that follows.

    Raises :class:`DeadlinePassed`, with the last failure's text; what is not retryable goes through.
    """
    ends = surroundings.clock() + seconds
    failures = 0
    while True:
        left = ends - surroundings.clock()
        try:
            return ask(left)
        except Retryable as error:
            failures += 1
            # Never earlier than the broker said: what is left of the time is waited for and not used.
            wait = pause(
                failures, cap=RETRY_CAP_SECONDS, chance=surroundings.chance, retry_after=error.retry_after
            )  # fmt: skip
            left = ends - surroundings.clock()
            failed(error, min(wait, max(left, 0.0)))
            if wait >= left:
                surroundings.sleep(max(left, 0.0))
                raise DeadlinePassed(
                    "DeadlinePassed",
                    f"no grant within {seconds:g} s and {failures} attempts; the last one: {error.reason}: {error}",
                ) from None
        surroundings.sleep(wait)
