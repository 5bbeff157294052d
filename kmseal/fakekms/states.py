"""The states of a key and what each action does in them: the documented table, and nothing else.

Pure. ``calls`` asks :func:`check_state` before an action gets its key. An action that is not in the table works in
every state (DescribeKey, the lists, DeleteAlias, GetParametersForImport, DeleteKeyMaterial). Every rejection is HTTP
409.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from kmseal.fakekms.refusals import Refusal


class KeyState(StrEnum):
    """The state of a key, in the service's words."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    PENDING_IMPORT = "PendingImport"


_DISABLED: Final = "Rejected.Disabled"
_DELETION: Final = "Rejected.PendingDeletion"
_IMPORT: Final = "Rejected.PendingImport"
_MODIFIED: Final = "Rejected.StateModifiedFailed"

_ENABLED_ONLY: Final = {
    KeyState.DISABLED: _DISABLED,
    KeyState.PENDING_DELETION: _DELETION,
    KeyState.PENDING_IMPORT: _IMPORT,
}
_NOT_BEING_DELETED: Final = {KeyState.PENDING_DELETION: _DELETION}
_SWITCHABLE: Final = {KeyState.PENDING_DELETION: _MODIFIED, KeyState.PENDING_IMPORT: _MODIFIED}

REJECTIONS: Final[Mapping[str, Mapping[KeyState, str]]] = {
    "GenerateDataKey": _ENABLED_ONLY,
    "GenerateDataKeyWithoutPlaintext": _ENABLED_ONLY,
    "Encrypt": _ENABLED_ONLY,
    "Decrypt": _ENABLED_ONLY,
    "ReEncrypt": _ENABLED_ONLY,
    "GetPublicKey": _ENABLED_ONLY,
    "AsymmetricEncrypt": _ENABLED_ONLY,
    "AsymmetricDecrypt": _ENABLED_ONLY,
    "UpdateRotationPolicy": _ENABLED_ONLY,
    "CreateKeyVersion": _ENABLED_ONLY,
    "EnableKey": _SWITCHABLE,
    "DisableKey": _SWITCHABLE,
    "ScheduleKeyDeletion": {KeyState.PENDING_DELETION: _MODIFIED},
    "CancelKeyDeletion": {
        KeyState.ENABLED: _MODIFIED,
        KeyState.DISABLED: _MODIFIED,
        KeyState.PENDING_IMPORT: _MODIFIED,
    },
    "ImportKeyMaterial": {KeyState.PENDING_DELETION: _MODIFIED},
    "CreateAlias": {KeyState.PENDING_DELETION: _MODIFIED},
    "UpdateAlias": _NOT_BEING_DELETED,
    "UpdateKeyDescription": _NOT_BEING_DELETED,
    "TagResource": _NOT_BEING_DELETED,
    "UntagResource": _NOT_BEING_DELETED,
}
"""Action → state of its key → error code. A pair that is missing is allowed."""


def check_state(action: str, state: KeyState) -> None:
    """Raises the documented 409 when the action is not possible in this state."""
    rejections = REJECTIONS.get(action)
    if rejections is None:
        return
    code = rejections.get(state)
    if code is not None:
        raise Refusal(409, code, f"The request was rejected because the key state is {state.value}.")
