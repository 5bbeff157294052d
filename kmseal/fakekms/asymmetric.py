"""The cryptographic actions of asymmetric keys: GetPublicKey, AsymmetricEncrypt, AsymmetricDecrypt.

Functions from a :class:`~kmseal.fakekms.calls.Call` to the answer's JSON; ``service`` finds them in :data:`OPERATIONS`,
and ``operations`` opens with :func:`open_source` what ReEncrypt is to take from such a key. The version always has to
be named, as a ciphertext does not tell it, and there is no encryption context.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Final

from kmseal.fakekms import rsakeys
from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.keys import Key, KeyVersion
from kmseal.fakekms.refusals import unsupported_operation


def get_public_key(call: Call) -> Body:
    key, version = _version(call, call.key(alias_allowed=True), "KeyVersionId")
    return {"PublicKey": rsakeys.public_pem(call.store.private_key(version)), **_names(key, version)}


def asymmetric_encrypt(call: Call) -> Body:
    algorithm, plaintext = call.parameters.text("Algorithm"), call.parameters.base64("Plaintext")
    key, version = _version(call, call.key(alias_allowed=True), "KeyVersionId")
    ciphertext = rsakeys.encrypt(call.store.private_key(version), algorithm, plaintext)
    return {"CiphertextBlob": base64.b64encode(ciphertext).decode(), **_names(key, version)}


def asymmetric_decrypt(call: Call) -> Body:
    if call.parameters.optional("Recipient"):
        raise unsupported_operation("there are no confidential computing recipients here")
    algorithm, ciphertext = call.parameters.text("Algorithm"), call.parameters.base64("CiphertextBlob")
    key, version = _version(call, call.key(alias_allowed=True), "KeyVersionId")
    plaintext = rsakeys.decrypt(call.store.private_key(version), algorithm, ciphertext)
    return {"Plaintext": base64.b64encode(plaintext).decode(), **_names(key, version)}


def open_source(call: Call, algorithm: str) -> tuple[bytes, Key, str]:
    """What ReEncrypt takes from an asymmetric key: the plaintext, the key and the version id that opened it."""
    ciphertext = call.parameters.base64("CiphertextBlob")
    named = call.store.resolve(call.region, call.parameters.text("SourceKeyId"))
    key, version = _version(call, call.admit(named, "ReEncryptFrom"), "SourceKeyVersionId")
    return rsakeys.decrypt(call.store.private_key(version), algorithm, ciphertext), key, version.version_id


OPERATIONS: Final[Mapping[str, Callable[[Call], Body]]] = {
    "GetPublicKey": get_public_key,
    "AsymmetricEncrypt": asymmetric_encrypt,
    "AsymmetricDecrypt": asymmetric_decrypt,
}


def _version(call: Call, key: Key, parameter: str) -> tuple[Key, KeyVersion]:
    if not key.asymmetric:
        raise unsupported_operation("the key is not an asymmetric one")
    call.key_version_id = call.parameters.text(parameter)
    return key, key.version(call.key_version_id)


def _names(key: Key, version: KeyVersion) -> Body:
    return {"KeyId": key.key_id, "KeyVersionId": version.version_id}
