"""The JSON shapes of keys, versions and lists in answers, in the spelling of the API of 2016-01-20.

Pure; used by the management actions. A member that the documentation returns only in some cases is left out in others:
clients must not expect it.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.keys import Alias, Key, KeyVersion
from kmseal.fakekms.states import KeyState


def timestamp(seconds: float) -> str:
    """A time as the API writes it: ``2026-11-24T05:32:41Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def metadata(key: Key) -> Body:
    """The KeyMetadata of CreateKey and DescribeKey."""
    body: Body = {
        "Arn": key.arn,
        "AutomaticRotation": _rotation_word(key),
        "CreationDate": timestamp(key.created),
        "Creator": key.creator,
        "Description": key.description,
        "KeyId": key.key_id,
        "KeySpec": key.spec.value,
        "KeyState": key.state.value,
        "KeyUsage": "ENCRYPT/DECRYPT",
        "Origin": key.origin,
        "ProtectionLevel": key.protection_level,
        "LastRotationDate": timestamp(key.last_rotation or key.created),
        "DeleteDate": "" if key.delete_at is None else timestamp(key.delete_at),
        "MaterialExpireTime": "" if key.material_expires is None else timestamp(key.material_expires),
    }
    if not key.asymmetric:
        # An asymmetric key has no primary version: callers name one of ListKeyVersions.
        body["PrimaryKeyVersion"] = key.primary.version_id
    if key.next_rotation is not None:
        body["RotationInterval"] = f"{key.rotation_interval}s"
        body["NextRotationDate"] = timestamp(key.next_rotation)
    return body


def version(key: Key, which: KeyVersion) -> Body:
    """One version, as the version actions answer it."""
    return {"KeyId": key.key_id, "KeyVersionId": which.version_id, "CreationDate": timestamp(which.created)}


def aliases(call: Call, found: Sequence[Alias]) -> Body:
    """A page of aliases, sorted by name."""
    bodies: list[Body] = [
        {"AliasName": alias.name, "AliasArn": alias.arn, "KeyId": alias.key_id}
        for alias in sorted(found, key=lambda alias: alias.name)
    ]
    return page(call, "Aliases", "Alias", bodies)


def page(call: Call, outer: str, inner: str, items: Sequence[Body]) -> Body:
    """One page of a list, in the wrapping that the API puts around lists."""
    number = call.parameters.integer("PageNumber", 1, 10**9) or 1
    size = call.parameters.integer("PageSize", 1, 100) or 10
    found = list(items[(number - 1) * size : number * size])
    return {outer: {inner: found}, "PageNumber": number, "PageSize": size, "TotalCount": len(items)}


def _rotation_word(key: Key) -> str:
    if key.rotation_interval is None:
        return "Disabled"
    return "Enabled" if key.state is KeyState.ENABLED else "Suspended"
