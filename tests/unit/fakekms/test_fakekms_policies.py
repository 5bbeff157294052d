"""Policies: patterns, denials, documents in RAM's form, and what access control answers."""

from collections.abc import Callable
from typing import Any

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException

from kmseal.fakekms import DEVELOPER_ACTIONS, OPERATOR_ACTIONS, FakeKms, Policy, parse_policy
from kmseal.fakekms.policies import Verdict

Call = Callable[..., tuple[int, dict[str, Any]]]
ARN = "acs:kms:cn-hangzhou:1000000000000001:key/one"


@pytest.mark.parametrize(
    ("actions", "action", "allowed"),
    [
        (("*",), "Decrypt", True),
        (("Decrypt",), "Decrypt", True),
        (("kms:Decrypt",), "Decrypt", True),
        (("kms:*",), "Decrypt", True),
        (("Describe*",), "DescribeKey", True),
        (("ReEncrypt",), "ReEncryptFrom", True),
        (("ReEncrypt",), "ReEncryptTo", True),
        (("ReEncryptFrom",), "ReEncryptTo", False),
        (("Decrypt",), "Encrypt", False),
        (("decrypt",), "Decrypt", False),
        (("GenerateDataKey",), "GenerateDataKeyWithoutPlaintext", False),
        ((), "Decrypt", False),
        (DEVELOPER_ACTIONS, "Decrypt", False),
        (OPERATOR_ACTIONS, "Encrypt", False),
    ],
)
def test_patterns_of_actions(actions: tuple[str, ...], action: str, allowed: bool) -> None:
    """A policy allows what one of its patterns names, and nothing besides."""
    assert (Policy.allow(actions).verdict(action, ARN) is Verdict.ALLOWED) is allowed


@pytest.mark.parametrize(
    ("keys", "allowed"),
    [
        (("*",), True),
        ((ARN,), True),
        (("one",), True),
        (("acs:kms:*:1000000000000001:key/*",), True),
        (("two",), False),
        (("on",), False),
        (("acs:kms:cn-beijing:*",), False),
        ((), False),
    ],
)
def test_patterns_of_keys(keys: tuple[str, ...], allowed: bool) -> None:
    """Keys are named by id, by ARN or by a pattern of ARNs."""
    assert (Policy.allow(("Decrypt",), keys).verdict("Decrypt", ARN) is Verdict.ALLOWED) is allowed


def document(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "1", "Statement": list(statements)}


def test_a_denial_wins(fake: FakeKms, call: Call) -> None:
    """An explicit denial goes before anything that allows, in any order, and says so in the detail of the refusal."""
    mine, other = fake.create_key(), fake.create_key()
    blobs = {arn: call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"] for arn in (mine, other)}
    deny = {"Effect": "Deny", "Action": "kms:Decrypt", "Resource": other}
    allow = {"Effect": "Allow", "Action": "kms:*", "Resource": "*"}
    for statements in ((deny, allow), (allow, deny)):
        reader = fake.add_identity("reader", policy=parse_policy(document(*statements)))
        assert call("Decrypt", CiphertextBlob=blobs[mine], by=reader)[0] == 200
        status, body = call("Decrypt", CiphertextBlob=blobs[other], by=reader)
        assert (status, body["Code"]) == (403, "Forbidden.NoPermission")
        detail = body["AccessDeniedDetail"]
        assert (detail["AuthAction"], detail["NoPermissionType"]) == ("kms:Decrypt", "ExplicitDeny")
        assert call("DescribeKey", KeyId=other, by=reader)[0] == 200


async def test_the_sdk_reads_a_denial(running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """Over TLS the SDK's exception has the status, the code and the detail with the kind of denial."""
    arn = running.create_key()
    stopped = running.add_identity("stopped", policy=Policy().and_deny(("Generate*",), (arn,)))
    client = sdk(running, stopped)
    with pytest.raises(ClientException) as caught:
        await ask(client, "GenerateDataKey", key_id=arn)
    assert (caught.value.code, caught.value.status_code) == ("Forbidden.NoPermission", 403)
    assert caught.value.access_denied_detail["NoPermissionType"] == "ExplicitDeny"
    running.set_policy(stopped, ("GenerateDataKey",), (arn,))
    assert (await ask(client, "GenerateDataKey", key_id=arn)).plaintext


def test_what_nothing_allows_is_denied_implicitly(fake: FakeKms, call: Call) -> None:
    """The detail tells what nobody allowed from what somebody denied, with and without a key."""
    arn = fake.create_key()
    nobody = fake.add_identity("nobody", ())
    elsewhere = fake.add_identity("elsewhere", keys=("acs:kms:cn-beijing:*",))
    for identity in (nobody, elsewhere):
        detail = call("DescribeKey", KeyId=arn, by=identity)[1]["AccessDeniedDetail"]
        assert detail["NoPermissionType"] == "ImplicitDeny"
    stopped = fake.add_identity("stopped", policy=Policy().and_deny(("ListKeys",)))
    assert call("ListKeys", by=stopped)[1]["AccessDeniedDetail"]["NoPermissionType"] == "ExplicitDeny"
    assert call("ListAliases", by=stopped)[0] == 200


def test_re_encrypt_asks_for_each_right_on_its_key(fake: FakeKms, call: Call) -> None:
    """ReEncryptFrom counts on the source and ReEncryptTo on the destination, in documents of RAM's form."""
    source, destination = fake.create_key(), fake.create_key()
    blob = call("GenerateDataKey", KeyId=source)[1]["CiphertextBlob"]
    whole = {"CiphertextBlob": blob, "DestinationKeyId": destination}
    away = {"Effect": "Allow", "Action": ["kms:ReEncryptFrom"], "Resource": [source]}
    onto = {"Effect": "Allow", "Action": ["kms:ReEncryptTo"], "Resource": ["acs:kms:*:*:key/*"]}
    mover = fake.add_identity("mover", policy=parse_policy(document(away, onto)))
    assert call("ReEncrypt", **whole, by=mover)[0] == 200
    fake.set_policy(mover, policy=parse_policy(document(onto)))
    body = call("ReEncrypt", **whole, by=mover)[1]
    assert body["AccessDeniedDetail"]["AuthAction"] == "kms:ReEncryptFrom"
    keeper = {"Effect": "Deny", "Action": "kms:ReEncrypt*", "Resource": destination}
    fake.set_policy(mover, policy=parse_policy(document(away, onto, keeper)))
    detail = call("ReEncrypt", **whole, by=mover)[1]["AccessDeniedDetail"]
    assert (detail["AuthAction"], detail["NoPermissionType"]) == ("kms:ReEncryptTo", "ExplicitDeny")


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("*", True),
        (ARN, True),
        ("acs:kms:*:*:key/one", True),
        ("acs:kms:cn-hangzhou:1000000000000001:key/?ne", True),
        ("acs:kms:cn-hangzhou:1000000000000001:*", True),
        ("acs:kms:cn-hangzhou:2000000000000002:*", False),
        ("acs:kms:*:*:alias/*", False),
        ("one", False),
    ],
)
def test_patterns_of_resources(pattern: str, allowed: bool) -> None:
    """Documents name resources by ARN with wildcards; a bare id is none."""
    policy = parse_policy(document({"Effect": "Allow", "Action": "kms:Decrypt", "Resource": pattern}))
    assert (policy.verdict("Decrypt", ARN) is Verdict.ALLOWED) is allowed


@pytest.mark.parametrize(
    ("wrong", "member"),
    [
        ([], "object"),
        ({"Version": "2", "Statement": []}, "Version"),
        ({"Version": "1"}, "Statement"),
        ({"Version": "1", "Statement": ["x"]}, "Statement"),
        ({"Version": "1", "Statement": [], "Id": "x"}, "object"),
        (document({"Effect": "Permit", "Action": "*", "Resource": "*"}), "Effect"),
        (document({"Effect": ["Allow"], "Action": "*", "Resource": "*"}), "Effect"),
        (document({"Effect": "Allow", "Resource": "*"}), "Action"),
        (document({"Effect": "Allow", "Action": [], "Resource": "*"}), "Action"),
        (document({"Effect": "Allow", "Action": "*", "Resource": 5}), "Resource"),
        (document({"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {}}), "Condition"),
        (document({"Effect": "Allow", "NotAction": "*", "Resource": "*"}), "NotAction"),
    ],
)
def test_documents_that_are_none(wrong: Any, member: str) -> None:
    """What is wrong, or is not played here, is refused by name: to ignore it would grant too much."""
    with pytest.raises(ValueError, match=member):
        parse_policy(wrong)


def test_documents_come_back_as_they_were() -> None:
    """A policy can be written down and read again, the empty one too."""
    for policy in (Policy(), Policy.allow(()), Policy.allow(OPERATOR_ACTIONS, ("one",)).and_deny(("Decrypt",), (ARN,))):
        assert parse_policy(policy.document()) == policy


def test_verdicts_are_remembered_for_each_key_and_action() -> None:
    """What is asked again is answered the same, and one key's verdict is never another's."""
    policy = Policy.allow(("Decrypt",), (ARN,))
    for _ in range(2):
        assert policy.verdict("Decrypt", ARN) is Verdict.ALLOWED
        assert policy.verdict("Encrypt", ARN) is Verdict.NOT_ALLOWED
        assert policy.verdict("Decrypt", ARN + "s") is Verdict.NOT_ALLOWED
        assert policy.verdict_anywhere("Decrypt") is Verdict.ALLOWED
