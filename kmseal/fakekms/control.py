"""The management actions: keys, aliases, versions, rotation and tags.

Pure functions from a :class:`~kmseal.fakekms.calls.Call` to the answer's JSON; ``service`` finds them in
:data:`OPERATIONS`. They answer with the members and spellings of the API of 2016-01-20. CreateKeyVersion on a symmetric
key is refused, as the shared gateway does, unless the fake was told to behave like a software instance.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.keys import Alias, Key, KeyVersion
from kmseal.fakekms.refusals import Refusal, invalid_parameter, missing_parameter, unsupported_operation
from kmseal.fakekms.states import KeyState

_DAY: Final = 86400
_INTERVAL: Final = re.compile(r"([0-9]{1,9})([dhms])", re.ASCII)
_UNITS: Final = {"d": _DAY, "h": 3600, "m": 60, "s": 1}
_TAG_LIMIT: Final = 20
_DESCRIPTION_LIMIT: Final = 8192


def create_key(call: Call) -> Body:
    parameters = call.parameters
    spec, usage = parameters.optional("KeySpec", "Aliyun_AES_256"), parameters.optional("KeyUsage", "ENCRYPT/DECRYPT")
    if spec != "Aliyun_AES_256" or usage != "ENCRYPT/DECRYPT":
        raise unsupported_operation("this service has symmetric keys (Aliyun_AES_256, ENCRYPT/DECRYPT) only")
    origin = parameters.optional("Origin", "Aliyun_KMS")
    if origin not in {"Aliyun_KMS", "EXTERNAL"}:
        raise invalid_parameter("Origin")
    protection_level = parameters.optional("ProtectionLevel", "SOFTWARE")
    if protection_level not in {"SOFTWARE", "HSM"}:
        raise invalid_parameter("ProtectionLevel")
    rotates = parameters.boolean("EnableAutomaticRotation")
    if rotates and origin == "EXTERNAL":
        raise _no_rotation_of_external()
    key = call.store.create(
        call.region,
        call.identity.name,
        description=parameters.limited("Description", _DESCRIPTION_LIMIT),
        origin=origin,
        protection_level=protection_level,
        rotation_interval=_interval(call) if rotates else None,
        tags=_tags(call) if parameters.optional("Tags") else {},
    )
    call.key_arn = key.arn
    return {"KeyMetadata": _metadata(key)}


def describe_key(call: Call) -> Body:
    key = call.key(alias_allowed=True)
    return {"KeyMetadata": {**_metadata(key), "DeletionProtection": "Disabled", "DeletionProtectionDescription": ""}}


def list_keys(call: Call) -> Body:
    keys = [key for key in call.store.keys_of(call.region) if _passes(key, call.parameters.json_value("Filters"))]
    return _page(call, "Keys", "Key", [{"KeyId": key.key_id, "KeyArn": key.arn} for key in keys])


def enable_key(call: Call) -> Body:
    call.store.set_state(call.key(), KeyState.ENABLED)
    return {}


def disable_key(call: Call) -> Body:
    call.store.set_state(call.key(), KeyState.DISABLED)
    return {}


def schedule_key_deletion(call: Call) -> Body:
    days = call.parameters.integer("PendingWindowInDays", 7, 366)
    if days is None:
        raise missing_parameter("PendingWindowInDays")
    call.store.set_state(call.key(), KeyState.PENDING_DELETION, delete_at=call.now + days * _DAY)
    return {}


def cancel_key_deletion(call: Call) -> Body:
    call.store.set_state(call.key(), KeyState.ENABLED)
    return {}


def update_key_description(call: Call) -> Body:
    description = call.parameters.limited("Description", _DESCRIPTION_LIMIT)
    call.store.put(replace(call.key(), description=description))
    return {}


def create_alias(call: Call) -> Body:
    name = call.parameters.text("AliasName")
    call.store.create_alias(call.key(), name)
    return {}


def update_alias(call: Call) -> Body:
    alias = call.store.alias(call.region, call.parameters.text("AliasName"))
    call.store.move_alias(alias, call.key())
    return {}


def delete_alias(call: Call) -> Body:
    alias = call.store.alias(call.region, call.parameters.text("AliasName"))
    call.admit(call.store.resolve(call.region, alias.key_id))
    call.store.delete_alias(alias)
    return {}


def list_aliases(call: Call) -> Body:
    return _aliases(call, call.store.aliases(call.region))


def list_aliases_by_key_id(call: Call) -> Body:
    return _aliases(call, call.store.aliases(call.region, call.key().key_id))


def list_key_versions(call: Call) -> Body:
    key = call.key()
    # Newest first, as one wants to see them.
    return _page(call, "KeyVersions", "KeyVersion", [_version(key, version) for version in reversed(key.versions)])


def describe_key_version(call: Call) -> Body:
    key = call.key()
    call.key_version_id = call.parameters.text("KeyVersionId")
    return {"KeyVersion": _version(key, key.version(call.key_version_id))}


def create_key_version(call: Call) -> Body:
    key = call.key(alias_allowed=True)
    if not call.allow_symmetric_versions:
        raise Refusal(
            400, "Rejected.UnsupportedOperation", "A version of a symmetric key cannot be created on demand here."
        )
    key = call.store.rotate(key)
    call.key_version_id = key.primary.version_id
    return {"KeyVersion": _version(key, key.primary)}


def update_rotation_policy(call: Call) -> Body:
    rotates = call.parameters.boolean("EnableAutomaticRotation")
    interval = _interval(call) if rotates else None
    key = call.key()
    if key.origin == "EXTERNAL":
        raise _no_rotation_of_external()
    if key.protection_level == "HSM":
        raise Refusal(400, "Unsupported.ProtectionLevel", "Keys protected by an HSM are not rotated automatically.")
    call.store.put(replace(key, rotation_interval=interval))
    # A policy whose next date has already passed rotates at once.
    call.store.resolve(call.region, key.key_id)
    return {}


def tag_resource(call: Call) -> Body:
    tags = _tags(call)
    key = call.key()
    merged = {**key.tags, **tags}
    if len(merged) > _TAG_LIMIT:
        raise Refusal(400, "Rejected.LimitExceeded", f"A key has at most {_TAG_LIMIT} tags.")
    call.store.put(replace(key, tags=merged))
    return {}


def untag_resource(call: Call) -> Body:
    names = call.parameters.json_value("TagKeys")
    if not isinstance(names, list) or not names:
        raise invalid_parameter("TagKeys", "not a JSON list of names")
    key = call.key()
    call.store.put(replace(key, tags={name: value for name, value in key.tags.items() if name not in names}))
    return {}


def list_resource_tags(call: Call) -> Body:
    key = call.key()
    tags = [{"KeyId": key.key_id, "TagKey": name, "TagValue": value} for name, value in sorted(key.tags.items())]
    return {"Tags": {"Tag": tags}}


OPERATIONS: Final[Mapping[str, Callable[[Call], Body]]] = {
    "CreateKey": create_key,
    "DescribeKey": describe_key,
    "ListKeys": list_keys,
    "EnableKey": enable_key,
    "DisableKey": disable_key,
    "ScheduleKeyDeletion": schedule_key_deletion,
    "CancelKeyDeletion": cancel_key_deletion,
    "UpdateKeyDescription": update_key_description,
    "CreateAlias": create_alias,
    "UpdateAlias": update_alias,
    "DeleteAlias": delete_alias,
    "ListAliases": list_aliases,
    "ListAliasesByKeyId": list_aliases_by_key_id,
    "ListKeyVersions": list_key_versions,
    "DescribeKeyVersion": describe_key_version,
    "CreateKeyVersion": create_key_version,
    "UpdateRotationPolicy": update_rotation_policy,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListResourceTags": list_resource_tags,
}


def timestamp(seconds: float) -> str:
    """A time as the API writes it: ``2026-11-24T05:32:41Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _metadata(key: Key) -> Body:
    body: Body = {
        "Arn": key.arn,
        "AutomaticRotation": _rotation_word(key),
        "CreationDate": timestamp(key.created),
        "Creator": key.creator,
        "Description": key.description,
        "KeyId": key.key_id,
        "KeySpec": "Aliyun_AES_256",
        "KeyState": key.state.value,
        "KeyUsage": "ENCRYPT/DECRYPT",
        "Origin": key.origin,
        "PrimaryKeyVersion": key.primary.version_id,
        "ProtectionLevel": key.protection_level,
        "LastRotationDate": timestamp(key.last_rotation or key.created),
        "DeleteDate": "" if key.delete_at is None else timestamp(key.delete_at),
    }
    if key.rotation_interval is not None:
        body["RotationInterval"] = f"{key.rotation_interval}s"
    if key.next_rotation is not None:
        body["NextRotationDate"] = timestamp(key.next_rotation)
    return body


def _rotation_word(key: Key) -> str:
    if key.rotation_interval is None:
        return "Disabled"
    return "Enabled" if key.state is KeyState.ENABLED else "Suspended"


def _version(key: Key, version: KeyVersion) -> Body:
    return {"KeyId": key.key_id, "KeyVersionId": version.version_id, "CreationDate": timestamp(version.created)}


def _aliases(call: Call, aliases: Sequence[Alias]) -> Body:
    bodies: list[Body] = [
        {"AliasName": alias.name, "AliasArn": alias.arn, "KeyId": alias.key_id}
        for alias in sorted(aliases, key=lambda alias: alias.name)
    ]
    return _page(call, "Aliases", "Alias", bodies)


def _page(call: Call, outer: str, inner: str, items: Sequence[Body]) -> Body:
    """One page of a list, in the wrapping that the API puts around lists."""
    number = call.parameters.integer("PageNumber", 1, 10**9) or 1
    size = call.parameters.integer("PageSize", 1, 100) or 10
    page = list(items[(number - 1) * size : number * size])
    return {outer: {inner: page}, "PageNumber": number, "PageSize": size, "TotalCount": len(items)}


def _passes(key: Key, filters: object) -> bool:
    """Whether a key passes the Filters parameter: a JSON list of ``{"Key": name, "Values": [...]}``."""
    if filters is None:
        return True
    if not isinstance(filters, list):
        raise invalid_parameter("Filters", "not a JSON list")
    for item in filters:
        if not isinstance(item, dict) or not isinstance(item.get("Values"), list):
            raise invalid_parameter("Filters", "not a list of Key and Values")
        if item.get("Key") not in {"KeyState", "KeySpec", "KeyUsage", "ProtectionLevel"}:
            raise invalid_parameter("Filters", "an unknown Key")
        if _metadata(key)[item["Key"]] not in item["Values"]:
            return False
    return True


def _interval(call: Call) -> int:
    """The RotationInterval in seconds: 7 to 730 days."""
    match = _INTERVAL.fullmatch(call.parameters.text("RotationInterval"))
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 7 * _DAY <= seconds <= 730 * _DAY:
        raise invalid_parameter("RotationInterval", "not 7 to 730 days, as 30d or 2592000s")
    return seconds


def _tags(call: Call) -> dict[str, str]:
    """The Tags parameter: a JSON list of ``{"TagKey": name, "TagValue": value}``."""
    call.parameters.text("Tags")
    value = call.parameters.json_value("Tags")
    if not isinstance(value, list) or not 1 <= len(value) <= _TAG_LIMIT:
        raise invalid_parameter("Tags", f"not a JSON list of 1 to {_TAG_LIMIT} tags")
    tags: dict[str, str] = {}
    for item in value:
        name, text = (item.get("TagKey"), item.get("TagValue", "")) if isinstance(item, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(text, str) or not 1 <= len(name) <= 128 or len(text) > 128:
            raise invalid_parameter("Tags", "not TagKey and TagValue of at most 128 characters")
        if name.startswith(("aliyun", "acs:")):
            raise invalid_parameter("Tags", "names that begin with aliyun or acs: are reserved")
        tags[name] = text
    return tags


def _no_rotation_of_external() -> Refusal:
    return Refusal(400, "Unsupported.Origin", "Keys with imported material are not rotated automatically.")
