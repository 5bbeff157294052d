"""One tree of errors, grouped by what the caller must do.

::

    KmsealError
    ├── Retryable           wait and try again; nothing has to change
    │   ├── Unavailable     the network, a 5xx, a timeout, an answer that cannot be read
    │   ├── Throttled       the quota is used up; says how long to wait, when the server said so
    │   └── Conflict        somebody else wrote first; read again and decide anew
    ├── Denied              somebody must grant something, then it heals by itself
    │   ├── AccessDenied    no right on the key or the resource
    │   ├── BadCredentials  the credentials themselves are refused (unknown, expired, wrong signature)
    │   └── KeyUnusable     the key is disabled, pending deletion or import, or not found in this region
    ├── Misconfigured       somebody must change this process's configuration or environment
    └── Terminal            the input is wrong and stays wrong until it is changed
        ├── Malformed       it does not have the form that docs/format.md or the schema demands
        ├── WrongBinding    it was sealed for another place than this one
        ├── Unauthentic     it does not open: altered, or under another data key
        ├── Refused         the server understood and refuses for good
        └── TemplateFailed  a template of the target cannot be rendered

Every error carries a reason (one documented word), the field it is about, and a remedy. None of them ever carries a
value, a data key, a token or the text of a foreign exception: what is shown of an error may be shown to anybody.
"""

from typing import ClassVar


class KmsealError(Exception):
    """The root of all errors that kmseal raises on purpose.

    :param message: what is wrong, one sentence without a full stop
    :param field: path of the field it is about, as ``spec.dataKeys[0].id``; empty when it is about no field
    :param reason: one word in CamelCase that is stable across releases; the class's default when not given
    :param remedy: what to do about it, one sentence; empty when there is nothing to add
    :param request_id: the server's id of the failed request, for support cases; shown in logs only
    """

    default_reason: ClassVar[str] = "Failed"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, field: str = "", reason: str = "", remedy: str = "", request_id: str = ""
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.reason = reason or self.default_reason
        self.remedy = remedy
        self.request_id = request_id

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{where}{self.message}{remedy}"


class Retryable(KmsealError):
    """Wait and try again."""

    default_reason = "Retrying"
    exit_code = 5


class Unavailable(Retryable):
    """The server cannot be reached or cannot answer now."""

    default_reason = "Unavailable"


class Throttled(Retryable):
    """The server or our own budget asks for fewer calls.

    ``retry_after`` is in seconds, None where the server did not say.
    """

    default_reason = "Throttled"

    def __init__(self, message: str, *, retry_after: float | None = None, request_id: str = "") -> None:
        super().__init__(message, request_id=request_id)
        self.retry_after = retry_after


class Conflict(Retryable):
    """Somebody else wrote first."""

    default_reason = "Conflict"


class Denied(KmsealError):
    """Somebody must grant a right or bring a key back."""

    default_reason = "Denied"
    exit_code = 4


class AccessDenied(Denied):
    """The caller is known and may not do this."""

    default_reason = "AccessDenied"


class BadCredentials(Denied):
    """The caller's credentials are refused."""

    default_reason = "BadCredentials"


class KeyUnusable(Denied):
    """The KMS key cannot be used in its present state, or is not there."""

    default_reason = "KeyUnusable"


class Misconfigured(KmsealError):
    """This process's configuration or environment is wrong."""

    default_reason = "Misconfigured"
    exit_code = 6


class Terminal(KmsealError):
    """The input is wrong and stays wrong until it is changed."""

    default_reason = "Invalid"
    exit_code = 3


class Malformed(Terminal):
    """The input does not have the demanded form."""

    default_reason = "Malformed"


class WrongBinding(Terminal):
    """The ciphertext was sealed for another place."""

    default_reason = "WrongBinding"


class Unauthentic(Terminal):
    """The ciphertext does not open."""

    default_reason = "Unauthentic"


class Refused(Terminal):
    """The server refuses this input for good."""

    default_reason = "Refused"


class TemplateFailed(Terminal):
    """A template of the target cannot be rendered."""

    default_reason = "TemplateFailed"
