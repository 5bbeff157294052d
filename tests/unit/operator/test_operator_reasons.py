"""Reasons are documented, and every error has one."""

from pathlib import Path

import pytest

from kmseal import errors
from kmseal_operator.reasons import Reason, reason_of_opening, reason_of_writing

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


@pytest.mark.parametrize("reason", list(Reason))
def test_each_reason_is_documented(reason: Reason) -> None:
    """docs/operations.md says of every reason what it means and what to do."""
    assert f"| `{reason}` |" in OPERATIONS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.Malformed("x"), Reason.INVALID),
        (errors.WrongBinding("x"), Reason.WRONG_PLACE),
        (errors.Unauthentic("x"), Reason.UNAUTHENTIC),
        (errors.TemplateFailed("x"), Reason.TEMPLATE_FAILED),
        (errors.Refused("x"), Reason.KMS_REFUSED),
        (errors.Unavailable("x"), Reason.KMS_UNAVAILABLE),
        (errors.Throttled("x"), Reason.KMS_THROTTLED),
        (errors.AccessDenied("x"), Reason.KMS_DENIED),
        (errors.BadCredentials("x"), Reason.BAD_CREDENTIALS),
        (errors.KeyUnusable("x"), Reason.KEY_UNUSABLE),
        (errors.Misconfigured("x"), Reason.MISCONFIGURED),
    ],
)
def test_errors_of_opening(error: errors.KmsealError, reason: Reason) -> None:
    """Each kind of error while opening has its own reason."""
    assert reason_of_opening(error) is reason


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (errors.Conflict("x"), Reason.TARGET_CONFLICT),
        (errors.Refused("x"), Reason.TARGET_REFUSED),
        (errors.AccessDenied("x"), Reason.API_FORBIDDEN),
        (errors.Unavailable("x"), Reason.API_UNAVAILABLE),
        (errors.Throttled("x"), Reason.API_UNAVAILABLE),
    ],
)
def test_errors_of_writing(error: errors.KmsealError, reason: Reason) -> None:
    """Each kind of error of the API server has its own reason."""
    assert reason_of_writing(error) is reason
