"""Asymmetric keys: by the plain SDK over TLS, by public keys that left the service, and what is refused."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kmseal.fakekms import DEVELOPER_ACTIONS, OPERATOR_ACTIONS, FakeKms

Call = Callable[..., tuple[int, dict[str, Any]]]
Sdk = Callable[..., Any]
Ask = Callable[..., Any]
DATA_KEY = bytes(range(32))


def outcome(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1].get("Code", "Success")


def seal(pem: str, algorithm: str = "RSAES_OAEP_SHA_256", plaintext: bytes = DATA_KEY) -> str:
    """What somebody encrypts who has the public key and nothing else, in base64."""
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, RSAPublicKey)
    digest = {"RSAES_OAEP_SHA_256": SHA256(), "RSAES_OAEP_SHA_1": SHA1()}[algorithm]  # noqa: S303
    return base64.b64encode(key.encrypt(plaintext, padding.OAEP(padding.MGF1(digest), digest, None))).decode()


async def test_the_sdk_uses_an_asymmetric_key(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """Create, describe, fetch the public key, encrypt with it offline, decrypt in KMS: all in the SDK's models."""
    client = sdk(running, running.add_identity("admin"))
    metadata = (await ask(client, "CreateKey", key_spec="RSA_2048", key_usage="ENCRYPT/DECRYPT")).key_metadata
    assert (metadata.key_spec, metadata.key_state, metadata.automatic_rotation) == ("RSA_2048", "Enabled", "Disabled")
    described = (await ask(client, "DescribeKey", key_id=metadata.key_id)).key_metadata
    assert (described.key_spec, described.primary_key_version) == ("RSA_2048", None)
    versions = (await ask(client, "ListKeyVersions", key_id=metadata.key_id)).key_versions.key_version
    names = {"key_id": metadata.key_id, "key_version_id": versions[0].key_version_id}
    one = await ask(client, "DescribeKeyVersion", **names)
    assert one.key_version.creation_date == versions[0].creation_date
    public = await ask(client, "GetPublicKey", **names)
    assert (public.key_id, public.key_version_id) == (metadata.key_id, versions[0].key_version_id)
    for algorithm in ("RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_1"):
        blob = seal(public.public_key, algorithm)
        opened = await ask(client, "AsymmetricDecrypt", **names, algorithm=algorithm, ciphertext_blob=blob)
        assert (base64.b64decode(opened.plaintext), opened.key_version_id) == (DATA_KEY, versions[0].key_version_id)
        text = base64.b64encode(b"text").decode()
        sealed = await ask(client, "AsymmetricEncrypt", **names, algorithm=algorithm, plaintext=text)
        blob = sealed.ciphertext_blob
        opened = await ask(client, "AsymmetricDecrypt", **names, algorithm=algorithm, ciphertext_blob=blob)
        assert opened.plaintext == text
    record = running.audit.of("AsymmetricDecrypt")[0]
    assert (record.key_arn, record.key_version_id, record.context) == (metadata.arn, names["key_version_id"], {})


async def test_the_sdk_re_encrypts_from_an_asymmetric_key(running: FakeKms, sdk: Sdk, ask: Ask) -> None:
    """ReEncrypt turns what was sealed offline into a ciphertext of a symmetric key, with a context."""
    client = sdk(running, running.add_identity("operator", OPERATOR_ACTIONS))
    source, destination = running.create_key(spec="RSA_2048"), running.create_key()
    version = running.key(source).primary
    blob = seal(_pem(running, source))
    with pytest.raises(ClientException) as caught:
        await ask(client, "ReEncrypt", ciphertext_blob=blob, destination_key_id=destination)
    assert caught.value.code == "InvalidParameter"
    moved = await ask(
        client,
        "ReEncrypt",
        ciphertext_blob=blob,
        source_key_id=source,
        source_key_version_id=version.version_id,
        source_encryption_algorithm="RSAES_OAEP_SHA_256",
        destination_key_id=destination,
        destination_encryption_context={"at": "there"},
    )
    assert (moved.key_id, moved.key_version_id) == (running.key(source).key_id, version.version_id)
    opened = await ask(client, "Decrypt", ciphertext_blob=moved.ciphertext_blob, encryption_context={"at": "there"})
    assert base64.b64decode(opened.plaintext) == DATA_KEY


@pytest.mark.parametrize(("spec", "bits"), [("RSA_2048", 2048), ("RSA_3072", 3072), ("RSA_4096", 4096)])
def test_sizes_of_keys(fake: FakeKms, call: Call, spec: str, bits: int) -> None:
    """The spec is the size of the modulus, and a key takes as much as OAEP leaves of it."""
    arn = call("CreateKey", KeySpec=spec, KeyUsage="ENCRYPT/DECRYPT")[1]["KeyMetadata"]["Arn"]
    pem = _pem(fake, arn)
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, RSAPublicKey)
    assert key.key_size == bits
    names = {"KeyId": arn, "KeyVersionId": fake.key(arn).primary.version_id, "Algorithm": "RSAES_OAEP_SHA_256"}
    most = bits // 8 - 66
    for size, code in ((most, "Success"), (most + 1, "InvalidParameter")):
        plaintext = base64.b64encode(bytes(size)).decode()
        assert outcome(call("AsymmetricEncrypt", **names, Plaintext=plaintext))[1] == code


def test_old_versions_open_what_was_sealed_to_them(fake: FakeKms, call: Call) -> None:
    """A ciphertext opens with the version it was sealed to and with no other, whatever the newest is."""
    arn = fake.create_key(spec="RSA_2048")
    old = fake.key(arn).primary.version_id
    blob = seal(_pem(fake, arn))
    new = fake.rotate(arn)
    assert _pem(fake, arn) != _pem(fake, arn, old)
    names = {"KeyId": arn, "Algorithm": "RSAES_OAEP_SHA_256", "CiphertextBlob": blob}
    assert call("AsymmetricDecrypt", **names, KeyVersionId=old)[0] == 200
    assert outcome(call("AsymmetricDecrypt", **names, KeyVersionId=new)) == (400, "InvalidParameter")
    assert outcome(call("AsymmetricDecrypt", **names, KeyVersionId="none")) == (404, "Forbidden.KeyVersionNotFound")
    assert outcome(call("AsymmetricDecrypt", **names)) == (400, "MissingParameter")


@pytest.mark.parametrize("algorithm", ["SM2PKE", "RSAES_PKCS1_V1_5", "rsaes_oaep_sha_256"])
def test_other_algorithms(fake: FakeKms, call: Call, algorithm: str) -> None:
    """Algorithms that do not go with RSA keys are invalid."""
    arn = fake.create_key(spec="RSA_2048")
    names = {"KeyId": arn, "KeyVersionId": fake.key(arn).primary.version_id, "Algorithm": algorithm}
    assert outcome(call("AsymmetricDecrypt", **names, CiphertextBlob="AAAA")) == (400, "InvalidParameter")
    assert outcome(call("AsymmetricEncrypt", **names, Plaintext="AAAA")) == (400, "InvalidParameter")


def test_a_ciphertext_under_the_other_algorithm_does_not_open(fake: FakeKms, call: Call) -> None:
    """The digest of OAEP has to be the one that it was sealed with; rubbish opens with none."""
    arn = fake.create_key(spec="RSA_2048")
    names = {"KeyId": arn, "KeyVersionId": fake.key(arn).primary.version_id, "Algorithm": "RSAES_OAEP_SHA_256"}
    for blob in (seal(_pem(fake, arn), "RSAES_OAEP_SHA_1"), "AAAA"):
        assert outcome(call("AsymmetricDecrypt", **names, CiphertextBlob=blob)) == (400, "InvalidParameter")


def test_each_kind_of_key_has_its_actions(fake: FakeKms, call: Call) -> None:
    """Symmetric actions refuse an asymmetric key, and the other way round; a forged blob opens nothing."""
    rsa, aes = fake.create_key(spec="RSA_2048"), fake.create_key()
    unsupported = (400, "UnsupportedOperation")
    assert outcome(call("GenerateDataKey", KeyId=rsa)) == unsupported
    assert outcome(call("Encrypt", KeyId=rsa, Plaintext="AAAA")) == unsupported
    version = fake.key(aes).primary.version_id
    assert outcome(call("GetPublicKey", KeyId=aes, KeyVersionId=version)) == unsupported
    blob = call("GenerateDataKey", KeyId=aes)[1]["CiphertextBlob"]
    assert outcome(call("ReEncrypt", CiphertextBlob=blob, DestinationKeyId=rsa)) == unsupported
    forged = fake.key(rsa).primary.version_id.encode() + bytes(60)
    answer = call("Decrypt", CiphertextBlob=base64.b64encode(forged).decode())
    assert outcome(answer) == (400, "InvalidParameter")


def test_an_alias_names_an_asymmetric_key(fake: FakeKms, call: Call) -> None:
    """The three actions take an alias, and answer the key's id."""
    arn = fake.create_key("alias/offline", spec="RSA_2048")
    version = fake.key(arn).primary.version_id
    body = call("GetPublicKey", KeyId="alias/offline", KeyVersionId=version)[1]
    assert body["KeyId"] == fake.key(arn).key_id
    names = {"KeyId": "alias/offline", "KeyVersionId": version, "Algorithm": "RSAES_OAEP_SHA_256"}
    assert call("AsymmetricDecrypt", **names, CiphertextBlob=seal(body["PublicKey"]))[0] == 200


def test_re_encrypt_wants_all_of_an_asymmetric_source(fake: FakeKms, call: Call) -> None:
    """Key and version have to be named, a context does not go with them, and the right is ReEncryptFrom."""
    source, destination = fake.create_key(spec="RSA_2048"), fake.create_key()
    whole = {
        "CiphertextBlob": seal(_pem(fake, source)),
        "SourceKeyId": source,
        "SourceKeyVersionId": fake.key(source).primary.version_id,
        "SourceEncryptionAlgorithm": "RSAES_OAEP_SHA_256",
        "DestinationKeyId": destination,
    }
    assert outcome(call("ReEncrypt", **whole)) == (200, "Success")
    for name in ("SourceKeyId", "SourceKeyVersionId"):
        rest = {key: value for key, value in whole.items() if key != name}
        assert outcome(call("ReEncrypt", **rest)) == (400, "MissingParameter"), name
    answer = call("ReEncrypt", **whole, SourceEncryptionContext={"a": "b"})
    assert outcome(answer) == (400, "InvalidParameter")
    onto = fake.add_identity("onto", ("ReEncryptTo",))
    assert outcome(call("ReEncrypt", **whole, by=onto)) == (403, "Forbidden.NoPermission")


def test_a_dry_run_of_an_asymmetric_action(fake: FakeKms, call: Call) -> None:
    """The dry run tells who may fetch a public key from who may not."""
    arn, developer = fake.create_key(spec="RSA_2048"), fake.add_identity("developer", DEVELOPER_ACTIONS)
    names = {"KeyId": arn, "KeyVersionId": fake.key(arn).primary.version_id, "DryRun": True}
    assert outcome(call("GetPublicKey", **names)) == (400, "DryRunOperationError")
    assert outcome(call("GetPublicKey", **names, by=developer)) == (403, "AccessDeniedError")


def _pem(fake: FakeKms, arn: str, version_id: str = "") -> str:
    from kmseal.fakekms.rsakeys import public_pem

    key = fake.key(arn)
    return public_pem(fake.store.private_key(key.version(version_id) if version_id else key.primary))
