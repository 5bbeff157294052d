"""The circuit breaker, with a time of its own."""

import asyncio
from typing import Any

import pytest

from kmseal.errors import AccessDenied, KmsealError, Misconfigured, Throttled, Unavailable
from kmseal.kms.breaker import Breaker, CircuitOpen


@pytest.fixture
def recovered() -> list[str]:
    return []


@pytest.fixture
def breaker(fake_time: Any, recovered: list[str]) -> Breaker:
    return Breaker("kms.example", failures=3, seconds=10.0, timing=fake_time.timing, on_recovered=recovered.append)


def request(breaker: Breaker, error: KmsealError | None = None) -> None:
    with breaker.guarding():
        if error is not None:
            raise error


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Unavailable):
            request(breaker, Unavailable("is down", reason="ClockSkew", remedy="set the clock"))


def test_opens_after_failures_in_a_row_and_repeats_why(breaker: Breaker) -> None:
    """The third failure opens it; then requests are refused with the reason and remedy of the last failure."""
    closed = []
    for failures in (2, 1):
        fail(breaker, failures)
        closed.append(breaker.closed)
    assert closed == [True, False]
    with pytest.raises(CircuitOpen, match="is down; set the clock, it is asked again within 10 s") as caught:
        request(breaker)
    assert caught.value.reason == "ClockSkew"


@pytest.mark.parametrize("answer", [None, AccessDenied("no"), Throttled("slower")])
def test_any_answer_between_failures_keeps_it_closed(breaker: Breaker, answer: KmsealError | None) -> None:
    """A success, a denial and throttling are all answers of a living endpoint."""
    for _ in range(5):
        fail(breaker, 2)
        if answer is None:
            request(breaker)
        else:
            with pytest.raises(type(answer)):
                request(breaker, answer)
    assert breaker.closed


def test_an_error_of_our_own_side_neither_opens_nor_closes(breaker: Breaker) -> None:
    """Misconfigured between failures does not reset the count."""
    fail(breaker, 2)
    with pytest.raises(Misconfigured):
        request(breaker, Misconfigured("no authority"))
    fail(breaker, 1)
    assert not breaker.closed


def test_one_probe_after_the_pause_closes_it_and_tells_the_listener(
    breaker: Breaker, fake_time: Any, recovered: list[str]
) -> None:
    """While the one probe is under way others are still refused; its success closes the breaker."""
    fail(breaker, 3)
    fake_time.now += 10.0
    with breaker.guarding():
        with pytest.raises(CircuitOpen):
            request(breaker)
        assert recovered == []
    assert breaker.closed
    assert recovered == ["kms.example"]
    request(breaker)
    assert recovered == ["kms.example"]


def test_a_failed_probe_opens_it_for_another_pause(breaker: Breaker, fake_time: Any) -> None:
    """The pause begins anew with the failed probe."""
    fail(breaker, 3)
    fake_time.now += 10.0
    fail(breaker, 1)
    fake_time.now += 9.0
    with pytest.raises(CircuitOpen):
        request(breaker)
    fake_time.now += 1.0
    request(breaker)
    assert breaker.closed


def test_a_cancelled_probe_lets_the_next_request_try(breaker: Breaker, fake_time: Any, recovered: list[str]) -> None:
    """Cancellation says nothing about the endpoint, and must not block the probe for ever."""
    fail(breaker, 3)
    fake_time.now += 10.0
    with pytest.raises(asyncio.CancelledError), breaker.guarding():
        raise asyncio.CancelledError
    assert not breaker.closed
    request(breaker)
    assert recovered == ["kms.example"]
