"""The management actions: keys, aliases, tags and lists."""

from collections.abc import Callable
from typing import Any

import pytest

from kmseal.fakekms import FakeKms

Call = Callable[..., tuple[int, dict[str, Any]]]


def outcome(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1].get("Code", "Success")


def test_a_key_is_created_and_described(call: Call) -> None:
    """CreateKey and DescribeKey answer the same metadata, in the spelling of the API."""
    created = call("CreateKey", Description="for the shop", Tags=[{"TagKey": "team", "TagValue": "shop"}])[1]
    metadata = created["KeyMetadata"]
    assert metadata["Arn"] == f"acs:kms:cn-hangzhou:1000000000000001:key/{metadata['KeyId']}"
    assert (metadata["KeyState"], metadata["KeySpec"], metadata["Description"], metadata["CreationDate"]) == (
        "Enabled",
        "Aliyun_AES_256",
        "for the shop",
        "2026-11-24T05:32:41Z",
    )
    described = call("DescribeKey", KeyId=metadata["KeyId"])[1]["KeyMetadata"]
    assert described.items() >= metadata.items()
    tags = call("ListResourceTags", KeyId=metadata["KeyId"])[1]["Tags"]["Tag"]
    assert [(tag["TagKey"], tag["TagValue"]) for tag in tags] == [("team", "shop")]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"KeySpec": "EC_SM2"}, "UnsupportedOperation"),
        ({"KeySpec": "RSA_2048"}, "UnsupportedOperation"),
        ({"KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT/DECRYPT", "Origin": "EXTERNAL"}, "UnsupportedOperation"),
        (
            {"KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT/DECRYPT", "EnableAutomaticRotation": "True"},
            "UnsupportedOperation",
        ),
        ({"KeyUsage": "SIGN/VERIFY"}, "UnsupportedOperation"),
        ({"Origin": "elsewhere"}, "InvalidParameter"),
        ({"ProtectionLevel": "NONE"}, "InvalidParameter"),
        ({"Description": "x" * 8193}, "InvalidParameter"),
        ({"EnableAutomaticRotation": "maybe"}, "InvalidParameter"),
        ({"EnableAutomaticRotation": "True"}, "MissingParameter"),
        ({"EnableAutomaticRotation": "True", "RotationInterval": "6d"}, "InvalidParameter"),
        ({"EnableAutomaticRotation": "True", "RotationInterval": "731d"}, "InvalidParameter"),
        ({"EnableAutomaticRotation": "True", "RotationInterval": "a week"}, "InvalidParameter"),
        ({"EnableAutomaticRotation": "True", "RotationInterval": "7d", "Origin": "EXTERNAL"}, "Unsupported.Origin"),
        ({"Tags": "no json"}, "InvalidParameter"),
        ({"Tags": [{"TagKey": "", "TagValue": "x"}]}, "InvalidParameter"),
        ({"Tags": [{"TagKey": "acs:x", "TagValue": "x"}]}, "InvalidParameter"),
        ({"Tags": ["k"]}, "InvalidParameter"),
    ],
)
def test_keys_that_cannot_be_created(call: Call, parameters: dict[str, Any], expected: str) -> None:
    """What CreateKey does not take is refused, and no key is left behind."""
    assert outcome(call("CreateKey", **parameters)) == (400, expected)
    assert call("ListKeys")[1]["TotalCount"] == 0


def test_lists_are_paged(fake: FakeKms, call: Call) -> None:
    """Lists come in pages of ten unless told otherwise, of this region only, and pages of nought or 101 are refused."""
    arns = [fake.create_key() for _ in range(12)]
    fake.create_key(region="cn-beijing")
    first, second = call("ListKeys")[1], call("ListKeys", PageNumber=2)[1]
    assert (first["TotalCount"], first["PageNumber"], first["PageSize"]) == (12, 1, 10)
    assert [key["KeyArn"] for page in (first, second) for key in page["Keys"]["Key"]] == arns
    assert call("ListKeys", PageNumber=3)[1]["Keys"]["Key"] == []
    for size in (0, 101):
        assert outcome(call("ListKeys", PageSize=size)) == (400, "InvalidParameter")


def test_keys_are_filtered(fake: FakeKms, call: Call) -> None:
    """The Filters of ListKeys choose by state; unknown ones are refused."""
    fake.create_key()
    disabled = fake.create_key()
    fake.disable(disabled)
    found = call("ListKeys", Filters=[{"Key": "KeyState", "Values": ["Disabled"]}])[1]
    assert [key["KeyArn"] for key in found["Keys"]["Key"]] == [disabled]
    for filters in ({}, [{"Key": "Colour", "Values": []}], [{"Key": "KeyState"}], "x"):
        assert outcome(call("ListKeys", Filters=filters)) == (400, "InvalidParameter")


def test_aliases(fake: FakeKms, call: Call) -> None:
    """An alias is created once, listed, moved to another key and deleted."""
    first, second = fake.create_key(), fake.create_key()
    assert outcome(call("CreateAlias", AliasName="alias/app", KeyId=first)) == (200, "Success")
    assert outcome(call("CreateAlias", AliasName="alias/app", KeyId=second)) == (400, "AliasAlreadyExists")
    listed = call("ListAliases")[1]["Aliases"]["Alias"]
    assert listed == [
        {
            "AliasName": "alias/app",
            "AliasArn": "acs:kms:cn-hangzhou:1000000000000001:alias/app",
            "KeyId": fake.key(first).key_id,
        }
    ]
    assert outcome(call("UpdateAlias", AliasName="alias/app", KeyId=second)) == (200, "Success")
    assert call("DescribeKey", KeyId="alias/app")[1]["KeyMetadata"]["Arn"] == second
    assert call("ListAliasesByKeyId", KeyId=first)[1]["TotalCount"] == 0
    assert call("ListAliasesByKeyId", KeyId=second)[1]["TotalCount"] == 1
    assert outcome(call("DeleteAlias", AliasName="alias/app")) == (200, "Success")
    assert outcome(call("DeleteAlias", AliasName="alias/app")) == (404, "Forbidden.AliasNotFound")
    assert outcome(call("UpdateAlias", AliasName="alias/app", KeyId=second)) == (404, "Forbidden.AliasNotFound")


@pytest.mark.parametrize("name", ["app", "alias/", "alias/a b", "alias/acs/reserved", f"alias/{'x' * 250}"])
def test_names_that_no_alias_can_have(fake: FakeKms, call: Call, name: str) -> None:
    """An alias has its prefix and few kinds of letters, and not the service's own prefix."""
    assert outcome(call("CreateAlias", AliasName=name, KeyId=fake.create_key())) == (400, "InvalidParameter")


def test_aliases_are_regional(fake: FakeKms, call: Call) -> None:
    """The same alias may be in two regions, for two keys."""
    arns = {region: fake.create_key("alias/app", region) for region in fake.regions}
    for region, arn in arns.items():
        assert call("DescribeKey", KeyId="alias/app", region=region)[1]["KeyMetadata"]["Arn"] == arn


def test_most_actions_take_no_alias(fake: FakeKms, call: Call) -> None:
    """Where an alias is not documented to work it is refused by its own code."""
    fake.create_key(alias="alias/app")
    for action in ("DisableKey", "EnableKey", "ListKeyVersions", "ListAliasesByKeyId", "ListResourceTags"):
        assert outcome(call(action, KeyId="alias/app")) == (400, "Unsupported.Alias"), action


def test_tags(fake: FakeKms, call: Call) -> None:
    """Tags are added, replaced, counted and removed."""
    arn = fake.create_key()
    call("TagResource", KeyId=arn, Tags=[{"TagKey": f"k{number}", "TagValue": "v"} for number in range(20)])
    one_more = [{"TagKey": "more", "TagValue": "v"}]
    assert outcome(call("TagResource", KeyId=arn, Tags=one_more)) == (400, "Rejected.LimitExceeded")
    call("UntagResource", KeyId=arn, TagKeys=[f"k{number}" for number in range(1, 20)])
    call("TagResource", KeyId=arn, Tags=[{"TagKey": "k0", "TagValue": "w"}])
    tags = call("ListResourceTags", KeyId=arn)[1]["Tags"]["Tag"]
    assert [(tag["TagKey"], tag["TagValue"]) for tag in tags] == [("k0", "w")]
    for action, parameters in (("TagResource", {}), ("UntagResource", {"TagKeys": "x"}), ("UntagResource", {})):
        assert call(action, KeyId=arn, **parameters)[0] == 400


def test_descriptions_are_updated(fake: FakeKms, call: Call) -> None:
    """A description is replaced by the new one."""
    arn = fake.create_key()
    call("UpdateKeyDescription", KeyId=arn, Description="second")
    assert call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]["Description"] == "second"


@pytest.mark.parametrize("days", [6, 367, "x"])
def test_windows_of_deletion(fake: FakeKms, call: Call, days: object) -> None:
    """A deletion is scheduled for 7 to 366 days."""
    arn = fake.create_key()
    assert outcome(call("ScheduleKeyDeletion", KeyId=arn, PendingWindowInDays=days)) == (400, "InvalidParameter")
    assert outcome(call("ScheduleKeyDeletion", KeyId=arn)) == (400, "MissingParameter")
