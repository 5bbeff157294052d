"""The cryptographic actions: sizes, contexts, versions, regions, dry runs and permissions."""

import base64
from collections.abc import Callable
from typing import Any

import pytest

from kmseal.fakekms import DEVELOPER_ACTIONS, OPERATOR_ACTIONS, FakeKms

Call = Callable[..., tuple[int, dict[str, Any]]]


def outcome(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1].get("Code", "Success")


@pytest.mark.parametrize(
    ("parameters", "size"),
    [
        ({}, 32),
        ({"KeySpec": "AES_256"}, 32),
        ({"KeySpec": "AES_128"}, 16),
        ({"NumberOfBytes": 1}, 1),
        ({"NumberOfBytes": 1024}, 1024),
        ({"NumberOfBytes": 64, "KeySpec": "AES_128"}, 64),
    ],
)
def test_sizes_of_data_keys(fake: FakeKms, call: Call, parameters: dict[str, Any], size: int) -> None:
    """NumberOfBytes goes before KeySpec, and 32 bytes are the default."""
    _, body = call("GenerateDataKey", KeyId=fake.create_key(), **parameters)
    assert len(base64.b64decode(body["Plaintext"])) == size
    assert call("Decrypt", CiphertextBlob=body["CiphertextBlob"])[1]["Plaintext"] == body["Plaintext"]


@pytest.mark.parametrize(
    "parameters",
    [
        {"NumberOfBytes": 0},
        {"NumberOfBytes": 1025},
        {"NumberOfBytes": "ten"},
        {"NumberOfBytes": "-1"},
        {"KeySpec": "AES_512"},
        {"EncryptionContext": "not json"},
        {"EncryptionContext": "[]"},
        {"EncryptionContext": {"a": 1}},
        {"EncryptionContext": {"a": {"b": "c"}}},
        {"EncryptionContext": {"a": "x" * 8192}},
        {"DryRun": "perhaps"},
    ],
)
def test_parameters_out_of_their_limits(fake: FakeKms, call: Call, parameters: dict[str, Any]) -> None:
    """Numbers, specs and contexts outside what is documented are InvalidParameter."""
    assert outcome(call("GenerateDataKey", KeyId=fake.create_key(), **parameters)) == (400, "InvalidParameter")


def test_a_data_key_without_plaintext(fake: FakeKms, call: Call) -> None:
    """GenerateDataKeyWithoutPlaintext answers no plaintext, and what it wrapped opens."""
    arn = fake.create_key()
    _, body = call("GenerateDataKeyWithoutPlaintext", KeyId=arn)
    assert set(body) == {"CiphertextBlob", "KeyId", "KeyVersionId", "RequestId"}
    assert len(base64.b64decode(call("Decrypt", CiphertextBlob=body["CiphertextBlob"])[1]["Plaintext"])) == 32


def test_a_blob_opens_with_the_id_of_its_version(fake: FakeKms, call: Call) -> None:
    """A blob begins with the 36 characters of its key version's id, and two of the same plaintext differ."""
    arn = fake.create_key()
    blobs = {call("Encrypt", KeyId=arn, Plaintext="AAAA")[1]["CiphertextBlob"] for _ in range(2)}
    assert len(blobs) == 2
    for blob in blobs:
        assert base64.b64decode(blob)[:36].decode() == fake.key(arn).primary.version_id


@pytest.mark.parametrize(("size", "code"), [(6144, "Success"), (6145, "InvalidParameter"), (0, "MissingParameter")])
def test_the_limit_of_encrypt(fake: FakeKms, call: Call, size: int, code: str) -> None:
    """Encrypt takes up to 6 KiB."""
    plaintext = base64.b64encode(b"\xff" * size).decode()
    assert outcome(call("Encrypt", KeyId=fake.create_key(), Plaintext=plaintext))[1] == code


def test_the_context_is_a_set(fake: FakeKms, call: Call) -> None:
    """The order of a context's members does not matter; a missing, added or changed member does."""
    arn = fake.create_key()
    blob = call("Encrypt", KeyId=arn, Plaintext="AAAA", EncryptionContext={"a": "1", "b": "2"})[1]["CiphertextBlob"]

    def decrypt(context: dict[str, str]) -> tuple[int, str]:
        return outcome(call("Decrypt", CiphertextBlob=blob, EncryptionContext=context))

    assert decrypt({"b": "2", "a": "1"}) == (200, "Success")
    for other in ({"a": "1"}, {"a": "1", "b": "2", "c": "3"}, {"a": "2", "b": "1"}, {}):
        assert decrypt(other) == (400, "InvalidParameter")
    assert outcome(call("Decrypt", CiphertextBlob=blob)) == (400, "InvalidParameter")


def test_an_empty_context_is_none(fake: FakeKms, call: Call) -> None:
    """An empty context and no context are the same."""
    blob = call("Encrypt", KeyId=fake.create_key(), Plaintext="AAAA", EncryptionContext={})[1]["CiphertextBlob"]
    assert outcome(call("Decrypt", CiphertextBlob=blob)) == (200, "Success")


def test_a_corrupt_blob_is_refused(fake: FakeKms, call: Call) -> None:
    """Any flipped bit behind the version id, a cut and rubbish are InvalidParameter; another version id is unknown."""
    blob = base64.b64decode(call("Encrypt", KeyId=fake.create_key(), Plaintext="AAAA")[1]["CiphertextBlob"])

    def decrypt(raw: bytes) -> tuple[int, str]:
        return outcome(call("Decrypt", CiphertextBlob=base64.b64encode(raw).decode()))

    for position in range(36, len(blob)):
        assert decrypt(blob[:position] + bytes([blob[position] ^ 1]) + blob[position + 1 :]) == (
            400,
            "InvalidParameter",
        )
    assert decrypt(blob[:-1]) == (400, "InvalidParameter")
    assert decrypt(blob[:40]) == (400, "InvalidParameter")
    assert decrypt(b"\xff" * 80) == (400, "InvalidParameter")
    assert decrypt(b"00000000-0000-4000-8000-000000000000" + blob[36:]) == (404, "Forbidden.KeyNotFound")
    assert outcome(call("Decrypt", CiphertextBlob="no base64!")) == (400, "InvalidParameter")
    assert outcome(call("Decrypt")) == (400, "MissingParameter")


def test_old_versions_keep_opening(fake: FakeKms, call: Call) -> None:
    """After a rotation the new version wraps, and Decrypt takes the version out of the blob."""
    arn = fake.create_key()
    old = call("GenerateDataKey", KeyId=arn)[1]
    version = fake.rotate(arn)
    new = call("GenerateDataKey", KeyId=arn)[1]
    assert (old["KeyVersionId"] != version, new["KeyVersionId"]) == (True, version)
    for body in (old, new):
        opened = call("Decrypt", CiphertextBlob=body["CiphertextBlob"])[1]
        assert (opened["Plaintext"], opened["KeyVersionId"]) == (body["Plaintext"], body["KeyVersionId"])


def test_re_encrypt_answers_the_source_version(fake: FakeKms, call: Call) -> None:
    """ReEncrypt wraps under the newest version and a new context, but answers the version that it opened with."""
    arn = fake.create_key()
    old = call("GenerateDataKey", KeyId=arn, EncryptionContext={"at": "here"})[1]
    version = fake.rotate(arn)
    _, body = call(
        "ReEncrypt",
        CiphertextBlob=old["CiphertextBlob"],
        SourceEncryptionContext={"at": "here"},
        DestinationKeyId=arn,
        DestinationEncryptionContext={"at": "there"},
    )
    assert body["KeyVersionId"] == old["KeyVersionId"]
    opened = call("Decrypt", CiphertextBlob=body["CiphertextBlob"], EncryptionContext={"at": "there"})[1]
    assert (opened["Plaintext"], opened["KeyVersionId"]) == (old["Plaintext"], version)


def test_re_encrypt_takes_no_alias(fake: FakeKms, call: Call) -> None:
    """The destination has to be named itself: the documentation names no alias there."""
    arn = fake.create_key(alias="alias/app")
    blob = call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"]
    assert outcome(call("ReEncrypt", CiphertextBlob=blob, DestinationKeyId="alias/app")) == (400, "Unsupported.Alias")


def test_ciphertexts_are_regional(fake: FakeKms, call: Call) -> None:
    """A ciphertext of one region is unknown in the other, and so is the ARN of its key."""
    arn = fake.create_key(region="cn-hangzhou")
    blob = call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"]
    assert outcome(call("Decrypt", CiphertextBlob=blob, region="cn-beijing")) == (404, "Forbidden.KeyNotFound")
    assert outcome(call("GenerateDataKey", KeyId=arn, region="cn-beijing")) == (404, "Forbidden.KeyNotFound")
    assert outcome(call("Decrypt", CiphertextBlob=blob, region="cn-hangzhou")) == (200, "Success")


@pytest.mark.parametrize("form", ["{id}", "{arn}", "alias/app", "acs:kms:cn-hangzhou:1000000000000001:alias/app"])
def test_a_key_may_be_named_in_four_ways(fake: FakeKms, call: Call, form: str) -> None:
    """An id, an ARN, an alias and the ARN of an alias name the key; the answer always gives its id."""
    arn = fake.create_key(alias="alias/app")
    key_id = fake.key(arn).key_id
    _, body = call("GenerateDataKey", KeyId=form.format(id=key_id, arn=arn))
    assert body["KeyId"] == key_id


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("00000000-0000-4000-8000-000000000000", (404, "Forbidden.KeyNotFound")),
        ("acs:kms:cn-hangzhou:1000000000000001:key/nothing", (404, "Forbidden.KeyNotFound")),
        ("acs:kms:cn-hangzhou:2000000000000002:key/nothing", (404, "Forbidden.KeyNotFound")),
        ("alias/nothing", (404, "Forbidden.AliasNotFound")),
        ("acs:kms:cn-beijing:1000000000000001:alias/app", (404, "Forbidden.AliasNotFound")),
        ("acs:kms:cn-hangzhou:key/x", (400, "InvalidParameter")),
        ("alias/with space", (400, "InvalidParameter")),
        ("", (400, "MissingParameter")),
    ],
)
def test_names_of_no_key(fake: FakeKms, call: Call, name: str, expected: tuple[int, str]) -> None:
    """What names no key here is not found; what has no form of a name is invalid."""
    fake.create_key(alias="alias/app")
    assert outcome(call("GenerateDataKey", KeyId=name)) == expected


@pytest.mark.parametrize("value", ["true", "True", "TRUE"])
def test_a_dry_run_that_would_have_worked(fake: FakeKms, call: Call, value: str) -> None:
    """A dry run always fails; the code says that it would have worked. Letter case does not matter."""
    status, body = call("GenerateDataKey", KeyId=fake.create_key(), DryRun=value)
    assert (status, body["Code"], "Plaintext" in body) == (400, "DryRunOperationError", False)
    assert fake.audit[-1].dry_run


def test_a_dry_run_says_why_it_would_fail(fake: FakeKms, call: Call) -> None:
    """The dry run tells what is not allowed from what is not valid."""
    arn, developer = fake.create_key(), fake.add_identity("developer", DEVELOPER_ACTIONS)
    blob = call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"]
    assert outcome(call("Decrypt", CiphertextBlob=blob, DryRun=True, by=developer)) == (403, "AccessDeniedError")
    assert outcome(call("GenerateDataKey", KeyId=arn, NumberOfBytes=0, DryRun=True)) == (400, "ValidationError")
    fake.disable(arn)
    assert outcome(call("Decrypt", CiphertextBlob=blob, DryRun=True)) == (400, "ValidationError")
    assert outcome(call("Decrypt", CiphertextBlob=blob, DryRun=False)) == (409, "Rejected.Disabled")


def test_a_developer_seals_and_cannot_open(fake: FakeKms, call: Call) -> None:
    """The right GenerateDataKey lets nothing be read, and the refusal names the right that is lacking."""
    arn, developer = fake.create_key(), fake.add_identity("developer", DEVELOPER_ACTIONS)
    status, body = call("GenerateDataKey", KeyId=arn, by=developer)
    assert status == 200
    status, refusal = call("Decrypt", CiphertextBlob=body["CiphertextBlob"], by=developer)
    assert (status, refusal["Code"]) == (403, "Forbidden.NoPermission")
    detail = refusal["AccessDeniedDetail"]
    assert (detail["AuthAction"], detail["AuthPrincipalDisplayName"]) == ("kms:Decrypt", "developer")


def test_an_operator_opens_and_re_wraps(fake: FakeKms, call: Call) -> None:
    """The operator's rights are enough to open, re-wrap and describe, and for nothing else."""
    arn, operator = fake.create_key(), fake.add_identity("operator", OPERATOR_ACTIONS)
    blob = call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"]
    for action, parameters in (
        ("Decrypt", {"CiphertextBlob": blob}),
        ("ReEncrypt", {"CiphertextBlob": blob, "DestinationKeyId": arn}),
        ("DescribeKey", {"KeyId": arn}),
    ):
        assert call(action, **parameters, by=operator)[0] == 200, action
    for action in ("GenerateDataKey", "DisableKey"):
        assert outcome(call(action, KeyId=arn, by=operator)) == (403, "Forbidden.NoPermission")


def test_rights_may_be_limited_to_keys(fake: FakeKms, call: Call) -> None:
    """A policy may name the keys; ReEncrypt needs its two rights on the two keys."""
    mine, other = fake.create_key(), fake.create_key()
    limited = fake.add_identity("limited", keys=(mine,))
    blob, others = (call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"] for arn in (mine, other))
    assert call("Decrypt", CiphertextBlob=blob, by=limited)[0] == 200
    assert outcome(call("Decrypt", CiphertextBlob=others, by=limited)) == (403, "Forbidden.NoPermission")
    for source, destination in ((blob, other), (others, mine)):
        answer = call("ReEncrypt", CiphertextBlob=source, DestinationKeyId=destination, by=limited)
        assert outcome(answer) == (403, "Forbidden.NoPermission")


def test_permission_comes_before_anything_else(fake: FakeKms, call: Call) -> None:
    """Who may not decrypt learns nothing about a blob or about the state of its key."""
    arn, developer = fake.create_key(), fake.add_identity("developer", DEVELOPER_ACTIONS)
    blob = call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"]
    fake.disable(arn)
    for given in (blob, "rubbish"):
        assert outcome(call("Decrypt", CiphertextBlob=given, by=developer)) == (403, "Forbidden.NoPermission")


def test_a_dedicated_gateway_only_does_cryptography(fake: FakeKms, call: Call) -> None:
    """The gateway of an instance has neither ReEncrypt nor management."""
    arn = fake.create_key()
    fake.service.dedicated_gateway = True
    blob = call("GenerateDataKey", KeyId=arn)[1]["CiphertextBlob"]
    assert call("Decrypt", CiphertextBlob=blob)[0] == 200
    assert outcome(call("ReEncrypt", CiphertextBlob=blob, DestinationKeyId=arn)) == (400, "UnsupportedOperation")
    assert outcome(call("DescribeKey", KeyId=arn)) == (400, "UnsupportedOperation")
    assert outcome(call("Decrypt", CiphertextBlob=blob, Recipient="x")) == (400, "UnsupportedOperation")
