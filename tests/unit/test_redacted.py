"""The wrapper that secrets travel in."""

import copy
import json
import logging
import pickle

import pytest

from kmseal.redacted import Redacted

SECRET = Redacted(b"canary-5d1f")


@pytest.mark.parametrize(
    "shown",
    [
        repr(SECRET),
        str(SECRET),
        f"{SECRET}",
        f"{SECRET!r:>20}",
        f"{SECRET:>40}",
        "{} {!r}".format(*[SECRET] * 2),
        repr([SECRET]),
    ],
)
def test_no_way_of_printing_shows_it(shown: str) -> None:
    """Every way in which text is made of an object gives a redacted form."""
    assert "canary" not in shown
    assert "Redacted(…)" in shown


def test_a_log_line_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    """An argument of a log call is formatted late, and redacted then too."""
    logging.getLogger("kmseal.test").error("opened %(x)s", {"x": SECRET})
    logging.getLogger("kmseal.test").error("opened %s", SECRET)
    assert "canary" not in caplog.text
    assert "Redacted" in caplog.text


def test_an_exception_that_holds_it_does_not_show_it() -> None:
    """Not even where it is passed as an exception's argument."""
    assert "canary" not in repr(ValueError(SECRET))


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_it_cannot_be_copied_out(leave: object) -> None:
    """Pickling and copying are refused, and the refusal does not show it."""
    assert callable(leave)
    with pytest.raises(TypeError) as caught:
        leave(SECRET)
    assert "canary" not in str(caught.value)


def test_it_cannot_be_written_as_json() -> None:
    """A JSON encoder refuses it; it does not fall back to its text."""
    with pytest.raises(TypeError, match="Redacted"):
        json.dumps({"value": SECRET})


def test_it_has_no_readable_attribute() -> None:
    """There is no dictionary of attributes for a debugger or a formatter to walk."""
    assert not hasattr(SECRET, "__dict__")
    with pytest.raises(TypeError):
        vars(SECRET)


def test_equality_is_by_content_and_of_its_own_kind_only() -> None:
    """Two with the same bytes are equal; bytes are not equal to it, so that a comparison cannot be made by accident."""
    assert Redacted(b"canary-5d1f") == SECRET
    assert Redacted(b"canary-5d1e") != SECRET
    assert SECRET != b"canary-5d1f"


def test_it_cannot_be_a_key_of_a_dictionary() -> None:
    """A hash would be an oracle."""
    with pytest.raises(TypeError, match="unhashable"):
        hash(SECRET)


def test_reveal_gives_the_bytes_and_the_length_is_known() -> None:
    """What went in comes out."""
    secret = Redacted(b"abc")
    assert (secret.reveal(), len(secret)) == (b"abc", 3)
