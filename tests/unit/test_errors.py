"""The tree of errors."""

import inspect
import re

import pytest

from kmseal import errors
from kmseal.errors import Denied, KmsealError, Malformed, Misconfigured, Retryable, Terminal, Throttled

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, KmsealError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_is_drawn_in_the_tree(cls: type[KmsealError]) -> None:
    """The picture in the module's docstring is complete."""
    assert re.search(rf"^\s*[│├└─ ]*{cls.__name__}\b", errors.__doc__ or "", re.MULTILINE)


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if cls is not KmsealError])
def test_every_error_says_what_the_caller_must_do(cls: type[KmsealError]) -> None:
    """Each belongs to exactly one of the four answers, which gives it its exit code."""
    kinds = [kind for kind in (Retryable, Denied, Misconfigured, Terminal) if issubclass(cls, kind)]
    assert len(kinds) == 1
    assert cls.exit_code == kinds[0].exit_code
    assert cls.__doc__


def test_the_exit_codes_differ() -> None:
    """A script can tell the four answers and an unexpected failure apart; 2 is left to wrong usage."""
    codes = [kind.exit_code for kind in (KmsealError, Retryable, Denied, Misconfigured, Terminal)]
    assert len(set(codes)) == len(codes)
    assert not {0, 2} & set(codes)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Malformed("is wrong"), "is wrong"),
        (Malformed("is wrong", field="spec.a"), "spec.a: is wrong"),
        (Malformed("is wrong", remedy="mend it"), "is wrong; mend it"),
        (Malformed("is wrong", field="spec.a", remedy="mend it", request_id="r-1"), "spec.a: is wrong; mend it"),
    ],
)
def test_the_text_is_field_message_remedy(error: KmsealError, text: str) -> None:
    """One line in that order; the request id is for logs only."""
    assert str(error) == text


def test_the_reason_is_the_given_one_or_that_of_the_class() -> None:
    """A reason is always there."""
    assert Malformed("x").reason == "Malformed"
    assert Malformed("x", reason="Base64").reason == "Base64"


def test_throttled_says_how_long_to_wait() -> None:
    """Where the server said so, in seconds; otherwise nothing is made up."""
    assert Throttled("x", retry_after=1.5).retry_after == 1.5
    assert Throttled("x").retry_after is None
