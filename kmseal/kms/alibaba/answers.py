"""What successful answers of KMS must hold, checked field by field.

Called by the provider with the SDK's answer models, which take any JSON and leave out what does not fit. An answer
without its form is Unavailable: a proxy's or a broken server's, not a statement of KMS. Nothing of it is quoted.
"""

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kmseal.envelope import DATA_KEY_BYTES, decode_base64
from kmseal.errors import Malformed, Refused, Unavailable
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.errors import request_id_of
from kmseal.kms.provider import FreshDataKey, KeyDescription, KeyState, PublicHalf, Unwrapped
from kmseal.manifest import WRAPPED_BYTES_MAX, Algorithm, Wrapping
from kmseal.redacted import Redacted

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


def read_fresh_data_key(body: Any, asked: KeyName) -> FreshDataKey:
    """Reads GenerateDataKey's answer."""
    data_key = _secret(body, "plaintext")
    if len(data_key) != DATA_KEY_BYTES:
        raise _unexpected("plaintext")
    return FreshDataKey(data_key, read_wrapping(body, asked))


def read_wrapping(body: Any, asked: KeyName) -> Wrapping:
    """Reads Encrypt's answer. ``asked`` may be an alias: the wrapping names the key that KMS took."""
    return Wrapping(
        asked.key(_id(body, "key_id")).arn, _id(body, "key_version_id"), Algorithm.KMS_SYMMETRIC, read_blob(body)
    )


def read_blob(body: Any) -> bytes:
    """Reads the wrapped data key alone."""
    blob = _bytes(body, "ciphertext_blob")
    if not 1 <= len(blob) <= WRAPPED_BYTES_MAX:
        raise _unexpected("ciphertext_blob")
    return blob


def read_unwrapped(body: Any, wrapping: Wrapping) -> Unwrapped:
    """Reads the answer of Decrypt and of AsymmetricDecrypt.

    Decrypt is not told the key: it finds it in the ciphertext. So a manifest could name one key, by which its use is
    allowed, and carry a data key that another one wrapped. The answer says which it was.
    """
    key = KeyName.parse(wrapping.key_id)
    if key.key(_id(body, "key_id")) != key:
        raise Refused(
            f"the data key was not wrapped by {key.arn}, which its wrapping names",
            reason="WrongKey",
            remedy="restore the wrapping from Git; kmseal writes it",
            request_id=_request_id(body),
        )
    return Unwrapped(_secret(body, "plaintext"), key.arn, _id(body, "key_version_id"), _request_id(body))


def read_description(body: Any, asked: KeyName) -> KeyDescription:
    """Reads DescribeKey's answer. The key is named by its own ARN, whatever account or alias was asked for."""
    metadata = getattr(body, "key_metadata", None)
    arn, state = _text(metadata, "arn"), _text(metadata, "key_state")
    try:
        named = KeyName.parse(arn)
        known = KeyState(state)
    except (Malformed, ValueError):
        named, known = asked, None
    if known is None or named.is_alias or named.region != asked.region:
        raise _unexpected("arn or key_state")
    asymmetric = _is_asymmetric(metadata)
    # A key without material has no version yet, and an asymmetric one has no primary one.
    versionless = asymmetric or known is KeyState.PENDING_IMPORT
    if versionless and not getattr(metadata, "primary_key_version", None):
        return KeyDescription(named.arn, known, "", asymmetric)
    return KeyDescription(named.arn, known, _id(metadata, "primary_key_version"), asymmetric)


def read_reencrypted(body: Any) -> tuple[str, bytes]:
    """Reads ReEncrypt's answer: the id of the key that opened the old wrapping, and the new wrapping's bytes."""
    return _id(body, "key_id"), read_blob(body)


def read_public_half(body: Any, asked: KeyName) -> PublicHalf:
    """Reads GetPublicKey's answer. What is not the public half of the key that was asked for is not one to seal by."""
    named = asked.key(_id(body, "key_id"))
    pem = _text(body, "public_key")
    loaded: object = None
    with suppress(ValueError, UnsupportedAlgorithm):
        loaded = load_pem_public_key(pem.encode())
    if loaded is None or not (asked.is_alias or named == asked):
        raise _unexpected("public_key")
    return PublicHalf(named.arn, _id(body, "key_version_id"), pem.strip() + "\n")


@dataclass(frozen=True, slots=True)
class VersionsPage:
    """A page of a key's versions, as pairs of creation date (ISO 8601, UTC) and id, and how many there are in all."""

    versions: list[tuple[str, str]]
    total: int


def read_versions_page(body: Any) -> VersionsPage:
    """Reads ListKeyVersions' answer."""
    listed = getattr(getattr(body, "key_versions", None), "key_version", None)
    total = getattr(body, "total_count", None)
    if not isinstance(listed, list) or not isinstance(total, int) or (total > 0 and not listed):
        raise _unexpected("key_versions")
    versions = []
    for version in listed:
        created = _text(version, "creation_date")
        if not _DATE.fullmatch(created):
            raise _unexpected("creation_date")
        versions.append((created, _id(version, "key_version_id")))
    return VersionsPage(versions, total)


def _is_asymmetric(metadata: Any) -> bool:
    """By the key's spec (``RSA_2048``, ``EC_P256``, …); by its usage where the answer has none."""
    spec, usage = getattr(metadata, "key_spec", None), getattr(metadata, "key_usage", None)
    if isinstance(spec, str) and spec:
        return spec.startswith(("RSA_", "EC_"))
    return usage == "SIGN/VERIFY"


def _text(model: Any, name: str) -> str:
    value = getattr(model, name, None)
    if not isinstance(value, str):
        raise _unexpected(name)
    return value


def _id(model: Any, name: str) -> str:
    text = _text(model, name)
    if not _ID.fullmatch(text):
        raise _unexpected(name)
    return text


def _bytes(model: Any, name: str) -> bytes:
    raw: bytes | None
    try:
        raw = decode_base64(_text(model, name))
    except Malformed:
        raw = None
    if raw is None:
        raise _unexpected(name)
    return raw


def _secret(model: Any, name: str) -> Redacted:
    return Redacted(_bytes(model, name))


def _request_id(body: Any) -> str:
    return request_id_of({"RequestId": getattr(body, "request_id", None)})


def _unexpected(name: str) -> Unavailable:
    return Unavailable(
        f"KMS answers without a usable {name.replace('_', ' ')}",
        remedy="check what is between this process and KMS; it is tried again",
    )
