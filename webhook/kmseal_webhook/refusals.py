"""All that the broker can answer instead of values: one word each, with its HTTP status and what the agent does then.

Raised by the steps of a grant, turned into an answer and an audit line by ``broker``. ``docs/audit.md`` lists the
words; they never change their meaning. ``wipe`` takes values away from a running pod, so that only what somebody did on
purpose may say it: a right or an object that was removed, a key that was shut. A fault never does, nor does anything
that merely looks like a loss of right from here.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from kmseal.cluster import reasons
from kmseal.cluster.keys import Unresolved
from kmseal.cluster.reasons import reason_of_opening
from kmseal.errors import AccessDenied, BadCredentials, KeyUnusable, KmsealError, Throttled
from kmseal.kms.provider import UNUSABLE_STATES


class Reason(StrEnum):
    """Why there are no values."""

    MALFORMED = "Malformed"
    """The request does not have the form of docs/injection-protocol.md."""
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    """Only POST is answered."""
    TOO_SLOW = "TooSlow"
    """The body did not come in time."""
    TOO_LARGE = "TooLarge"
    """The body is larger than 64 KiB."""
    UNSUPPORTED_MEDIA_TYPE = "UnsupportedMediaType"
    """The body is not plain application/json."""
    THROTTLED = "Throttled"
    """The remote address, token, pod or namespace asks too often, or the pod too many times at once."""
    BAD_TOKEN = "BadToken"  # noqa: S105  # A word of the interface.
    """The token is unknown, expired, for another audience, or not bound to a pod that exists."""
    POD_GONE = "PodGone"
    """The pod was deleted, has ended, or is another one of the same name."""
    POD_ENDING = "PodEnding"
    """The pod is being deleted: it starts nothing more, and keeps what it has until its containers have ended."""
    NOT_LISTED = "NotListed"
    """The pod's annotation does not list the object."""
    FORBIDDEN = "Forbidden"
    """The pod's ServiceAccount may not ``decrypt`` the object, whether it is there or not."""
    NOT_FOUND = "NotFound"
    """The pod may have the object, and there is none."""
    NAMESPACE_NOT_ALLOWED = "NamespaceNotAllowed"
    """The key's KMSKey does not allow the namespace, or it is not known yet whether it does."""
    KEY_NOT_REGISTERED = "KeyNotRegistered"
    """Only registered keys are served, and no KMSKey names this one."""
    KEY_UNUSABLE = "KeyUnusable"
    """The key is disabled, pending deletion or import, or not found."""
    INVALID = "Invalid"
    """The object, or the pod's annotation, does not have its form."""
    WRONG_PLACE = "WrongPlace"
    """The object was sealed for another place."""
    UNAUTHENTIC = "Unauthentic"
    """A value does not open: altered, or under another data key."""
    TEMPLATE_FAILED = "TemplateFailed"
    """A template of the object or of the pod cannot be rendered."""
    GRANT_TOO_LARGE = "GrantTooLarge"
    """All values together are more than one answer may hold."""
    KMS_REFUSED = "KmsRefused"
    """KMS refuses the wrapping."""
    KMS_UNAVAILABLE = "KmsUnavailable"
    """KMS cannot be reached or fails."""
    KMS_THROTTLED = "KmsThrottled"
    """The KMS quota, or our own budget under it, is used up."""
    KMS_DENIED = "KmsDenied"
    """The broker's own identity may not decrypt with this key."""
    BAD_CREDENTIALS = "BadCredentials"
    """KMS does not accept the broker's own credentials."""
    MISCONFIGURED = "Misconfigured"
    """The broker's own configuration, or a KMSKey's, does not allow it."""
    API_UNAVAILABLE = "ApiUnavailable"
    """The API server cannot be reached or fails."""
    API_FORBIDDEN = "ApiForbidden"
    """The API server does not let the broker ask."""
    UNEXPECTED = "Unexpected"
    """A mistake in kmseal; the log has its kind and place."""
    ABORTED = "Aborted"
    """In the audit only: the process ended or the client left before there was an answer."""


class _Rule(NamedTuple):
    status: int
    retry: bool = False
    wipe: bool = False


_MISTAKE: Final = _Rule(409)
_LOSS: Final = _Rule(403, wipe=True)
_FAULT: Final = _Rule(503, retry=True)
_RULES: Final[Mapping[Reason, _Rule]] = {
    Reason.MALFORMED: _Rule(400),
    Reason.METHOD_NOT_ALLOWED: _Rule(405),
    Reason.TOO_SLOW: _Rule(408, retry=True),
    Reason.TOO_LARGE: _Rule(413),
    Reason.UNSUPPORTED_MEDIA_TYPE: _Rule(415),
    Reason.THROTTLED: _Rule(429, retry=True),
    Reason.BAD_TOKEN: _Rule(401, wipe=True),
    Reason.POD_GONE: _LOSS,
    Reason.POD_ENDING: _Rule(403),
    Reason.NOT_LISTED: _LOSS,
    Reason.FORBIDDEN: _LOSS,
    Reason.NOT_FOUND: _Rule(404, wipe=True),
    Reason.NAMESPACE_NOT_ALLOWED: _LOSS,
    Reason.KEY_NOT_REGISTERED: _LOSS,
    Reason.KEY_UNUSABLE: _LOSS,
    Reason.INVALID: _MISTAKE,
    Reason.WRONG_PLACE: _MISTAKE,
    Reason.UNAUTHENTIC: _MISTAKE,
    Reason.TEMPLATE_FAILED: _MISTAKE,
    Reason.GRANT_TOO_LARGE: _MISTAKE,
    Reason.KMS_REFUSED: _MISTAKE,
    Reason.KMS_UNAVAILABLE: _FAULT,
    Reason.KMS_THROTTLED: _FAULT,
    Reason.KMS_DENIED: _FAULT,
    Reason.BAD_CREDENTIALS: _FAULT,
    Reason.MISCONFIGURED: _FAULT,
    Reason.API_UNAVAILABLE: _FAULT,
    Reason.API_FORBIDDEN: _FAULT,
    Reason.UNEXPECTED: _FAULT,
    Reason.ABORTED: _FAULT,
}
_FAULT_RETRY_SECONDS: Final = 5.0


class Refusal(Exception):
    """No values, and why: what goes into the answer.

    ``retry_after`` is in seconds, None where nothing is to be waited for. The message may be shown to anybody who holds
    the pod's token: it names fields, keys and objects that the pod has asked for, never a value.
    """

    def __init__(self, reason: Reason, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        rule = _RULES[reason]
        self.reason = reason
        self.message = message
        self.status, self.retry, self.wipe = rule
        self.retry_after = _FAULT_RETRY_SECONDS if rule is _FAULT and retry_after is None else retry_after

    @property
    def gravity(self) -> int:
        """Of several refusals the gravest is answered: a right that is gone must not hide behind a region that is
        down, or behind a mistake."""
        return 2 if self.wipe else 0 if self.retry else 1


def gravest(refusals: Sequence[Refusal]) -> Refusal:
    """Of one or more refusals the one to answer: the first of the gravest."""
    return max(refusals, key=lambda refusal: refusal.gravity)


def refusal_of_api(error: KmsealError) -> Refusal:
    """For an error of the API server while it was asked who may do what."""
    forbidden = isinstance(error, AccessDenied | BadCredentials)
    reason = Reason.API_FORBIDDEN if forbidden else Reason.API_UNAVAILABLE
    return Refusal(reason, error.message, retry_after=_hint(error))


def refusal_of_opening(error: KmsealError) -> Refusal:
    """For an error of parsing, unwrapping, opening or rendering an object."""
    refusal = Refusal(_word(error), str(error), retry_after=_hint(error))
    if isinstance(error, Unresolved):
        # The limit may be meant for another key: it holds, but whoever has values keeps them until it is known.
        refusal.status, refusal.retry, refusal.wipe = _FAULT
        refusal.retry_after = _FAULT_RETRY_SECONDS
    elif isinstance(error, KeyUnusable) and error.reason not in UNUSABLE_STATES:
        # Not found in this region, or refused without a word: perhaps a wrong endpoint. Nobody shut it for certain.
        refusal.wipe = False
    return refusal


def _word(error: KmsealError) -> Reason:
    found = reason_of_opening(error)
    # The words for what happens while an object is opened are the operator's.
    return Reason(found.value) if found.value in _OPENING else Reason.INVALID


_OPENING: Final = {reason.value for reason in Reason} & {reason.value for reason in reasons.Reason}


def _hint(error: KmsealError) -> float | None:
    return error.retry_after if isinstance(error, Throttled) else None
