"""The format of ``docs/format.md``: how values are encrypted, bound to their place, and opened again.

Called by the command line to seal and by the operator and the broker to open. It is pure: bytes and text in, bytes and
text out; it knows nothing of KMS, YAML or Kubernetes, and does no input or output. Rule numbers in comments are those
of the document. Everything here raises: there is no function that answers whether ciphertext is good.
"""

import base64
import binascii
import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmseal.errors import Malformed, Unauthentic, WrongBinding
from kmseal.redacted import Redacted

FORMAT: Final = "v1"
DATA_KEY_BYTES: Final = 32
VALUES_BYTES_MAX: Final = 1_048_576  # What the API server accepts in one Secret.

_CHECK_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_OVERHEAD: Final = _CHECK_BYTES + _NONCE_BYTES + _TAG_BYTES
_DATA_KEY_ID: Final = re.compile(r"[a-z0-9]{4,16}", re.ASCII)
_VALUE_NAME: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}", re.ASCII)
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_OBJECT_NAME: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_OBJECT_NAME_MAX: Final = 253

DataKeyId = NewType("DataKeyId", str)
Entropy = Callable[[int], bytes]


class Scope(StrEnum):
    """Where ciphertext may be used."""

    STRICT = "Strict"
    NAMESPACE = "Namespace"
    CLUSTER = "Cluster"


@dataclass(frozen=True, slots=True)
class Place:
    """What ciphertext is bound to: the scope and, as far as the scope says, namespace and name (B1)."""

    scope: Scope
    namespace: str
    name: str

    @classmethod
    def of(cls, scope: Scope, namespace: str, name: str) -> "Place":
        """The place of the object ``namespace/name`` under ``scope``.

        Raises Malformed with the reason ObjectName: an empty name would bind to less than the scope says.
        """
        if scope is not Scope.CLUSTER:
            require_namespace(namespace)
        if scope is Scope.STRICT:
            require_object_name(name)
        return cls(
            scope,
            "" if scope is Scope.CLUSTER else namespace,
            name if scope is Scope.STRICT else "",
        )

    @classmethod
    def parse_sealed_for(cls, text: str) -> "Place":
        """Reads ``sealedFor`` (B4). Raises Malformed with the reason SealedFor."""
        namespace, _, name = text.partition("/")
        if text == "*/*":
            return cls(Scope.CLUSTER, "", "")
        if _is_namespace(namespace) and name == "*":
            return cls(Scope.NAMESPACE, namespace, "")
        if _is_namespace(namespace) and _is_object_name(name):
            return cls(Scope.STRICT, namespace, name)
        raise Malformed(
            "must be <namespace>/<name>, <namespace>/* or */*",
            field="sealedFor",
            reason="SealedFor",
            remedy="restore the line from Git, or seal again",
        )

    @property
    def sealed_for(self) -> str:
        """The place in one word (B4)."""
        return f"{self.namespace or '*'}/{self.name or '*'}"

    def encryption_context(self) -> dict[str, str]:
        """The KMS encryption context (B3), in sorted order."""
        context = {"kmseal.dev/format": FORMAT}
        if self.name:
            context["kmseal.dev/name"] = self.name
        if self.namespace:
            context["kmseal.dev/namespace"] = self.namespace
        context["kmseal.dev/scope"] = self.scope.value
        return context

    def associated_data(self, value_name: str) -> bytes:
        """What the tag of a value authenticates beside the value (B2)."""
        return length_prefixed("kmseal/v1/value", self.scope.value, self.namespace, self.name, value_name)

    def require(self, sealed_for: "Place") -> None:
        """Refuses ciphertext that was sealed for another place, saying what differs (B4).

        Raises WrongBinding with the reason ScopeMismatch, NamespaceMismatch or NameMismatch.
        """
        if sealed_for.scope is not self.scope:
            raise WrongBinding(
                f"sealed with scope {sealed_for.scope.value}, this object has scope {self.scope.value}",
                field="sealedFor",
                reason="ScopeMismatch",
                remedy="restore spec.scope, or seal again for this scope",
            )
        if sealed_for.namespace != self.namespace:
            raise WrongBinding(
                f'sealed for namespace "{sealed_for.namespace}", this object is in "{self.namespace}"',
                field="sealedFor",
                reason="NamespaceMismatch",
                remedy="move the object back, or seal the values again for this namespace",
            )
        if sealed_for.name != self.name:
            raise WrongBinding(
                f'sealed for name "{sealed_for.name}", this object is named "{self.name}"',
                field="sealedFor",
                reason="NameMismatch",
                remedy="restore metadata.name, or seal the values again for this name",
            )


@dataclass(frozen=True, slots=True)
class EncryptedValue:
    """One parsed value line: which data key, and the decoded payload's parts (V1, V5)."""

    data_key_id: DataKeyId
    check: bytes
    nonce: bytes
    sealed: bytes
    """Ciphertext and tag."""

    @classmethod
    def parse(cls, line: str) -> "EncryptedValue":
        """Reads a value line strictly. Raises Malformed with the reason of the rule that it breaks."""
        parts = line.split(".") if line.isascii() else []
        if len(parts) != 3:
            raise Malformed(
                "is not an encrypted value of the form v1.<data key id>.<base64>",
                reason="LineParts",
                remedy="encrypt the value with kmseal set; plain values do not belong here",
            )
        label, data_key_id, payload = parts
        if label != FORMAT:
            raise Malformed(
                "has a format label other than v1",
                reason="UnknownFormat",
                remedy="a newer kmseal may know it: upgrade, or seal the value again with this one",
            )
        raw = decode_base64(payload)
        if not _OVERHEAD <= len(raw) <= _OVERHEAD + VALUES_BYTES_MAX:
            raise Malformed(
                f"has a payload of {len(raw)} bytes, which is not between {_OVERHEAD} and "
                f"{_OVERHEAD + VALUES_BYTES_MAX}",
                reason="PayloadLength",
                remedy="restore the line from Git, or set the value again",
            )
        nonce_end = _CHECK_BYTES + _NONCE_BYTES
        return cls(require_data_key_id(data_key_id), raw[:_CHECK_BYTES], raw[_CHECK_BYTES:nonce_end], raw[nonce_end:])

    def line(self) -> str:
        """The value as text (V1)."""
        return f"{FORMAT}.{self.data_key_id}.{encode_base64(self.check + self.nonce + self.sealed)}"

    @property
    def size(self) -> int:
        """Bytes of the plaintext."""
        return len(self.sealed) - _TAG_BYTES

    def require_name(self, place: Place, value_name: str) -> None:
        """Refuses, without any key, a line that was sealed under another value name (V6)."""
        if self.check != _check(place.associated_data(value_name)):
            raise WrongBinding(
                "was sealed under another value name, or for another place",
                reason="ValueMoved",
                remedy="put the line back under its own name, or set the value again under this one",
            )


def encrypt_value(
    data_key: Redacted,
    data_key_id: DataKeyId,
    place: Place,
    value_name: str,
    value: Redacted,
    *,
    entropy: Entropy = secrets.token_bytes,
) -> EncryptedValue:
    """Encrypts one value under a data key, bound to its place and name.

    ``entropy`` is the source of the nonce; only the makers of test vectors pass another one.
    Raises Malformed for a name or a data key id of the wrong form, and for a value over the limit.
    """
    require_value_name(value_name)
    require_data_key_id(data_key_id)
    if len(value) > VALUES_BYTES_MAX:
        raise Malformed(
            f"is {len(value)} bytes long; all values of a Secret together may have {VALUES_BYTES_MAX}",
            reason="ValueTooLarge",
            remedy="store large files elsewhere and keep only their key here",
        )
    associated = place.associated_data(value_name)
    nonce = entropy(_NONCE_BYTES)
    sealed = _cipher(data_key).encrypt(nonce, value.reveal(), associated)
    return EncryptedValue(data_key_id, _check(associated), nonce, sealed)


def decrypt_value(data_key: Redacted, place: Place, value_name: str, encrypted: EncryptedValue) -> Redacted:
    """Opens one value. Raises WrongBinding (ValueMoved) or Unauthentic (ValueAltered)."""
    associated = place.associated_data(value_name)
    try:
        value = _cipher(data_key).decrypt(encrypted.nonce, encrypted.sealed, associated)
    except InvalidTag:
        encrypted.require_name(place, value_name)
        raise _altered() from None
    if encrypted.check != _check(associated):
        # The tag is right, so the line is in its place and only the check was touched (V6).
        raise _altered()
    return Redacted(value)


def require_total_size(values: Mapping[str, EncryptedValue]) -> None:
    """Refuses an object whose plaintexts together do not fit a Secret (O1)."""
    total = sum(value.size for value in values.values())
    if total > VALUES_BYTES_MAX:
        raise Malformed(
            f"the values are {total} bytes together; a Secret holds at most {VALUES_BYTES_MAX}",
            field="encryptedData",
            reason="ValueTooLarge",
            remedy="split the object",
        )


def require_value_name(name: str) -> str:
    """Refuses a name that a Secret cannot have (V8)."""
    if not _VALUE_NAME.fullmatch(name) or name == "." or name.startswith(".."):
        raise Malformed(
            f"{shorten(name)} is not a valid value name",
            reason="ValueName",
            remedy="use letters, digits, '-', '_' and '.', at most 253, not beginning with '..'",
        )
    return name


def require_namespace(text: str) -> str:
    """Refuses what cannot be the name of a namespace (B1)."""
    if not _is_namespace(text):
        raise Malformed(
            "cannot be the name of a namespace",
            field="namespace",
            reason="ObjectName",
            remedy="use lower-case letters, digits and '-', at most 63, with a letter or digit at both ends",
        )
    return text


def require_object_name(text: str) -> str:
    """Refuses what cannot be the name of an EncryptedSecret or a Secret (B1)."""
    if not _is_object_name(text):
        raise Malformed(
            "cannot be the name of a Secret",
            field="name",
            reason="ObjectName",
            remedy="use lower-case letters, digits, '-' and '.', at most 253, with a letter or digit at both ends",
        )
    return text


def require_data_key_id(text: str) -> DataKeyId:
    """Refuses an id of the wrong form (V3)."""
    if not _DATA_KEY_ID.fullmatch(text):
        raise Malformed(
            # Not quoted: where somebody typed a plain value into a line, this part may be a piece of it.
            "the data key id does not have its form",
            reason="DataKeyId",
            remedy="ids are 4 to 16 lower-case letters and digits; kmseal writes them",
        )
    return DataKeyId(text)


def new_data_key_id(*, entropy: Entropy = secrets.token_bytes) -> DataKeyId:
    """A fresh random id of 8 characters (K2)."""
    return DataKeyId(base64.b32encode(entropy(5)).decode().lower())


def length_prefixed(*parts: str) -> bytes:
    """The unambiguous concatenation of B2: a 32-bit big-endian length before each part in UTF-8."""
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def encode_base64(raw: bytes) -> str:
    """Canonical base64 (V4)."""
    return base64.b64encode(raw).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Decodes canonical base64 only (V4). Raises Malformed with the reason Base64."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = None
    # Unused bits that are not zero decode to the same bytes: only encoding again shows them.
    if raw is None or encode_base64(raw) != text:
        raise Malformed(
            "is not canonical base64",
            reason="Base64",
            remedy="the line was cut, wrapped or edited: restore it from Git, or seal again",
        )
    return raw


def shorten(text: str, limit: int = 60) -> str:
    """Quotes text of unknown origin for an error message: names only, never values.

    What would break the line, reorder it or drive a terminal is shown as an escape.
    """
    shown = text[:limit].replace("\\", "\\\\").replace('"', '\\"')
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return f'"{shown}"' if len(text) <= limit else f'"{shown}…"'


def require_data_key(data_key: Redacted) -> Redacted:
    """Refuses an unwrapped data key that is not one (K8)."""
    if len(data_key) != DATA_KEY_BYTES:
        raise Malformed(
            f"the data key is {len(data_key)} bytes long instead of {DATA_KEY_BYTES}",
            reason="DataKeyLength",
            remedy="it was not wrapped by kmseal: seal again",
        )
    return data_key


def _cipher(data_key: Redacted) -> AESGCM:
    return AESGCM(require_data_key(data_key).reveal())


def _is_namespace(text: str) -> bool:
    return _NAMESPACE.fullmatch(text) is not None


def _is_object_name(text: str) -> bool:
    return len(text) <= _OBJECT_NAME_MAX and _OBJECT_NAME.fullmatch(text) is not None


def _check(associated: bytes) -> bytes:
    return hashlib.sha256(associated).digest()[:_CHECK_BYTES]


def _altered() -> Unauthentic:
    return Unauthentic(
        "does not authenticate: the line was altered, or belongs to another data key",
        reason="ValueAltered",
        remedy="restore the line from Git, or set the value again",
    )
