"""The switchboard: which calls a fault hits, how often, and what goes together; and the real quotas."""

from collections.abc import Callable
from typing import Any

import pytest

from kmseal.fakekms import REAL_LIMITS, FakeKms, Fault, FaultKind, Faults, QuotaClass, latency, throttling
from kmseal.fakekms.faults import NO_EFFECT
from kmseal.fakekms.quotas import quota_class

Call = Callable[..., tuple[int, dict[str, Any]]]


def faults(*chances: float) -> Faults:
    rest = iter(chances)
    return Faults(lambda: next(rest))


def test_nothing_is_switched_on_at_first() -> None:
    """Without faults nothing happens to a call."""
    assert faults().take("Decrypt", "cn-hangzhou") == NO_EFFECT


def test_a_fault_hits_its_actions_and_regions() -> None:
    """A fault is matched by patterns of action and region."""
    board = faults()
    board.add(Fault(FaultKind.RESET, actions=("*DataKey*", "Decrypt"), regions=("cn-hangzhou",)))
    hit = {
        (action, region)
        for action in ("GenerateDataKeyWithoutPlaintext", "Decrypt", "Encrypt")
        for region in ("cn-hangzhou", "cn-beijing")
        if board.take(action, region).fault
    }
    assert hit == {("GenerateDataKeyWithoutPlaintext", "cn-hangzhou"), ("Decrypt", "cn-hangzhou")}


def test_a_fault_may_be_counted() -> None:
    """A fault with a number of times is over after them, and calls that it does not match do not count."""
    board = faults()
    board.add(throttling("Decrypt", times=2))
    hits = [board.take(action, "r").fault is not None for action in ("Decrypt", "Encrypt", "Decrypt", "Decrypt")]
    assert hits == [True, False, True, False]
    assert board.active == {}
    board.add(throttling(times=0))
    assert board.active == {}


def test_a_fault_may_be_a_matter_of_chance() -> None:
    """A probability hits that share of the calls, and only hits count down."""
    board = faults(0.9, 0.49, 0.5, 0.1)
    board.add(Fault(FaultKind.RESET, probability=0.5, times=2))
    assert [board.take("Decrypt", "r").fault is not None for _ in range(5)] == [False, True, False, True, False]


def test_latencies_add_up_and_go_with_another_fault() -> None:
    """All matching latencies delay the call; of the other faults the first one counts."""
    board = faults()
    board.add(latency(0.25))
    board.add(throttling("Decrypt", times=1))
    second = board.add(Fault(FaultKind.RESET, times=1))
    board.add(latency(0.5, "Decrypt"))
    effect = board.take("Decrypt", "r")
    assert (effect.delay, effect.fault and effect.fault.code) == (0.75, "Rejected.Throttling")
    assert second in board.active
    assert board.take("Encrypt", "r").delay == 0.25


def test_faults_are_removed() -> None:
    """A fault is switched off by its number, and all are at once."""
    board = faults()
    first = board.add(Fault(FaultKind.HTML))
    board.add(Fault(FaultKind.RESET))
    assert board.remove(first)
    assert not board.remove(first)
    assert board.take("Decrypt", "r").fault == Fault(FaultKind.RESET)
    board.clear()
    assert board.take("Decrypt", "r") == NO_EFFECT


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("Decrypt", QuotaClass.CRYPTOGRAPHIC),
        ("ReEncrypt", QuotaClass.CRYPTOGRAPHIC),
        ("DescribeKey", QuotaClass.METADATA),
        ("ListKeyVersions", QuotaClass.METADATA),
        ("ListResourceTags", QuotaClass.TAG_QUERY),
        ("CreateKey", QuotaClass.CREATE_KEY),
        ("UpdateAlias", QuotaClass.CHANGE),
    ],
)
def test_classes_of_quotas(action: str, expected: QuotaClass) -> None:
    """Each action counts in the class that the documentation puts it in."""
    assert quota_class(action) is expected


def test_a_quota_is_a_limit_per_second_class_and_region(fake: FakeKms, call: Call, clock: Any) -> None:
    """Beyond the limit calls are 429, in that class and region only, until time has passed."""
    for region in fake.regions:
        fake.create_key("alias/app", region)
    fake.quotas.limit({QuotaClass.METADATA: 2})

    def describe(region: str) -> int:
        return call("DescribeKey", KeyId="alias/app", region=region)[0]

    assert [describe("cn-hangzhou") for _ in range(3)] == [200, 200, 429]
    assert fake.audit[-1].result == "Rejected.Throttling"
    assert call("GenerateDataKey", KeyId="alias/app")[0] == 200
    assert describe("cn-beijing") == 200
    clock.now += 0.5
    assert [describe("cn-hangzhou") for _ in range(2)] == [200, 429]
    clock.now += 3600
    assert [describe("cn-hangzhou") for _ in range(3)] == [200, 200, 429]
    fake.quotas.limit({})
    assert describe("cn-hangzhou") == 200


def test_the_real_limits_are_the_documented_ones(fake: FakeKms, call: Call) -> None:
    """With the real limits, ten keys are created in a second and no more."""
    fake.quotas.limit(REAL_LIMITS)
    assert [call("CreateKey")[0] for _ in range(11)] == [200] * 10 + [429]
