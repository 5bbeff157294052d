"""RSA as KMS uses it: key pairs in DER, OAEP by the service's names of algorithms, and refusals for what does not fit.

Pure, and the only module of the fake that knows paddings. ``asymmetric`` encrypts and decrypts with it, ``imports``
unwraps imported material, ``keystore`` makes key pairs. Key pairs come out of OpenSSL's own randomness, as no other can
be passed to it, and making one stops the fake for as long as a second.
"""

from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.padding import AsymmetricPadding
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from kmseal.fakekms.refusals import invalid_parameter


def _oaep(algorithm: HashAlgorithm) -> AsymmetricPadding:
    return padding.OAEP(padding.MGF1(algorithm), algorithm, label=None)


OAEP: Final[Mapping[str, AsymmetricPadding]] = {
    "RSAES_OAEP_SHA_256": _oaep(SHA256()),
    "RSAES_OAEP_SHA_1": _oaep(SHA1()),  # noqa: S303  (the service offers it; OAEP does not rest on collisions)
}
"""Algorithms of AsymmetricEncrypt and AsymmetricDecrypt. SM2PKE goes with SM2 keys, which the fake has not."""

WRAPPING: Final[Mapping[str, AsymmetricPadding]] = {**OAEP, "RSAES_PKCS1_V1_5": padding.PKCS1v15()}
"""Algorithms that imported key material may be encrypted with."""


def generate(bits: int) -> bytes:
    """A new private key as PKCS#8 in DER."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def load(material: bytes) -> rsa.RSAPrivateKey:
    """The private key that :func:`generate` made. Raises ValueError for anything else."""
    key = load_der_private_key(material, password=None)
    if isinstance(key, rsa.RSAPrivateKey):
        return key
    raise ValueError("not an RSA key")


def public_pem(key: rsa.RSAPrivateKey) -> str:
    """The public half in PEM, as GetPublicKey answers it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def public_der(key: rsa.RSAPrivateKey) -> bytes:
    """The public half in DER, as GetParametersForImport answers it, in base64."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def encrypt(key: rsa.RSAPrivateKey, algorithm: str, plaintext: bytes) -> bytes:
    """The ciphertext. Raises InvalidParameter for an unknown algorithm and for a plaintext that is too long."""
    scheme = _scheme(algorithm)
    try:
        return key.public_key().encrypt(plaintext, scheme)
    except ValueError:
        raise invalid_parameter("Plaintext", "longer than key and algorithm take") from None


def decrypt(key: rsa.RSAPrivateKey, algorithm: str, ciphertext: bytes) -> bytes:
    """The plaintext. Raises InvalidParameter for an unknown algorithm and for a ciphertext that does not open."""
    scheme = _scheme(algorithm)
    try:
        return key.decrypt(ciphertext, scheme)
    except ValueError:
        raise invalid_parameter("CiphertextBlob") from None


def _scheme(algorithm: str) -> AsymmetricPadding:
    scheme = OAEP.get(algorithm)
    if scheme is None:
        raise invalid_parameter("Algorithm", f"not one of {', '.join(OAEP)}")
    return scheme
