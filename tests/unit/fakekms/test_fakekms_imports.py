"""Bring your own key: import by the plain SDK over TLS, loss and return of material, and every way to do it wrong."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from kmseal.fakekms import FakeKms
from kmseal.fakekms.refusals import Refusal

Call = Callable[..., tuple[int, dict[str, Any]]]
MATERIAL, OTHER = bytes(range(32)), bytes(range(1, 33))
DAY = 86400
SHA_1 = SHA1()  # noqa: S303
PADDINGS: dict[str, AsymmetricPadding] = {
    "RSAES_OAEP_SHA_256": padding.OAEP(padding.MGF1(SHA256()), SHA256(), None),
    "RSAES_OAEP_SHA_1": padding.OAEP(padding.MGF1(SHA_1), SHA_1, None),
    "RSAES_PKCS1_V1_5": padding.PKCS1v15(),
}


def outcome(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1].get("Code", "Success")


def wrapped(public_key: str, material: bytes = MATERIAL, algorithm: str = "RSAES_OAEP_SHA_256") -> str:
    key = load_der_public_key(base64.b64decode(public_key))
    assert isinstance(key, RSAPublicKey)
    return base64.b64encode(key.encrypt(material, PADDINGS[algorithm])).decode()


def slot(call: Call, arn: str, algorithm: str = "RSAES_OAEP_SHA_256", spec: str = "RSA_2048") -> dict[str, Any]:
    return call("GetParametersForImport", KeyId=arn, WrappingAlgorithm=algorithm, WrappingKeySpec=spec)[1]


def bring(call: Call, arn: str, material: bytes = MATERIAL, **more: Any) -> tuple[int, str]:
    given = slot(call, arn)
    parameters = {"ImportToken": given["ImportToken"], "EncryptedKeyMaterial": wrapped(given["PublicKey"], material)}
    return outcome(call("ImportKeyMaterial", KeyId=arn, **(parameters | more)))


def state(fake: FakeKms, arn: str) -> str:
    return fake.key(arn).state.value


async def test_the_sdk_imports_material(running: FakeKms, sdk: Callable[..., Any], ask: Callable[..., Any]) -> None:
    """Create, fetch key and token, import, use, delete, import again: what was sealed before opens again."""
    client = sdk(running, running.add_identity("admin"))
    metadata = (await ask(client, "CreateKey", origin="EXTERNAL")).key_metadata
    assert (metadata.key_state, metadata.origin) == ("PendingImport", "EXTERNAL")
    key_id = metadata.key_id

    async def bring_it() -> None:
        given = await ask(
            client,
            "GetParametersForImport",
            key_id=key_id,
            wrapping_algorithm="RSAES_OAEP_SHA_256",
            wrapping_key_spec="RSA_2048",
        )
        assert given.key_id == key_id
        await ask(
            client,
            "ImportKeyMaterial",
            key_id=key_id,
            import_token=given.import_token,
            encrypted_key_material=wrapped(given.public_key),
            key_material_expire_unix=0,
        )

    with pytest.raises(ClientException) as caught:
        await ask(client, "GenerateDataKey", key_id=key_id)
    assert (caught.value.code, caught.value.status_code) == ("Rejected.PendingImport", 409)
    await bring_it()
    fresh = await ask(client, "GenerateDataKey", key_id=key_id)
    await ask(client, "DeleteKeyMaterial", key_id=key_id)
    with pytest.raises(ClientException) as caught:
        await ask(client, "Decrypt", ciphertext_blob=fresh.ciphertext_blob)
    assert caught.value.code == "Rejected.PendingImport"
    await bring_it()
    opened = await ask(client, "Decrypt", ciphertext_blob=fresh.ciphertext_blob)
    assert (opened.plaintext, opened.key_version_id) == (fresh.plaintext, metadata.primary_key_version)


@pytest.mark.parametrize("algorithm", PADDINGS)
def test_algorithms_that_wrap_material(fake: FakeKms, call: Call, algorithm: str) -> None:
    """Each documented algorithm works with its own token, and OAEP says when it was another one."""
    arn = fake.create_key(origin="EXTERNAL")
    given = slot(call, arn, algorithm)
    parameters = {"KeyId": arn, "ImportToken": given["ImportToken"]}
    for other in set(PADDINGS) - {algorithm} if "OAEP" in algorithm else ():
        wrong = wrapped(given["PublicKey"], algorithm=other)
        answer = call("ImportKeyMaterial", **parameters, EncryptedKeyMaterial=wrong)
        assert outcome(answer) == (400, "InvalidKeyMaterial")
    right = wrapped(given["PublicKey"], algorithm=algorithm)
    assert outcome(call("ImportKeyMaterial", **parameters, EncryptedKeyMaterial=right)) == (200, "Success")
    assert state(fake, arn) == "Enabled"


@pytest.mark.parametrize(
    "parameters",
    [
        {"WrappingAlgorithm": "SM2PKE", "WrappingKeySpec": "RSA_2048"},
        {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_1024"},
    ],
)
def test_parameters_that_are_not_offered(fake: FakeKms, call: Call, parameters: dict[str, str]) -> None:
    """Other wrapping keys and algorithms are invalid."""
    answer = call("GetParametersForImport", KeyId=fake.create_key(origin="EXTERNAL"), **parameters)
    assert outcome(answer) == (400, "InvalidParameter")


def test_only_keys_of_external_origin_take_material(fake: FakeKms, call: Call) -> None:
    """All three actions refuse a key whose material is the service's own."""
    arn = fake.create_key()
    wanted = {"WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_2048"}
    assert outcome(call("GetParametersForImport", KeyId=arn, **wanted)) == (400, "Unsupported.Origin")
    given = {"ImportToken": "x", "EncryptedKeyMaterial": "AAAA"}
    assert outcome(call("ImportKeyMaterial", KeyId=arn, **given)) == (400, "Unsupported.Origin")
    assert outcome(call("DeleteKeyMaterial", KeyId=arn)) == (400, "Unsupported.Origin")
    for change in (lambda: fake.import_material(arn, MATERIAL), lambda: fake.delete_material(arn)):
        with pytest.raises(Refusal, match=r"Unsupported\.Origin"):
            change()


def test_a_token_is_for_its_key_and_for_a_day(fake: FakeKms, call: Call, clock: Any) -> None:
    """Tokens of another key and made up ones are invalid; after a day a token has expired, by the clock of keys."""
    arn, other = fake.create_key(origin="EXTERNAL"), fake.create_key(origin="EXTERNAL")
    given, foreign = slot(call, arn), slot(call, other)
    assert given["TokenExpireTime"] == "2026-11-25T05:32:41Z"
    material = wrapped(given["PublicKey"])
    assert bring(call, arn, ImportToken=foreign["ImportToken"]) == (400, "InvalidImportToken")
    assert bring(call, arn, ImportToken="made up") == (400, "InvalidImportToken")
    parameters = {"KeyId": arn, "ImportToken": given["ImportToken"], "EncryptedKeyMaterial": material}
    fake.clock.advance(DAY)
    assert outcome(call("ImportKeyMaterial", **parameters)) == (400, "ExpiredImportToken")
    assert state(fake, arn) == "PendingImport"
    assert bring(call, arn) == (200, "Success")


def test_material_has_32_bytes(fake: FakeKms, call: Call) -> None:
    """Shorter and longer material, and what is no ciphertext at all, is invalid."""
    arn = fake.create_key(origin="EXTERNAL")
    for material in (MATERIAL[:-1], MATERIAL + b"x"):
        assert bring(call, arn, material) == (400, "InvalidKeyMaterial")
    for ciphertext in ("AAAA", "not base64"):
        assert bring(call, arn, EncryptedKeyMaterial=ciphertext) == (400, "InvalidKeyMaterial")


def test_only_the_first_material_is_taken_again(fake: FakeKms, call: Call) -> None:
    """Other material is refused for ever, while there is some and after it was deleted."""
    arn = fake.create_key(origin="EXTERNAL")
    assert bring(call, arn) == (200, "Success")
    assert bring(call, arn, OTHER) == (400, "InvalidKeyMaterial")
    call("DeleteKeyMaterial", KeyId=arn)
    assert bring(call, arn, OTHER) == (400, "InvalidKeyMaterial")
    assert state(fake, arn) == "PendingImport"
    assert bring(call, arn) == (200, "Success")


def test_the_same_material_in_two_keys(fake: FakeKms, call: Call) -> None:
    """Two keys with the same material do not open each other's ciphertexts."""
    arns = [fake.create_key(origin="EXTERNAL") for _ in range(2)]
    for arn in arns:
        fake.import_material(arn, MATERIAL)
    blob = base64.b64decode(call("GenerateDataKey", KeyId=arns[0])[1]["CiphertextBlob"])
    forged = fake.key(arns[1]).primary.version_id.encode() + blob[36:]
    answer = call("Decrypt", CiphertextBlob=base64.b64encode(forged).decode())
    assert outcome(answer) == (400, "InvalidParameter")


def test_material_expires(fake: FakeKms, call: Call, clock: Any) -> None:
    """At its end the material is gone; imported anew it may last for ever, and the old ciphertexts open."""
    arn = fake.create_key(origin="EXTERNAL")
    assert bring(call, arn, KeyMaterialExpireUnix=int(clock.now)) == (400, "InvalidParameter")
    assert bring(call, arn, KeyMaterialExpireUnix=int(clock.now) + DAY) == (200, "Success")
    described = call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]
    assert described["MaterialExpireTime"] == "2026-11-25T05:32:41Z"
    fresh = call("GenerateDataKey", KeyId=arn)[1]
    fake.clock.advance(DAY)
    assert fake.key(arn).primary.material == b""
    assert outcome(call("Decrypt", CiphertextBlob=fresh["CiphertextBlob"])) == (409, "Rejected.PendingImport")
    assert bring(call, arn) == (200, "Success")
    fake.clock.advance(1000 * DAY)
    assert call("DescribeKey", KeyId=arn)[1]["KeyMetadata"]["MaterialExpireTime"] == ""
    assert call("Decrypt", CiphertextBlob=fresh["CiphertextBlob"])[1]["Plaintext"] == fresh["Plaintext"]


def test_states_while_material_comes_and_goes(fake: FakeKms, call: Call) -> None:
    """A disabled key stays so when it is imported again, and a key without material is not enabled by a way round."""
    arn = fake.create_key(origin="EXTERNAL")
    fake.enable(arn)
    assert state(fake, arn) == "PendingImport"
    bring(call, arn)
    fake.disable(arn)
    assert bring(call, arn) == (200, "Success")
    assert state(fake, arn) == "Disabled"
    call("DeleteKeyMaterial", KeyId=arn)
    assert state(fake, arn) == "PendingImport"
    call("ScheduleKeyDeletion", KeyId=arn, PendingWindowInDays=7)
    assert bring(call, arn) == (409, "Rejected.StateModifiedFailed")
    call("DeleteKeyMaterial", KeyId=arn)
    assert state(fake, arn) == "PendingDeletion"
    call("CancelKeyDeletion", KeyId=arn)
    assert state(fake, arn) == "PendingImport"


def test_imported_material_has_one_version(fake: FakeKms, call: Call) -> None:
    """A key of external origin gets no other version, on demand or otherwise."""
    arn = fake.create_key(origin="EXTERNAL")
    fake.import_material(arn, MATERIAL)
    fake.service.allow_symmetric_versions = True
    assert outcome(call("CreateKeyVersion", KeyId=arn)) == (400, "Unsupported.Origin")
    with pytest.raises(Refusal, match=r"Unsupported\.Origin"):
        fake.rotate(arn)
