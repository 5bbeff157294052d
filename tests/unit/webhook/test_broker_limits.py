"""Token buckets and turns: how much passes, when to come back, and that nothing grows without bound."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.redacted import Redacted
from kmseal_webhook.identity import Caller
from kmseal_webhook.limits import BrokerLimits, Buckets, Limits, Rate, Turns, whole_seconds
from kmseal_webhook.refusals import Reason, Refusal


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """At rest."""
    return Clock()


def caller(pod_uid: str = "u1", namespace: str = "prod") -> Caller:
    return Caller(namespace, "app", "web", pod_uid, "", "", "", (), {})


def refusal(limits: Limits, pod_uid: str = "u1", namespace: str = "prod") -> Refusal | None:
    try:
        limits.admit(caller(pod_uid, namespace))
    except Refusal as refused:
        return refused
    return None


def test_a_burst_and_then_the_rate(clock: Clock) -> None:
    """The wait that is told is the one after which it passes."""
    buckets = Buckets(Rate(0.5, 3), clock=clock)
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 2.0]
    clock.now += 1.0
    assert buckets.take("a") == 1.0
    clock.now += 1.0
    assert [buckets.take("a") for _ in range(2)] == [0, 2.0]
    clock.now += 1_000_000
    assert [buckets.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_a_refusal_takes_nothing(clock: Clock) -> None:
    """Who asks all the time gets no less than who waits."""
    buckets = Buckets(Rate(1.0, 1), clock=clock)
    passed = 0
    for _ in range(100):
        passed += not buckets.take("a")
        clock.now += 0.1
    assert passed == 10


def test_keys_do_not_share(clock: Clock) -> None:
    """One empty bucket says nothing about another."""
    buckets = Buckets(Rate(0.1, 1), clock=clock)
    assert (buckets.take("a"), buckets.take("b"), buckets.take("a") > 0) == (0, 0, True)


@given(st.lists(st.integers(0, 30), max_size=200))
def test_memory_is_bounded(keys: list[int]) -> None:
    """What was used longest ago is forgotten; what floods now is not."""
    buckets = Buckets(Rate(0.001, 1), clock=Clock(), most=5)
    for key in keys:
        buckets.take(str(key))
        assert len(buckets) <= 5
        assert buckets.take(str(key)) > 0


def test_turns_come_back() -> None:
    """Also after a failure; and a pod without any is forgotten."""
    turns = Turns(2)
    with turns.turn("a"), turns.turn("b"):
        with turns.turn("a"), pytest.raises(Refusal) as caught, turns.turn("a"):
            pass
        assert (caught.value.reason, caught.value.status) == (Reason.THROTTLED, 429)
        assert len(turns) == 2
        with pytest.raises(KeyError), turns.turn("a"):
            raise KeyError
        with turns.turn("a"):
            pass
    assert len(turns) == 0


def test_pods_share_their_namespaces_limit_and_nothing_else(clock: Clock) -> None:
    """A pod that floods is refused by its own limit before it uses up its namespace's."""
    limits = Limits(BrokerLimits(pod=Rate(0.1, 2), namespace=Rate(0.1, 4)), clock=clock)
    refusals = [refusal(limits) for _ in range(50)]
    assert refusals[:2] == [None, None]
    assert all(refused and refused.reason is Reason.THROTTLED and refused.retry for refused in refusals[2:])
    assert refusal(limits, "u2") is None
    assert refusal(limits, "u3") is None
    refused = refusal(limits, "u4")
    assert refused is not None
    assert "namespace prod" in refused.message
    assert refused.retry_after == pytest.approx(10)
    assert refusal(limits, "u5", "dev") is None


def test_one_token_does_not_use_up_its_address(clock: Clock) -> None:
    """A node's address may be that of many pods."""
    limits = Limits(BrokerLimits(token=Rate(0.1, 2), remote=Rate(0.1, 3)), clock=clock)
    refused = 0
    for _ in range(50):
        try:
            limits.admit_stranger("10.0.0.1", Redacted(b"a.b.c"))
        except Refusal:
            refused += 1
    assert refused == 48
    limits.admit_stranger("10.0.0.1", Redacted(b"d.e.f"))
    with pytest.raises(Refusal):
        limits.admit_stranger("10.0.0.1", Redacted(b"g.h.i"))
    limits.admit_stranger("10.0.0.2", Redacted(b"g.h.i"))


@pytest.mark.parametrize(("wait", "told"), [(0.001, 1), (1.0, 1), (1.2, 2), (59.9, 60)])
def test_retry_after_is_whole_seconds(wait: float, told: int) -> None:
    """Never too early."""
    assert whole_seconds(wait) == told


def test_every_limit_lets_something_pass() -> None:
    """A rate of nothing would divide by zero, and starve everybody."""
    for field in dataclasses.fields(BrokerLimits):
        value = getattr(BrokerLimits(), field.name)
        assert all(part > 0 for part in (value if isinstance(value, tuple) else (value,)))
