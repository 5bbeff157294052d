"""Retries, the deadline and the pace of refreshes, with a time that the tests move."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal_agent.errors import DeadlinePassed, Denied, Retryable
from kmseal_agent.schedule import ask_until, next_refresh, pause

chances = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), chances, st.sampled_from([10.0, 60.0]))
def test_full_jitter(failures: int, chance: float, cap: float) -> None:
    """A pause lies anywhere between nothing and a ceiling that doubles from half a second to the cap."""
    ceiling = min(cap, 0.5 * 2.0 ** min(failures - 1, 50))
    assert pause(failures, cap=cap, chance=lambda: chance) == pytest.approx(chance * ceiling)


@given(st.integers(1, 40), chances, st.floats(0, 3600))
def test_never_before_retry_after(failures: int, chance: float, retry_after: float) -> None:
    """What the broker asked for is waited in full, and the jitter comes on top."""
    assert retry_after <= pause(failures, cap=10, chance=lambda: chance, retry_after=retry_after) <= retry_after + 10


@given(st.floats(1, 86_400), st.floats(1, 86_400), chances)
def test_refresh_within_the_grant(refresh: float, lifetime: float, chance: float) -> None:
    """A refresh comes at its interval +-10 %, and before the grant ends."""
    wait = next_refresh(refresh, lifetime, chance=lambda: chance)
    assert wait < lifetime
    assert wait <= refresh * 1.1
    assert wait >= min(refresh, lifetime) * 0.9


def always(error: Exception) -> Any:
    def ask(left: float) -> str:
        raise error

    return ask


def test_an_answer_ends_it(fake_time: Any) -> None:
    """Failures are waited away until there is an answer, each pause reported, each attempt told what time is left."""
    heard: list[tuple[str, float]] = []
    lefts: list[float] = []

    def ask(left: float) -> str:
        lefts.append(left)
        if len(lefts) < 4:
            raise Retryable(f"Fault{len(lefts)}", "no")
        return "grant"

    answer = ask_until(
        60, ask, surroundings=fake_time.surroundings, failed=lambda error, wait: heard.append((error.reason, wait))
    )
    assert answer == "grant"
    assert fake_time.slept == [0.25, 0.5, 1.0]
    assert heard == [("Fault1", 0.25), ("Fault2", 0.5), ("Fault3", 1.0)]
    assert lefts == [60, 59.75, 59.25, 58.25]


def test_the_deadline(fake_time: Any) -> None:
    """At the deadline it ends with the last failure's text, having waited no longer."""
    with pytest.raises(DeadlinePassed, match="within 20 s and 8 attempts; the last one: Fault: no") as caught:
        ask_until(
            20,
            always(Retryable("Fault", "no")),
            surroundings=fake_time.surroundings,
            failed=lambda error, wait: None,
        )
    assert caught.value.exit_code == 5
    assert sum(fake_time.slept) == pytest.approx(20)


def test_a_long_retry_after(fake_time: Any) -> None:
    """Told to come after the deadline, it does not come before: it asks once and ends at the deadline."""
    with pytest.raises(DeadlinePassed):
        ask_until(
            20,
            always(Retryable("Throttled", "no", retry_after=300)),
            surroundings=fake_time.surroundings,
            failed=lambda error, wait: None,
        )
    assert fake_time.slept == [20]


def test_no_retry_for_the_rest(fake_time: Any) -> None:
    """What is not retryable ends it at once."""
    with pytest.raises(Denied):
        ask_until(
            20,
            always(Denied("Forbidden", "no", wipe=True)),
            surroundings=fake_time.surroundings,
            failed=lambda error, wait: None,
        )
    assert fake_time.slept == []
