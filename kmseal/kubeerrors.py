"""The API server's refusals as our errors: the border at which they are translated, once.

Used by ``kmseal.kube``. Codes, reasons and names of fields are taken from an answer, never messages: those quote what
was sent.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from kmseal.errors import (
    AccessDenied,
    BadCredentials,
    Conflict,
    KmsealError,
    Refused,
    Retryable,
    Throttled,
    Unavailable,
)

_FIELD: Final = re.compile(r"[A-Za-z0-9_.\[\]/-]{1,200}", re.ASCII)
Json = dict[str, Any]


class Expired(Retryable):
    """The server no longer has the history that a watch asked for: list again."""

    default_reason = "Expired"


def read_refusal(status: int, content: Json, headers: Mapping[str, str]) -> KmsealError:
    """The error for an answer that is not a success."""
    details = content.get("details") or {}
    causes = [cause for cause in details.get("causes") or [] if isinstance(cause, dict)]
    fields = [str(cause.get("field", "")) for cause in causes]
    fields = [field for field in fields if _FIELD.fullmatch(field)]
    if status == 410:
        return Expired("the watch's history has expired")
    if status == 401:
        return BadCredentials(
            "the API server does not accept our credentials",
            reason="ApiUnauthorized",
            remedy="check the ServiceAccount or the kubeconfig",
        )
    if status == 403:
        return AccessDenied(
            f"the API server forbids this on {details.get('kind') or 'this resource'}",
            reason="ApiForbidden",
            remedy="check the caller's RBAC, and whether the namespace is being deleted or a quota is used up",
        )
    if status == 404:
        return Conflict(
            "the object, its namespace or its kind is not there",
            reason="NotFound",
            remedy="install the CRDs, if this persists",
        )
    if status == 409:
        managers = any(cause.get("reason") == "FieldManagerConflict" for cause in causes)
        return Conflict(
            "somebody else has changed the object",
            field=", ".join(fields),
            reason="FieldConflict" if managers else "Conflict",
        )
    if status == 429 or (status == 500 and details.get("retryAfterSeconds")):
        seconds = str(headers.get("Retry-After") or details.get("retryAfterSeconds") or "")
        return Throttled(
            "the API server asks for fewer calls", retry_after=float(seconds) if seconds.isdigit() else None
        )
    if status >= 500:
        return Unavailable(f"the API server failed (HTTP {status})", reason="ApiUnavailable")
    return Refused(
        f"the API server refuses the object (HTTP {status})",
        field=", ".join(fields),
        reason="ApiRefused",
        remedy="correct the field; kubectl apply --dry-run=server of a like Secret shows the rule",
    )
