"""The whole table of key states and actions, asked over signed requests, and what changes a state."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kmseal.fakekms import FakeKms
from kmseal.fakekms.states import KeyState

Call = Callable[..., tuple[int, dict[str, Any]]]

STATES = (KeyState.ENABLED, KeyState.DISABLED, KeyState.PENDING_DELETION, KeyState.PENDING_IMPORT)
OK = "ok"
DISABLED, DELETION, IMPORT = "Rejected.Disabled", "Rejected.PendingDeletion", "Rejected.PendingImport"
MODIFIED = "Rejected.StateModifiedFailed"

# In the columns: Enabled, Disabled, PendingDeletion, PendingImport.
TABLE = {
    "GenerateDataKey": (OK, DISABLED, DELETION, IMPORT),
    "GenerateDataKeyWithoutPlaintext": (OK, DISABLED, DELETION, IMPORT),
    "Encrypt": (OK, DISABLED, DELETION, IMPORT),
    "Decrypt": (OK, DISABLED, DELETION, IMPORT),
    "ReEncrypt": (OK, DISABLED, DELETION, IMPORT),
    "UpdateRotationPolicy": (OK, DISABLED, DELETION, IMPORT),
    "CreateKeyVersion": (OK, DISABLED, DELETION, IMPORT),
    "DescribeKey": (OK, OK, OK, OK),
    "ListKeys": (OK, OK, OK, OK),
    "ListAliases": (OK, OK, OK, OK),
    "ListAliasesByKeyId": (OK, OK, OK, OK),
    "ListKeyVersions": (OK, OK, OK, OK),
    "DescribeKeyVersion": (OK, OK, OK, OK),
    "ListResourceTags": (OK, OK, OK, OK),
    "DeleteAlias": (OK, OK, OK, OK),
    "EnableKey": (OK, OK, MODIFIED, MODIFIED),
    "DisableKey": (OK, OK, MODIFIED, MODIFIED),
    "ScheduleKeyDeletion": (OK, OK, MODIFIED, OK),
    "CancelKeyDeletion": (MODIFIED, MODIFIED, OK, MODIFIED),
    "CreateAlias": (OK, OK, MODIFIED, OK),
    "UpdateAlias": (OK, OK, DELETION, OK),
    "UpdateKeyDescription": (OK, OK, DELETION, OK),
    "TagResource": (OK, OK, DELETION, OK),
    "UntagResource": (OK, OK, DELETION, OK),
}
OF_ASYMMETRIC_KEYS = {
    "GetPublicKey": (OK, DISABLED, DELETION, IMPORT),
    "AsymmetricEncrypt": (OK, DISABLED, DELETION, IMPORT),
    "AsymmetricDecrypt": (OK, DISABLED, DELETION, IMPORT),
    "ReEncrypt": (OK, DISABLED, DELETION, IMPORT),
    "CreateKeyVersion": (OK, DISABLED, DELETION, IMPORT),
} | {
    action: TABLE[action]
    for action in ("DescribeKey", "ListKeyVersions", "DescribeKeyVersion", "EnableKey", "DisableKey")
}
OF_IMPORTED_KEYS = {
    "GetParametersForImport": (OK, OK, OK, OK),
    "ImportKeyMaterial": (OK, OK, MODIFIED, OK),
    "DeleteKeyMaterial": (OK, OK, OK, OK),
}


@pytest.mark.parametrize("action", TABLE)
@pytest.mark.parametrize("column", range(len(STATES)), ids=[state.value for state in STATES])
def test_the_table_of_states(fake: FakeKms, call: Call, action: str, column: int) -> None:
    """Each action in each state answers what the documentation's table says; rejections are 409."""
    fake.service.allow_symmetric_versions = True
    arn, other = fake.create_key(alias="alias/there"), fake.create_key(alias="alias/moves")
    key_id, version = fake.key(arn).key_id, fake.key(arn).primary.version_id
    blob = call("GenerateDataKeyWithoutPlaintext", KeyId=key_id)[1]["CiphertextBlob"]
    parameters: dict[str, Any] = {
        "Encrypt": {"Plaintext": "AAAA"},
        "Decrypt": {"CiphertextBlob": blob},
        "ReEncrypt": {"CiphertextBlob": blob, "DestinationKeyId": other},
        "UpdateRotationPolicy": {"EnableAutomaticRotation": "True", "RotationInterval": "30d"},
        "DescribeKeyVersion": {"KeyVersionId": version},
        "DeleteAlias": {"AliasName": "alias/there"},
        "CreateAlias": {"AliasName": "alias/new"},
        "UpdateAlias": {"AliasName": "alias/moves"},
        "UpdateKeyDescription": {"Description": "d"},
        "TagResource": {"Tags": [{"TagKey": "k", "TagValue": "v"}]},
        "UntagResource": {"TagKeys": ["k"]},
        "ScheduleKeyDeletion": {"PendingWindowInDays": 7},
    }.get(action, {})
    put_into(fake, arn, STATES[column])
    status, body = call(action, KeyId=key_id, **parameters)
    expected = TABLE[action][column]
    assert (status, body.get("Code", OK)) == (200 if expected == OK else 409, expected)


@pytest.mark.parametrize("action", OF_ASYMMETRIC_KEYS)
def test_the_table_of_states_for_asymmetric_keys(fake: FakeKms, call: Call, action: str) -> None:
    """The table holds for asymmetric keys too."""
    arn, other = fake.create_key(spec="RSA_2048"), fake.create_key()
    fake.clock.advance(7 * 86400)
    version = fake.key(arn).primary.version_id
    named = {"KeyId": arn, "KeyVersionId": version, "Algorithm": "RSAES_OAEP_SHA_256"}
    blob = call("AsymmetricEncrypt", **named, Plaintext="AAAA")[1]["CiphertextBlob"]
    source = {"SourceKeyId": arn, "SourceKeyVersionId": version, "SourceEncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
    more: dict[str, Any] = {
        "AsymmetricEncrypt": {"Plaintext": "AAAA"},
        "AsymmetricDecrypt": {"CiphertextBlob": blob},
        "ReEncrypt": {"CiphertextBlob": blob, "DestinationKeyId": other, **source},
    }.get(action, {})
    for state, expected in zip(STATES, OF_ASYMMETRIC_KEYS[action], strict=True):
        put_into(fake, arn, state)
        status, body = call(action, **(named | more))
        assert (status, body.get("Code", OK)) == (200 if expected == OK else 409, expected), state


@pytest.mark.parametrize("action", OF_IMPORTED_KEYS)
@pytest.mark.parametrize("column", range(len(STATES)), ids=[state.value for state in STATES])
def test_the_table_of_states_for_imported_keys(fake: FakeKms, call: Call, action: str, column: int) -> None:
    """The actions that bring and take material in each state; the ceremony itself is tested elsewhere."""
    arn = fake.create_key(origin="EXTERNAL")
    fake.import_material(arn, bytes(32))
    parameters = {"KeyId": arn, "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    given = call("GetParametersForImport", **parameters)[1]
    key = load_der_public_key(base64.b64decode(given["PublicKey"]))
    assert isinstance(key, RSAPublicKey)
    material = key.encrypt(bytes(32), padding.OAEP(padding.MGF1(SHA256()), SHA256(), None))
    parameters |= {"ImportToken": given["ImportToken"], "EncryptedKeyMaterial": base64.b64encode(material).decode()}
    put_into(fake, arn, STATES[column])
    status, body = call(action, **parameters)
    expected = OF_IMPORTED_KEYS[action][column]
    assert (status, body.get("Code", OK)) == (200 if expected == OK else 409, expected)


def put_into(fake: FakeKms, arn: str, state: KeyState) -> None:
    delete_at = fake.clock() + 86400 if state is KeyState.PENDING_DELETION else None
    fake.store.set_state(fake.key(arn), state, delete_at=delete_at)


def test_a_destination_of_re_encrypt_has_to_be_enabled(fake: FakeKms, call: Call) -> None:
    """ReEncrypt needs both keys: a disabled destination is refused like a disabled source."""
    arn, destination = fake.create_key(), fake.create_key()
    blob = call("GenerateDataKeyWithoutPlaintext", KeyId=arn)[1]["CiphertextBlob"]
    fake.disable(destination)
    status, body = call("ReEncrypt", CiphertextBlob=blob, DestinationKeyId=destination)
    assert (status, body["Code"]) == (409, DISABLED)


def test_states_follow_the_actions(fake: FakeKms, call: Call) -> None:
    """Disable, enable, schedule and cancel lead through the states that DescribeKey shows."""
    arn = fake.create_key()

    def state() -> str:
        return call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]["KeyState"]

    assert state() == "Enabled"
    call("DisableKey", KeyId=arn)
    assert state() == "Disabled"
    call("EnableKey", KeyId=arn)
    assert state() == "Enabled"
    call("ScheduleKeyDeletion", KeyId=arn, PendingWindowInDays=7)
    metadata = call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]
    assert (metadata["KeyState"], metadata["DeleteDate"]) == ("PendingDeletion", "2026-12-01T05:32:41Z")
    call("CancelKeyDeletion", KeyId=arn)
    metadata = call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]
    assert (metadata["KeyState"], metadata["DeleteDate"]) == ("Enabled", "")


def test_a_key_is_gone_after_its_window(fake: FakeKms, call: Call, clock: Any) -> None:
    """When the deletion window is over, the key, its aliases and all it wrapped are gone for good."""
    arn = fake.create_key(alias="alias/app")
    blob = call("GenerateDataKeyWithoutPlaintext", KeyId=arn)[1]["CiphertextBlob"]
    call("ScheduleKeyDeletion", KeyId=arn, PendingWindowInDays=7)
    clock.now += 7 * 86400
    assert call("Decrypt", CiphertextBlob=blob)[1]["Code"] == "Forbidden.KeyNotFound"
    assert call("DescribeKey", KeyId=arn)[1]["Code"] == "Forbidden.KeyNotFound"
    assert call("ListKeys")[1]["TotalCount"] == 0
    assert call("ListAliases")[1]["TotalCount"] == 0


def test_imported_material_is_waited_for(call: Call) -> None:
    """A key of external origin begins in PendingImport."""
    metadata = call("CreateKey", Origin="EXTERNAL")[1]["KeyMetadata"]
    assert (metadata["KeyState"], metadata["Origin"]) == ("PendingImport", "EXTERNAL")
