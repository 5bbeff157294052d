"""The bytes of a CiphertextBlob: ``key version id (36) ‖ nonce (12) ‖ AES-256-GCM(plaintext)``.

The associated data are the version's id and the encryption context, in a canonical form, which is not stored: so one
key does not open what another sealed, though the same material was imported into both. Real blobs also open with an id
of 36 characters; the rest of their layout is not documented, so clients must take them as opaque. Pure: the nonce comes
from the caller. Used by ``operations`` only.
"""

import json
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmseal.fakekms.refusals import invalid_parameter

VERSION_LENGTH: Final = 36
NONCE_LENGTH: Final = 12
_TAG_LENGTH: Final = 16


def canonical_context(context: Mapping[str, str]) -> bytes:
    """The same bytes for the same set of names and values, whatever their order."""
    return json.dumps(context, sort_keys=True, separators=(",", ":")).encode()


def seal(cipher: AESGCM, version_id: str, plaintext: bytes, context: Mapping[str, str], nonce: bytes) -> bytes:
    """The blob of a plaintext under a key version. ``nonce`` is 12 bytes that were never used with it."""
    name = version_id.encode()
    return name + nonce + cipher.encrypt(nonce, plaintext, name + canonical_context(context))


def version_of(blob: bytes) -> str:
    """The id of the key version that sealed the blob. Raises InvalidParameter when there is none."""
    if len(blob) < VERSION_LENGTH + NONCE_LENGTH + _TAG_LENGTH or not blob[:VERSION_LENGTH].isascii():
        raise invalid_parameter("CiphertextBlob")
    return blob[:VERSION_LENGTH].decode()


def unseal(cipher: AESGCM, blob: bytes, context: Mapping[str, str]) -> bytes:
    """The plaintext. Raises InvalidParameter for an altered blob and for another context alike."""
    name, nonce = blob[:VERSION_LENGTH], blob[VERSION_LENGTH : VERSION_LENGTH + NONCE_LENGTH]
    try:
        return cipher.decrypt(nonce, blob[VERSION_LENGTH + NONCE_LENGTH :], name + canonical_context(context))
    except InvalidTag:
        raise invalid_parameter("CiphertextBlob or EncryptionContext") from None
