"""Why an EncryptedSecret is or is not Ready: one word each, the same in conditions, metrics, logs and the documents.

``decide`` chooses them; ``docs/operations.md`` lists them with what to do. Words never change their meaning.
"""

from enum import StrEnum
from typing import Final

from kmseal.errors import (
    AccessDenied,
    BadCredentials,
    Conflict,
    KeyUnusable,
    KmsealError,
    Malformed,
    Misconfigured,
    Refused,
    TemplateFailed,
    Terminal,
    Throttled,
    Unauthentic,
    Unavailable,
    WrongBinding,
)


class Reason(StrEnum):
    """The reason of the Ready condition."""

    APPLIED = "Applied"
    """The target Secret holds the values of this generation."""
    INJECTABLE = "Injectable"
    """Delivery is Inject, and the values can be opened; there is no target."""
    SUSPENDED = "Suspended"
    """spec.suspend is true: the target is left as it is."""
    INVALID = "Invalid"
    """The object does not have the form of docs/format.md."""
    WRONG_PLACE = "WrongPlace"
    """Sealed for another namespace, name, scope or value name than where it stands."""
    UNAUTHENTIC = "Unauthentic"
    """A value does not open: altered, or under another data key."""
    TEMPLATE_FAILED = "TemplateFailed"
    """A template of the target cannot be rendered."""
    KMS_REFUSED = "KmsRefused"
    """KMS refuses the wrapping: altered, or sealed for another place."""
    KMS_UNAVAILABLE = "KmsUnavailable"
    """KMS cannot be reached or fails."""
    KMS_THROTTLED = "KmsThrottled"
    """The KMS quota, or our own budget under it, is used up."""
    KMS_DENIED = "KmsDenied"
    """The operator's identity may not decrypt with this key."""
    BAD_CREDENTIALS = "BadCredentials"
    """KMS does not accept the operator's credentials."""
    KEY_UNUSABLE = "KeyUnusable"
    """The key is disabled, pending deletion or import, or not in this region."""
    KEY_NOT_REGISTERED = "KeyNotRegistered"
    """The operator serves registered keys only, and no KMSKey names this one."""
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    """The key's KMSKey does not allow the object's namespace."""
    MISCONFIGURED = "Misconfigured"
    """The operator's own configuration, or a KMSKey's, does not allow it: no credentials, no key file."""
    TARGET_CONFLICT = "TargetConflict"
    """A Secret of the target's name belongs to somebody else."""
    TARGET_MISSING = "TargetMissing"
    """creationPolicy is Merge, and the Secret to merge into is not there."""
    TARGET_REFUSED = "TargetRefused"
    """The API server refuses the Secret, as for a type that demands other names."""
    API_UNAVAILABLE = "ApiUnavailable"
    """The API server could not be written to."""
    API_FORBIDDEN = "ApiForbidden"
    """The API server forbids the write: RBAC, a quota, or a namespace that is being deleted."""


WAITS_FOR_SPEC: Final = frozenset(
    {Reason.INVALID, Reason.WRONG_PLACE, Reason.UNAUTHENTIC, Reason.TEMPLATE_FAILED, Reason.SUSPENDED}
)
"""Nothing but a change of the object can help, so that it is not tried again before one."""

WAITS_FOR_KEY: Final = frozenset(
    {
        Reason.KEY_UNUSABLE,
        Reason.KEY_NOT_REGISTERED,
        Reason.NAMESPACE_NOT_ALLOWED,
        Reason.KMS_DENIED,
        Reason.BAD_CREDENTIALS,
        Reason.MISCONFIGURED,
    }
)
"""Tried again at once when the key's state or its KMSKey changes, which also says how and as whom it is reached."""

HEALS_WITH_KMS: Final = frozenset({Reason.KMS_UNAVAILABLE, Reason.KMS_THROTTLED})
"""Tried again at once when an endpoint of KMS is back."""


_FROM_KMS: Final[tuple[tuple[type[KmsealError], Reason], ...]] = (
    (Malformed, Reason.INVALID),
    (WrongBinding, Reason.WRONG_PLACE),
    (Unauthentic, Reason.UNAUTHENTIC),
    (TemplateFailed, Reason.TEMPLATE_FAILED),
    (Refused, Reason.KMS_REFUSED),
    (Throttled, Reason.KMS_THROTTLED),
    (Unavailable, Reason.KMS_UNAVAILABLE),
    (AccessDenied, Reason.KMS_DENIED),
    (BadCredentials, Reason.BAD_CREDENTIALS),
    (KeyUnusable, Reason.KEY_UNUSABLE),
    (Misconfigured, Reason.MISCONFIGURED),
    (Terminal, Reason.INVALID),
)
_FROM_API: Final[tuple[tuple[type[KmsealError], Reason], ...]] = (
    (Conflict, Reason.TARGET_CONFLICT),
    (Refused, Reason.TARGET_REFUSED),
    (AccessDenied, Reason.API_FORBIDDEN),
    (BadCredentials, Reason.API_FORBIDDEN),
)


def reason_of_opening(error: KmsealError) -> Reason:
    """The reason for an error of parsing, unwrapping, opening or rendering."""
    if error.reason in (Reason.KEY_NOT_REGISTERED, Reason.NAMESPACE_NOT_ALLOWED):
        return Reason(error.reason)
    return next((reason for kind, reason in _FROM_KMS if isinstance(error, kind)), Reason.KMS_UNAVAILABLE)


def reason_of_writing(error: KmsealError) -> Reason:
    """The reason for an error of the API server."""
    return next((reason for kind, reason in _FROM_API if isinstance(error, kind)), Reason.API_UNAVAILABLE)
