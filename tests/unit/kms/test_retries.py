"""Retries, with a time of its own."""

from typing import Any

import pytest

from kmseal.errors import AccessDenied, BadCredentials, KeyUnusable, KmsealError, Refused, Throttled, Unavailable
from kmseal.kms.breaker import CircuitOpen
from kmseal.kms.retries import RetryPolicy, retry


class Attempts:
    """Raises the given errors one after the other, then succeeds."""

    def __init__(self, *errors: KmsealError) -> None:
        self.errors = list(errors)
        self.made = 0

    async def __call__(self) -> str:
        self.made += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_retryable_errors_are_retried_with_jitter_that_doubles(fake_time: Any) -> None:
    """Pauses are drawn between 0 and 100, 200, 400 ms; the fake chance takes the middle."""
    attempts = Attempts(Unavailable("a"), Throttled("b"), Unavailable("c"))
    assert await retry(attempts, deadline=fake_time.now + 5.0, timing=fake_time.timing) == "done"
    assert fake_time.slept == pytest.approx([0.05, 0.1, 0.2])


async def test_the_server_wish_is_honoured_with_jitter_on_top(fake_time: Any) -> None:
    """Throttled.retry_after is the least pause."""
    attempts = Attempts(Throttled("slower", retry_after=1.5))
    await retry(attempts, deadline=fake_time.now + 5.0, timing=fake_time.timing)
    assert fake_time.slept == pytest.approx([1.55])


async def test_a_pause_beyond_the_deadline_is_not_begun(fake_time: Any) -> None:
    """The caller gets the error at once, and with it the server's wish."""
    attempts = Attempts(Throttled("slower", retry_after=30.0))
    with pytest.raises(Throttled) as caught:
        await retry(attempts, deadline=fake_time.now + 5.0, timing=fake_time.timing)
    assert caught.value.retry_after == 30.0
    assert fake_time.slept == []


async def test_attempts_are_limited(fake_time: Any) -> None:
    """However much time there is, four attempts are made and the last error is raised."""
    attempts = Attempts(*[Unavailable(str(number)) for number in range(9)])
    with pytest.raises(Unavailable, match="3"):
        await retry(attempts, deadline=fake_time.now + 500.0, timing=fake_time.timing)
    assert attempts.made == 4


@pytest.mark.parametrize(
    "error",
    [AccessDenied("a"), BadCredentials("b"), KeyUnusable("c"), Refused("d"), CircuitOpen("e")],
    ids=lambda error: type(error).__name__,
)
async def test_what_waiting_does_not_heal_is_not_retried(fake_time: Any, error: KmsealError) -> None:
    """One attempt, and its error; an open breaker counts as that, because another endpoint may be up."""
    attempts = Attempts(error)
    with pytest.raises(type(error)):
        await retry(attempts, deadline=fake_time.now + 5.0, timing=fake_time.timing)
    assert attempts.made == 1


def test_pauses_never_exceed_the_longest() -> None:
    """The hundredth pause is drawn from the same range as the tenth."""
    policy = RetryPolicy(first=0.1, longest=2.0)
    assert policy.pause(100, Unavailable("x"), lambda: 1.0) == 2.0
