"""The cryptographic actions of symmetric keys: GenerateDataKey and its variant, Encrypt, Decrypt, ReEncrypt.

Functions from a :class:`~kmseal.fakekms.calls.Call` to the answer's JSON; ``service`` finds them in
:data:`OPERATIONS`. Plaintexts appear in answers only, never in notes or refusals. ReEncrypt answers the version that
opened the source, as documented, although one would expect the new one: clients must not rely on it.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Final

from kmseal.fakekms import asymmetric, ciphertext
from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.keys import Key
from kmseal.fakekms.refusals import invalid_parameter, unsupported_operation

PLAINTEXT_LIMIT: Final = 6144
"""Most bytes that Encrypt takes."""


def generate_data_key(call: Call) -> Body:
    plaintext, body = _generate(call)
    return {**body, "Plaintext": _text(plaintext)}


def generate_data_key_without_plaintext(call: Call) -> Body:
    return _generate(call)[1]


def encrypt(call: Call) -> Body:
    call.context = call.parameters.context()
    plaintext = call.parameters.base64("Plaintext")
    if not 1 <= len(plaintext) <= PLAINTEXT_LIMIT:
        raise invalid_parameter("Plaintext", f"not 1 to {PLAINTEXT_LIMIT} bytes")
    return _seal(call, call.key(alias_allowed=True), plaintext, call.context)


def decrypt(call: Call) -> Body:
    _refuse_recipient(call)
    call.context = call.parameters.context()
    plaintext, key, version_id = _open(call, "Decrypt", call.context)
    return {"Plaintext": _text(plaintext), "KeyId": key.key_id, "KeyVersionId": version_id}


def re_encrypt(call: Call) -> Body:
    """Also takes what was encrypted with the public half of an asymmetric key, which has no context then."""
    parameters = call.parameters
    algorithm = parameters.optional("SourceEncryptionAlgorithm")
    call.context = parameters.context("SourceEncryptionContext")
    destination_context = parameters.context("DestinationEncryptionContext")
    destination = call.store.resolve(call.region, parameters.text("DestinationKeyId"))
    if not algorithm:
        plaintext, source, version_id = _open(call, "ReEncryptFrom", call.context)
    elif call.context:
        raise invalid_parameter("SourceEncryptionContext", "a ciphertext of an asymmetric key has no context")
    else:
        plaintext, source, version_id = asymmetric.open_source(call, algorithm)
    call.admit(destination, "ReEncryptTo")
    body = _seal(call, destination, plaintext, destination_context)
    # The trail keeps the source: that is the version which somebody wants to see go out of use.
    call.key_arn, call.key_version_id = source.arn, version_id
    return {**body, "KeyId": source.key_id, "KeyVersionId": version_id}


OPERATIONS: Final[Mapping[str, Callable[[Call], Body]]] = {
    "GenerateDataKey": generate_data_key,
    "GenerateDataKeyWithoutPlaintext": generate_data_key_without_plaintext,
    "Encrypt": encrypt,
    "Decrypt": decrypt,
    "ReEncrypt": re_encrypt,
}


def _generate(call: Call) -> tuple[bytes, Body]:
    _refuse_recipient(call)
    call.context = call.parameters.context()
    spec = call.parameters.optional("KeySpec", "AES_256")
    if spec not in {"AES_256", "AES_128"}:
        raise invalid_parameter("KeySpec", "neither AES_256 nor AES_128")
    size = call.parameters.integer("NumberOfBytes", 1, 1024) or {"AES_256": 32, "AES_128": 16}[spec]
    key = call.key(alias_allowed=True)
    plaintext = call.store.random_bytes(size)
    return plaintext, _seal(call, key, plaintext, call.context)


def _seal(call: Call, key: Key, plaintext: bytes, context: Mapping[str, str]) -> Body:
    version_id = key.primary.version_id
    call.key_version_id = version_id
    cipher = call.store.cipher(key, version_id)
    if cipher is None:
        raise unsupported_operation("the key is not a symmetric one")
    nonce = call.store.random_bytes(ciphertext.NONCE_LENGTH)
    blob = ciphertext.seal(cipher, version_id, plaintext, context, nonce)
    return {"CiphertextBlob": _text(blob), "KeyId": key.key_id, "KeyVersionId": version_id}


def _open(call: Call, right: str, context: Mapping[str, str]) -> tuple[bytes, Key, str]:
    """The plaintext of the call's blob, the key and the version id that opened it."""
    blob = call.parameters.base64("CiphertextBlob")
    version_id = ciphertext.version_of(blob)
    key = call.admit(call.store.by_version(call.region, version_id), right)
    call.key_version_id = version_id
    cipher = call.store.cipher(key, version_id)
    if cipher is None:
        raise invalid_parameter("CiphertextBlob")
    return ciphertext.unseal(cipher, blob, context), key, version_id


def _refuse_recipient(call: Call) -> None:
    if call.parameters.optional("Recipient"):
        raise unsupported_operation("there are no confidential computing recipients here")


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
