"""The quotas of the shared gateway: classes, limits per second and region, and what a refusal says."""

from collections.abc import Callable
from typing import Any

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException, ThrottlingException

from kmseal.fakekms import REAL_LIMITS, FakeKms, QuotaClass
from kmseal.fakekms.quotas import quota_class

Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("Decrypt", QuotaClass.CRYPTOGRAPHIC),
        ("ReEncrypt", QuotaClass.CRYPTOGRAPHIC),
        ("AsymmetricDecrypt", QuotaClass.ASYMMETRIC),
        ("GetPublicKey", QuotaClass.ASYMMETRIC),
        ("ImportKeyMaterial", QuotaClass.CHANGE),
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


async def test_a_refusal_may_say_when_to_come_back(
    running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]
) -> None:
    """With ``tells_when`` the header carries the milliseconds to wait, as the SDK reads it; without there is none."""
    client = sdk(running, running.add_identity("admin"))
    for tells_when, kind in ((True, ThrottlingException), (False, ClientException)):
        running.quotas.limit({QuotaClass.METADATA: 0.01}, tells_when=tells_when)
        await ask(client, "ListKeys")
        with pytest.raises(kind) as caught:
            await ask(client, "ListKeys")
        assert (caught.value.code, caught.value.status_code) == ("Rejected.Throttling", 429)
        if tells_when:
            assert 90_000 < caught.value.retry_after <= 100_000


def test_the_time_to_wait_is_enough(fake: FakeKms, call: Call, clock: Any) -> None:
    """Whoever waits as long as told is admitted."""
    fake.quotas.limit({QuotaClass.METADATA: 3}, tells_when=True)
    while fake.quotas.admit("ListKeys", "cn-hangzhou"):
        pass
    milliseconds = fake.quotas.retry_after("ListKeys", "cn-hangzhou")
    assert milliseconds == 334
    clock.now += milliseconds / 1000
    assert call("ListKeys")[0] == 200
