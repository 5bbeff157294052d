"""The public half of an asymmetric key: what is read, what is refused, and what it wraps."""

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from kmseal.errors import Malformed
from kmseal.manifest import Algorithm, Wrapping
from kmseal.publickey import PublicKey
from kmseal.redacted import Redacted

KEY_ID = "acs:kms:cn-hangzhou:1234567890123456:key/key-rsa"
PRIVATE = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)  # noqa: S505  # To be refused.


def pem(key: PublicKeyTypes) -> str:
    """A key as text."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode()


def content(**changes: Any) -> dict[str, Any]:
    """What a file says."""
    standard = {
        "keyId": KEY_ID,
        "keyVersionId": "v-1",
        "algorithm": "RSAES_OAEP_SHA_256",
        "publicKey": pem(PRIVATE.public_key()),
    }
    return standard | changes


def test_what_it_wraps_opens_with_the_private_half() -> None:
    """With SHA-256 as the hash and in the mask generation function, as KMS does it."""
    data_key = Redacted(bytes(range(32)))
    wrapping = PublicKey.parse(content()).wrap(data_key)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    assert PRIVATE.decrypt(wrapping.wrapped, oaep) == data_key.reveal()
    assert (wrapping.key_id, wrapping.key_version_id) == (KEY_ID, "v-1")
    assert wrapping.algorithm is Algorithm.RSAES_OAEP_SHA_256
    assert Wrapping.parse(wrapping.to_dict()) == wrapping


def test_two_wrappings_of_one_data_key_differ() -> None:
    """Or it would show that two objects share it."""
    public = PublicKey.parse(content())
    assert public.wrap(Redacted(bytes(32))).wrapped != public.wrap(Redacted(bytes(32))).wrapped


def test_only_a_data_key_is_wrapped() -> None:
    """Neither a value nor half a key."""
    with pytest.raises(Malformed) as caught:
        PublicKey.parse(content()).wrap(Redacted(b"short"))
    assert caught.value.reason == "DataKeyLength"


def test_what_it_says_is_read_back() -> None:
    """The key in one form, however the file wraps its lines."""
    public = PublicKey.parse(content())
    again = PublicKey.parse(public.to_dict())
    assert (again.key_id, again.key_version_id, again.pem) == (public.key_id, public.key_version_id, public.pem)


@pytest.mark.parametrize(
    ("changes", "field", "reason"),
    [
        ({"keyId": None}, "keyId", "MissingField"),
        ({"keyId": "acs:kms:cn-hangzhou:1:alias/app"}, "keyId", "KeyId"),
        ({"keyId": "local:dev"}, "keyId", "KeyId"),
        ({"keyVersionId": "v 1"}, "keyVersionId", "KeyVersionId"),
        ({"keyVersionId": 1}, "keyVersionId", "WrongType"),
        ({"algorithm": "RSAES_OAEP_SHA_1"}, "algorithm", "Algorithm"),
        ({"algorithm": "KMS_SYMMETRIC"}, "algorithm", "Algorithm"),
        ({"publicKey": None}, "publicKey", "MissingField"),
        ({"publicKey": "text"}, "publicKey", "PublicKey"),
        ({"publicKey": pem(PRIVATE.public_key()) * 2}, "publicKey", "PublicKey"),
        ({"publicKey": "# mine\n" + pem(PRIVATE.public_key())}, "publicKey", "PublicKey"),
        ({"publicKey": pem(PRIVATE.public_key()).replace("M", "!", 1)}, "publicKey", "PublicKey"),
        ({"publicKey": pem(SMALL.public_key())}, "publicKey", "PublicKey"),
        ({"publicKey": pem(ec.generate_private_key(ec.SECP256R1()).public_key())}, "publicKey", "PublicKey"),
        ({"extra": "x"}, "extra", "UnknownField"),
    ],
)
def test_what_is_not_as_it_must_be_is_refused_by_its_field(changes: dict[str, Any], field: str, reason: str) -> None:
    """With a remedy; a private key is not shown."""
    with pytest.raises(Malformed) as caught:
        PublicKey.parse(content(**changes))
    assert (caught.value.field, caught.value.reason) == (field, reason)
    assert caught.value.remedy


def test_a_private_key_is_refused_and_not_quoted() -> None:
    """Somebody exported the wrong half."""
    private = PRIVATE.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    with pytest.raises(Malformed) as caught:
        PublicKey.parse(content(publicKey=private))
    assert private.splitlines()[3] not in str(caught.value)


def test_what_is_no_object_is_refused() -> None:
    """A list, a text, nothing."""
    for raw in ([], "text", None):
        with pytest.raises(Malformed):
            PublicKey.parse(raw)
