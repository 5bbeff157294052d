"""What successful answers of KMS must hold, checked field by field.

Called by the provider with the SDK's answer models, which take any JSON and leave out what does not fit. An answer
without its form is Unavailable: a proxy's or a broken server's, not a statement of KMS. Nothing of it is quoted.
"""

import re
from typing import Any, Final

from kmseal.envelope import DATA_KEY_BYTES, decode_base64
from kmseal.errors import Malformed, Refused, Unavailable
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.errors import request_id_of
from kmseal.kms.provider import FreshDataKey, KeyDescription, KeyState, Unwrapped
from kmseal.manifest import WRAPPED_BYTES_MAX, Algorithm, Wrapping
from kmseal.redacted import Redacted

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
    # A key without material has no version yet.
    version = "" if known is KeyState.PENDING_IMPORT else _id(metadata, "primary_key_version")
    return KeyDescription(named.arn, known, version)


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
