"""The switchboard: which calls a fault hits, at which gateway, for which key, how often, and what goes together."""

from collections.abc import Callable
from typing import Any

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException

from kmseal.fakekms import FakeKms, Fault, FaultKind, Faults, Identity, latency, throttling
from kmseal.fakekms.faults import NO_EFFECT
from kmseal.fakekms.requests import Request
from kmseal.fakekms.targets import targets

Call = Callable[..., tuple[int, dict[str, Any]]]
ARN = "acs:kms:cn-hangzhou:1000000000000001:key/one"


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
    ("patterns", "arns", "hit"),
    [
        (("*",), (), True),
        ((ARN,), (ARN,), True),
        (("one",), (ARN,), True),
        (("acs:kms:*:key/one",), (ARN + "s", ARN), True),
        (("two", "one"), (ARN,), True),
        ((ARN,), (), False),
        (("two",), (ARN,), False),
        (("on",), (ARN,), False),
    ],
)
def test_a_fault_may_hit_single_keys(patterns: tuple[str, ...], arns: tuple[str, ...], hit: bool) -> None:
    """Keys are named by id, ARN or pattern; a request that concerns several is hit for any of them."""
    board = faults()
    board.add(Fault(FaultKind.RESET, keys=patterns))
    assert (board.take("Decrypt", "cn-hangzhou", lambda: arns).fault is not None) is hit


def test_keys_are_looked_for_only_where_they_matter() -> None:
    """Faults that name no key, or another action or region, do not cost a look at the request."""
    board = faults()
    board.add(Fault(FaultKind.RESET, actions=("Encrypt",), keys=("one",)))
    board.add(Fault(FaultKind.RESET, regions=("cn-beijing",), keys=("one",)))
    board.add(latency(0.5))
    assert board.take("Decrypt", "cn-hangzhou", lambda: pytest.fail("it was looked at")).delay == 0.5


def test_the_keys_of_a_request(fake: FakeKms, call: Call, admin: Identity, sign: Callable[..., Request]) -> None:
    """By name, by alias, by the ciphertext that it brings; what is not there is no target."""
    one, two = fake.create_key("alias/one"), fake.create_key()
    blob = call("GenerateDataKey", KeyId=two)[1]["CiphertextBlob"]

    def named(action: str, **parameters: Any) -> tuple[str, ...]:
        return targets(sign(admin, action, parameters), fake.store)

    assert named("DescribeKey", KeyId=one) == (one,)
    assert named("DescribeKey", KeyId="alias/one") == (one,)
    assert named("Decrypt", CiphertextBlob=blob) == (two,)
    assert set(named("ReEncrypt", CiphertextBlob=blob, DestinationKeyId=one)) == {one, two}
    for rubbish in ("no base64", "AAAA"):
        assert named("Decrypt", CiphertextBlob=rubbish) == ()
    assert named("DescribeKey", KeyId="alias/none") == ()
    assert named("ListKeys") == ()
    assert targets(Request("POST", "/", "novalue", {}), fake.store) == ()


async def test_one_key_fails_over_the_wire(running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """The SDK meets a fault of one key for its ciphertexts, and none for those of the other."""
    client = sdk(running, running.add_identity("admin"))
    arns = [running.create_key() for _ in range(2)]
    blobs = [(await ask(client, "GenerateDataKey", key_id=arn)).ciphertext_blob for arn in arns]
    running.faults.add(Fault(FaultKind.ERROR, ("Decrypt",), keys=(arns[0],), status=429, code="Rejected.Throttling"))
    with pytest.raises(ClientException) as caught:
        await ask(client, "Decrypt", ciphertext_blob=blobs[0])
    assert caught.value.code == "Rejected.Throttling"
    await ask(client, "Decrypt", ciphertext_blob=blobs[1])
