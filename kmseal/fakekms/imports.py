"""Bring your own key: the actions that import key material, and forget it.

GetParametersForImport gives out a public key and a token that lasts a day; ImportKeyMaterial takes what was encrypted
to that key, for the same KMS key only. Once imported, a key takes no other material, so that what it sealed opens again
after the material has expired or was deleted. Functions from a :class:`~kmseal.fakekms.calls.Call` to the answer's
JSON.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from kmseal.fakekms import rsakeys
from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.keys import EXTERNAL, ImportSlot, Key
from kmseal.fakekms.refusals import Refusal, invalid_parameter, unsupported_origin
from kmseal.fakekms.shapes import timestamp

TOKEN_SECONDS: Final = 86400
_SLOTS: Final = 8
_LATEST: Final = 2**32
_WRAPPING_KEYS: Final = {"RSA_2048": 2048, "RSA_3072": 3072, "RSA_4096": 4096}


def get_parameters_for_import(call: Call) -> Body:
    algorithm = call.parameters.text("WrappingAlgorithm")
    if algorithm not in rsakeys.WRAPPING:
        raise invalid_parameter("WrappingAlgorithm", f"not one of {', '.join(rsakeys.WRAPPING)}")
    bits = _WRAPPING_KEYS.get(call.parameters.text("WrappingKeySpec"))
    if bits is None:
        raise invalid_parameter("WrappingKeySpec", f"not one of {', '.join(_WRAPPING_KEYS)}")
    key = _external(call.key())
    material = rsakeys.generate(bits)
    token = base64.b64encode(call.store.random_bytes(64)).decode()
    slot = ImportSlot(token, algorithm, call.store.now() + TOKEN_SECONDS, material)
    # Old slots are kept for a while after their end, so that their tokens are told to have expired.
    call.store.put(replace(key, imports=(*key.imports, slot)[-_SLOTS:]))
    return {
        "KeyId": key.key_id,
        "ImportToken": token,
        "PublicKey": base64.b64encode(rsakeys.public_der(rsakeys.load(material))).decode(),
        "TokenExpireTime": timestamp(slot.expires),
    }


def import_key_material(call: Call) -> Body:
    token, wrapped = call.parameters.text("ImportToken"), call.parameters.text("EncryptedKeyMaterial")
    key = _external(call.key())
    expires = call.parameters.integer("KeyMaterialExpireUnix", 0, _LATEST) or None
    if expires is not None and expires <= call.store.now():
        raise invalid_parameter("KeyMaterialExpireUnix", "it has passed")
    slot = next((slot for slot in key.imports if slot.token == token), None)
    if slot is None:
        raise Refusal(400, "InvalidImportToken", "The import token is not one of this key.")
    if slot.expires <= call.store.now():
        raise Refusal(400, "ExpiredImportToken", "The import token has expired.")
    call.store.import_material(key, _unwrap(slot, wrapped), expires)
    return {}


def delete_key_material(call: Call) -> Body:
    call.store.forget_material(_external(call.key()))
    return {}


OPERATIONS: Final[Mapping[str, Callable[[Call], Body]]] = {
    "GetParametersForImport": get_parameters_for_import,
    "ImportKeyMaterial": import_key_material,
    "DeleteKeyMaterial": delete_key_material,
}


def _external(key: Key) -> Key:
    if key.origin != EXTERNAL:
        raise unsupported_origin("its material is the service's own")
    return key


def _unwrap(slot: ImportSlot, wrapped: str) -> bytes:
    try:
        ciphertext = base64.b64decode(wrapped, validate=True)
        return rsakeys.load(slot.private_key).decrypt(ciphertext, rsakeys.WRAPPING[slot.algorithm])
    except (binascii.Error, ValueError):
        raise Refusal(400, "InvalidKeyMaterial", "The encrypted key material cannot be decrypted.") from None
