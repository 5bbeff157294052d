"""Objects in the making, for the vectors: data keys with wrappings, and values under them, all from seeded bytes."""

import base64
import hashlib
import json
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value, length_prefixed
from kmseal.redacted import Redacted

Json = dict[str, Any]

KMS_KEY = "acs:kms:cn-hangzhou:1234567890123456:key/key-hzz62f1cb66fa42qo1234"
KMS_KEY_2 = "acs:kms:ap-southeast-1:1234567890123456:key/key-sgp93b7de01ac58wk5678"
RSA_KEY = "acs:kms:cn-hangzhou:1234567890123456:key/key-hzz77aa9c3fe10dm9012"
LOCAL_KEY = "local:dev"
FIRST, SECOND = DataKeyId("k4q7x2mz"), DataKeyId("m3w8r5tb")


class Entropy:
    """An endless stream of bytes that its label decides. For vectors only: whoever knows the label knows the bytes."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._count = 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"kmseal vectors/{self._label}/{self._count}".encode()).digest(size)


class Sealing:
    """One object in the making: data keys with wrappings, and values under them."""

    def __init__(self, label: str, scope: Scope = Scope.STRICT, namespace: str = "prod", name: str = "db") -> None:
        self._entropy = Entropy(label)
        self._metadata = {"namespace": namespace, "name": name}
        self._place = Place.of(scope, namespace, name)
        self._lines: dict[str, str] = {}
        self._wrapped: list[Json] = []
        self.data_keys: dict[str, bytes] = {}
        self.local_keys: dict[str, bytes] = {}
        self.values: dict[str, bytes] = {}

    def add_key(self, data_key_id: str, *key_ids: str) -> "Sealing":
        """Adds a data key, wrapped by each of the keys."""
        data_key = self.data_keys[data_key_id] = self._entropy(32)
        self._wrapped.append(
            {
                "id": data_key_id,
                "sealedFor": self._place.sealed_for,
                "wrappings": [self._wrap(key_id, data_key) for key_id in key_ids],
            }
        )
        return self

    def add_value(self, data_key_id: str, name: str, value: bytes) -> "Sealing":
        """Encrypts a value under a data key that is there already."""
        secret, data_key = Redacted(value), Redacted(self.data_keys[data_key_id])
        sealed = encrypt_value(data_key, DataKeyId(data_key_id), self._place, name, secret, entropy=self._entropy)
        self._lines[name] = sealed.line()
        self.values[name] = value
        return self

    def manifest(self, **spec: Any) -> Json:
        """The object, with more members of ``spec`` where a vector shows them."""
        return {
            "apiVersion": "kmseal.dev/v1alpha1",
            "kind": "EncryptedSecret",
            "metadata": dict(self._metadata),
            "spec": {
                "scope": self._place.scope.value,
                "dataKeys": self._wrapped,
                "encryptedData": self._lines,
                **spec,
            },
        }

    def rewrap(self, data_key_id: str, index: int, key_id: str = "", version: str = "v2") -> Json:
        """An item of ``status.rewrapped`` for the wrapping at ``index``, by the same key unless told."""
        replaced = next(item for item in self._wrapped if item["id"] == data_key_id)["wrappings"][index]
        newer = self._wrap(key_id or replaced["keyId"], self.data_keys[data_key_id], version)
        return {"dataKeyId": data_key_id, "digest": digest(replaced), "wrapping": newer}

    def _wrap(self, key_id: str, data_key: bytes, version: str = "v1") -> Json:
        version = f"{key_id.rpartition('/')[2].removeprefix('local:')[:61]}-{version}"
        if key_id.startswith("local:"):
            key = self.local_keys.setdefault(key_id, self._entropy(32))
            context = json.dumps(self._place.encryption_context(), sort_keys=True, separators=(",", ":"))
            nonce = self._entropy(12)
            wrapped = nonce + AESGCM(key).encrypt(nonce, data_key, length_prefixed("kmseal/v1/local-wrapping", context))
            algorithm = "LOCAL_AES_256_GCM"
        elif key_id == RSA_KEY:
            # What KMS and RSA would make of the data key cannot be drawn from a stream: these bytes only have its size.
            algorithm, wrapped = "RSAES_OAEP_SHA_256", self._entropy(256)
        else:
            algorithm, wrapped = "KMS_SYMMETRIC", self._entropy(146)
        return {"keyId": key_id, "keyVersionId": version, "algorithm": algorithm, "wrapped": to_base64(wrapped)}


def digest(wrapping: Json) -> str:
    """The digest of R2."""
    text = length_prefixed("kmseal/v1/wrapping", wrapping["keyId"], wrapping["keyVersionId"], wrapping["algorithm"])
    return hashlib.sha256(text + base64.b64decode(wrapping["wrapped"])).hexdigest()


def one_value(label: str, scope: Scope = Scope.STRICT, keys: tuple[str, ...] = (KMS_KEY,)) -> Sealing:
    return Sealing(label, scope).add_key(FIRST, *keys).add_value(FIRST, "password", b"correct horse battery staple")


def two_keys(label: str) -> Sealing:
    sealing = Sealing(label).add_key(FIRST, KMS_KEY, KMS_KEY_2).add_key(SECOND, KMS_KEY)
    sealing.add_value(FIRST, "password", b"correct horse battery staple").add_value(FIRST, "user", b"app")
    return sealing.add_value(SECOND, "token", b"\x00\x01\x02")


def to_base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
