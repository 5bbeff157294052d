"""The reasons: each is documented, and each error has one."""

import re
from pathlib import Path

import pytest

from kmseal import errors
from kmseal.cluster.reasons import HEALS_WITH_KMS, WAITS_FOR_SPEC, Reason, reason_of_opening, reason_of_writing
from kmseal.errors import KmsealError

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def test_the_documents_list_exactly_these_reasons() -> None:
    """Every reason has one row in the table of docs/operations.md, and every row is a reason."""
    section = OPERATIONS.read_text().partition("\n## Reasons\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(reason.value for reason in Reason)


def test_the_documents_say_which_reasons_wait_for_a_change() -> None:
    """A row says "after a change" exactly where the operator does not try again by itself."""
    section = OPERATIONS.read_text().partition("\n## Reasons\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\| after a change \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(reason.value for reason in WAITS_FOR_SPEC)


OPENING = {
    errors.Malformed: Reason.INVALID,
    errors.WrongBinding: Reason.WRONG_PLACE,
    errors.Unauthentic: Reason.UNAUTHENTIC,
    errors.TemplateFailed: Reason.TEMPLATE_FAILED,
    errors.Refused: Reason.KMS_REFUSED,
    errors.Terminal: Reason.INVALID,
    errors.Throttled: Reason.KMS_THROTTLED,
    errors.Unavailable: Reason.KMS_UNAVAILABLE,
    errors.Conflict: Reason.KMS_UNAVAILABLE,
    errors.Retryable: Reason.KMS_UNAVAILABLE,
    errors.AccessDenied: Reason.KMS_DENIED,
    errors.BadCredentials: Reason.BAD_CREDENTIALS,
    errors.KeyUnusable: Reason.KEY_UNUSABLE,
    errors.Denied: Reason.KMS_UNAVAILABLE,
    errors.Misconfigured: Reason.MISCONFIGURED,
    errors.KmsealError: Reason.KMS_UNAVAILABLE,
}


def classes(root: type[KmsealError]) -> set[type[KmsealError]]:
    found = {root}.union(*map(classes, root.__subclasses__()))
    return {kind for kind in found if kind.__module__ == errors.__name__}


def test_the_table_below_knows_every_error() -> None:
    """A new error class must be given a reason on purpose."""
    assert classes(KmsealError) == set(OPENING)


@pytest.mark.parametrize(("kind", "reason"), OPENING.items(), ids=lambda item: getattr(item, "__name__", str(item)))
def test_an_error_of_opening_has_its_reason(kind: type[KmsealError], reason: Reason) -> None:
    """The class alone decides."""
    assert reason_of_opening(kind("wrong")) is reason


@pytest.mark.parametrize("kind", OPENING, ids=lambda kind: kind.__name__)
def test_an_error_of_writing_is_about_the_target_or_the_api(kind: type[KmsealError]) -> None:
    """Nothing that the API server says is blamed on KMS."""
    expected = {
        errors.Conflict: Reason.TARGET_CONFLICT,
        errors.Refused: Reason.TARGET_REFUSED,
        errors.AccessDenied: Reason.API_FORBIDDEN,
        errors.BadCredentials: Reason.API_FORBIDDEN,
    }
    assert reason_of_writing(kind("wrong")) is expected.get(kind, Reason.API_UNAVAILABLE)


def test_what_heals_with_kms_is_retried() -> None:
    """No reason both waits for a change and heals by itself."""
    assert not HEALS_WITH_KMS & WAITS_FOR_SPEC
