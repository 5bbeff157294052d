"""What is answered for which error, and above all what makes a running pod's files go."""

import re
from pathlib import Path

import pytest

from kmseal.cluster import reasons
from kmseal.cluster.keys import Unresolved
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
    Throttled,
    Unauthentic,
    Unavailable,
    WrongBinding,
)
from kmseal_webhook.refusals import Reason, Refusal, gravest, refusal_of_api, refusal_of_opening

DOCUMENT = Path(__file__).parents[3] / "docs" / "audit.md"


@pytest.mark.parametrize(
    ("error", "status", "reason", "retry", "wipe"),
    [
        (KeyUnusable("x", reason="KeyDisabled"), 403, "KeyUnusable", False, True),
        (KeyUnusable("x", reason="KeyPendingDeletion"), 403, "KeyUnusable", False, True),
        (KeyUnusable("x", reason="KeyPendingImport"), 403, "KeyUnusable", False, True),
        (KeyUnusable("x", reason="KeyNotFound"), 403, "KeyUnusable", False, False),
        (KeyUnusable("x", reason="KeyVersionNotFound"), 403, "KeyUnusable", False, False),
        (KeyUnusable("x"), 403, "KeyUnusable", False, False),
        (AccessDenied("x", reason="NamespaceNotAllowed"), 403, "NamespaceNotAllowed", False, True),
        (Unresolved("x", reason="NamespaceNotAllowed"), 503, "NamespaceNotAllowed", True, False),
        (AccessDenied("x", reason="KeyNotRegistered"), 403, "KeyNotRegistered", False, True),
        (AccessDenied("x"), 503, "KmsDenied", True, False),
        (BadCredentials("x"), 503, "BadCredentials", True, False),
        (Misconfigured("x"), 503, "Misconfigured", True, False),
        (Unavailable("x"), 503, "KmsUnavailable", True, False),
        (Throttled("x"), 503, "KmsThrottled", True, False),
        (Malformed("x"), 409, "Invalid", False, False),
        (WrongBinding("x"), 409, "WrongPlace", False, False),
        (Unauthentic("x"), 409, "Unauthentic", False, False),
        (TemplateFailed("x"), 409, "TemplateFailed", False, False),
        (Refused("x"), 409, "KmsRefused", False, False),
    ],
    ids=lambda value: f"{type(value).__name__} {value.reason}" if isinstance(value, KmsealError) else None,
)
def test_what_an_error_of_opening_answers(
    error: KmsealError, status: int, reason: str, retry: bool, wipe: bool
) -> None:
    """Only what somebody did on purpose wipes; a fault is to be tried again; a mistake is neither."""
    refusal = refusal_of_opening(error)
    assert (refusal.status, refusal.reason, refusal.retry, refusal.wipe) == (status, reason, retry, wipe)
    assert (refusal.retry_after is not None) == retry


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unavailable("x"), "ApiUnavailable"),
        (Throttled("x", retry_after=7.0), "ApiUnavailable"),
        (Conflict("x"), "ApiUnavailable"),
        (Refused("x"), "ApiUnavailable"),
        (AccessDenied("x"), "ApiForbidden"),
        (BadCredentials("x"), "ApiForbidden"),
    ],
)
def test_an_error_of_the_api_server_never_wipes(error: KmsealError, reason: str) -> None:
    """It is about the broker's own rights and ways, whatever it looks like."""
    refusal = refusal_of_api(error)
    assert (refusal.status, refusal.reason, refusal.retry, refusal.wipe) == (503, reason, True, False)
    assert refusal.retry_after == (7.0 if isinstance(error, Throttled) else 5.0)


def test_a_server_says_when_to_come_again() -> None:
    """KMS's hint is passed on."""
    assert refusal_of_opening(Throttled("x", retry_after=2.5)).retry_after == 2.5


def test_the_gravest_comes_first() -> None:
    """What takes values away, then what stays wrong, then what passes."""
    by_gravity = sorted(Reason, key=lambda reason: Refusal(reason, "").gravity)
    order = [(Refusal(reason, "").wipe, Refusal(reason, "").retry) for reason in by_gravity]
    assert order == sorted(order, key=lambda pair: (pair[0], not pair[1]))


def test_the_first_of_the_gravest_is_answered() -> None:
    """In the order of the request, so that the same request gets the same answer."""
    refusals = [Refusal(reason, "") for reason in (Reason.KMS_UNAVAILABLE, Reason.INVALID, Reason.WRONG_PLACE)]
    assert gravest(refusals) is refusals[1]
    refusals.append(Refusal(Reason.KEY_UNUSABLE, ""))
    assert gravest(refusals) is refusals[3]


def test_a_refusal_never_both_wipes_and_asks_to_retry() -> None:
    """An agent could not know what to do."""
    assert not [reason for reason in Reason if Refusal(reason, "").wipe and Refusal(reason, "").retry]


def test_the_words_of_opening_are_the_operators() -> None:
    """One word means one thing in conditions, metrics, answers and audit."""
    of_objects = {"TargetConflict", "TargetMissing", "TargetRefused", "Applied", "Injectable", "Suspended"}
    assert {reason.value for reason in reasons.Reason} - {reason.value for reason in Reason} == of_objects


def test_the_document_lists_every_word_with_what_it_does() -> None:
    """Status, retry and wipe stand in docs/audit.md as they are answered."""
    rows = re.findall(r"^\| `(\w+)` \| (\d+|-) \| (yes|no) \| (yes|no)", DOCUMENT.read_text(), re.MULTILINE)
    listed = {word: (status, retry == "yes", wipe == "yes") for word, status, retry, wipe in rows if word != "Granted"}
    refusals = {reason.value: Refusal(reason, "") for reason in Reason}
    expected = {
        word: ("-" if word == "Aborted" else str(refusal.status), refusal.retry, refusal.wipe)
        for word, refusal in refusals.items()
    }
    assert listed == expected
