"""The actions on versions of keys, and on the policy by which a key makes new ones by itself.

A version is made on demand for asymmetric keys only, seven days after the one before at the earliest; for symmetric
ones the shared gateway refuses it, unless the fake was told to behave like a software instance. Symmetric keys rotate
by themselves: ``keystore`` does it when the date has come on the clock of keys.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from kmseal.fakekms import shapes
from kmseal.fakekms.calls import Body, Call
from kmseal.fakekms.keys import EXTERNAL, Key
from kmseal.fakekms.keystore import KeyStore
from kmseal.fakekms.refusals import Refusal, invalid_parameter, unsupported_operation, unsupported_origin

DAY: Final = 86400
VERSION_LIMIT: Final = 50
"""Most versions of a key that are made on demand."""

_BETWEEN_VERSIONS: Final = 7 * DAY
_INTERVAL: Final = re.compile(r"([0-9]{1,9})([dhms])", re.ASCII)
_UNITS: Final = {"d": DAY, "h": 3600, "m": 60, "s": 1}


def list_key_versions(call: Call) -> Body:
    key = call.key()
    # Newest first, as one wants to see them.
    versions = [shapes.version(key, version) for version in reversed(key.versions)]
    return shapes.page(call, "KeyVersions", "KeyVersion", versions)


def describe_key_version(call: Call) -> Body:
    key = call.key()
    call.key_version_id = call.parameters.text("KeyVersionId")
    return {"KeyVersion": shapes.version(key, key.version(call.key_version_id))}


def create_key_version(call: Call) -> Body:
    key = call.key(alias_allowed=True)
    if key.origin == EXTERNAL:
        raise unsupported_origin("imported material has one version")
    if not key.asymmetric and not call.allow_symmetric_versions:
        raise _rejected("a version of a symmetric key cannot be created on demand here")
    if key.asymmetric and call.store.now() < key.primary.created + _BETWEEN_VERSIONS:
        raise _rejected("the latest version is not seven days old")
    if len(key.versions) >= VERSION_LIMIT:
        raise Refusal(400, "Rejected.LimitExceeded", f"A key has at most {VERSION_LIMIT} versions.")
    key = call.store.rotate(key)
    call.key_version_id = key.primary.version_id
    return {"KeyVersion": shapes.version(key, key.primary)}


def update_rotation_policy(call: Call) -> Body:
    rotates = call.parameters.boolean("EnableAutomaticRotation")
    interval = read_interval(call.parameters.text("RotationInterval")) if rotates else None
    set_rotation_policy(call.store, call.key(), interval)
    return {}


def set_rotation_policy(store: KeyStore, key: Key, interval: int | None) -> None:
    """Lets a key rotate every so many seconds, or not at all; a date that has passed already counts at once.

    Raises the documented refusal for a key that cannot rotate by itself.
    """
    if key.asymmetric:
        raise unsupported_operation("asymmetric keys are not rotated automatically")
    if key.origin == EXTERNAL:
        raise unsupported_origin("imported material is not rotated automatically")
    if key.protection_level == "HSM":
        raise Refusal(400, "Unsupported.ProtectionLevel", "Keys protected by an HSM are not rotated automatically.")
    store.rotate_if_overdue(store.put(replace(key, rotation_interval=interval)))


def read_interval(text: str) -> int:
    """The seconds of a RotationInterval as ``30d`` or ``2592000s``. Raises InvalidParameter beyond 7 to 730 days."""
    match = _INTERVAL.fullmatch(text)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 7 * DAY <= seconds <= 730 * DAY:
        raise invalid_parameter("RotationInterval", "not 7 to 730 days, as 30d or 2592000s")
    return seconds


OPERATIONS: Final[Mapping[str, Callable[[Call], Body]]] = {
    "ListKeyVersions": list_key_versions,
    "DescribeKeyVersion": describe_key_version,
    "CreateKeyVersion": create_key_version,
    "UpdateRotationPolicy": update_rotation_policy,
}


def _rejected(why: str) -> Refusal:
    return Refusal(400, "Rejected.UnsupportedOperation", f"This action is not supported: {why}.")
