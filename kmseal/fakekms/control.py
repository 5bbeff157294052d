"""The management actions on keys and aliases.

Functions from a :class:`~kmseal.fakekms.calls.Call` to the answer's JSON, which ``service`` finds in
:data:`OPERATIONS`; versions, tags and imported material have modules of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from kmseal.fakekms import shapes
from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.keys import EXTERNAL, Key, KeySpec
from kmseal.fakekms.refusals import invalid_parameter, missing_parameter, unsupported_operation, unsupported_origin
from kmseal.fakekms.rotation import DAY, read_interval
from kmseal.fakekms.states import KeyState
from kmseal.fakekms.tags import read_tags

_DESCRIPTION_LIMIT: Final = 8192


def create_key(call: Call) -> Body:
    parameters = call.parameters
    spec = parameters.optional("KeySpec", KeySpec.AES_256)
    # Without a usage, the real service makes a key that only signs wherever the spec can sign.
    usage = parameters.optional("KeyUsage", "ENCRYPT/DECRYPT" if spec == KeySpec.AES_256 else "SIGN/VERIFY")
    if spec not in list(KeySpec) or usage != "ENCRYPT/DECRYPT":
        raise unsupported_operation(f"the fake has keys for ENCRYPT/DECRYPT only, of {', '.join(KeySpec)}")
    origin = parameters.optional("Origin", "Aliyun_KMS")
    if origin not in {"Aliyun_KMS", EXTERNAL}:
        raise invalid_parameter("Origin")
    protection_level = parameters.optional("ProtectionLevel", "SOFTWARE")
    if protection_level not in {"SOFTWARE", "HSM"}:
        raise invalid_parameter("ProtectionLevel")
    asymmetric = KeySpec(spec) is not KeySpec.AES_256
    if asymmetric and origin == EXTERNAL:
        raise unsupported_operation("asymmetric key material is not imported here")
    rotates = parameters.boolean("EnableAutomaticRotation")
    if rotates and asymmetric:
        raise unsupported_operation("asymmetric keys are not rotated automatically")
    if rotates and origin == EXTERNAL:
        raise unsupported_origin("imported material is not rotated automatically")
    key = call.store.create(
        call.region,
        call.identity.name,
        spec=KeySpec(spec),
        description=parameters.limited("Description", _DESCRIPTION_LIMIT),
        origin=origin,
        protection_level=protection_level,
        rotation_interval=read_interval(parameters.text("RotationInterval")) if rotates else None,
        tags=read_tags(call) if parameters.optional("Tags") else {},
    )
    call.key_arn = key.arn
    return {"KeyMetadata": shapes.metadata(key)}


def describe_key(call: Call) -> Body:
    key = call.key(alias_allowed=True)
    return {
        "KeyMetadata": {**shapes.metadata(key), "DeletionProtection": "Disabled", "DeletionProtectionDescription": ""}
    }


def list_keys(call: Call) -> Body:
    keys = [key for key in call.store.keys_of(call.region) if _passes(key, call.parameters.json_value("Filters"))]
    return shapes.page(call, "Keys", "Key", [{"KeyId": key.key_id, "KeyArn": key.arn} for key in keys])


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
    call.store.set_state(call.key(), KeyState.PENDING_DELETION, delete_at=call.store.now() + days * DAY)
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
    return shapes.aliases(call, call.store.aliases(call.region))


def list_aliases_by_key_id(call: Call) -> Body:
    return shapes.aliases(call, call.store.aliases(call.region, call.key().key_id))


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
}


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
        if shapes.metadata(key)[item["Key"]] not in item["Values"]:
            return False
    return True
