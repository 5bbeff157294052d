"""Strict reading of JSON-like structures."""

from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.errors import KmsealError, Malformed
from kmseal.structure import Fields, choice, member_path

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


def refused(read: Any) -> KmsealError:
    with pytest.raises(Malformed) as caught:
        read()
    return caught.value


@pytest.mark.parametrize(
    ("path", "name", "expected"),
    [
        ("", "spec", "spec"),
        ("spec", "scope", "spec.scope"),
        ("spec.data", "a-b_c", "spec.data.a-b_c"),
        ("spec.data", "tls.crt", 'spec.data["tls.crt"]'),
        ("spec.data", "", 'spec.data[""]'),
        ("spec.data", '"]', 'spec.data["\\"]"]'),
        ("spec.data", "a\nb\x1b[31m", 'spec.data["a\\nb\\x1b[31m"]'),
        ("spec.data", "a\u202eb", 'spec.data["a\\u202eb"]'),
        ("spec.data", "n" * 254, f'spec.data["{"n" * 253}…"]'),
    ],
)
def test_a_path_is_one_readable_line(path: str, name: str, expected: str) -> None:
    """Names that are no plain words are quoted, escaped and cut, so that no name can forge or break a log line."""
    assert member_path(path, name) == expected


@given(st.text())
def test_no_name_breaks_the_line(name: str) -> None:
    """Whatever the name, its path is printable and no longer than a valid one."""
    path = member_path("", name)
    assert path.isprintable()
    assert path.encode()
    assert len(path) < 3_000


def test_what_is_left_over_is_refused() -> None:
    """Leaving the block refuses the first member that nobody asked for, and says which are known."""

    def read() -> None:
        with Fields({"a": "x", "b": "y", "c": "z"}, "spec") as fields:
            fields.text("a")
            fields.ignore("b")

    error = refused(read)
    assert (error.field, error.reason) == ("spec.c", "UnknownField")
    assert "known here: a, b" in error.remedy


def test_an_error_inside_is_not_replaced() -> None:
    """An unknown member does not hide what was wrong before."""

    def read() -> None:
        with Fields({"a": 1, "z": 1}, "") as fields:
            fields.text("a")

    assert refused(read).field == "a"


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (lambda fields: fields.text("x"), 1),
        (lambda fields: fields.text("x"), ["a"]),
        (lambda fields: fields.text("x", "default"), False),
        (lambda fields: fields.flag("x"), "true"),
        (lambda fields: fields.flag("x"), 1),
        (lambda fields: fields.integer("x"), True),
        (lambda fields: fields.integer("x"), 1.0),
        (lambda fields: fields.items("x"), "ab"),
        (lambda fields: fields.items("x"), {"a": 1}),
        (lambda fields: fields.texts("x"), ["a"]),
        (lambda fields: fields.fields("x"), "a"),
    ],
)
def test_another_type_is_refused(read: Any, value: object) -> None:
    """Nothing is converted: a number is not a text, a text is no list, true is not 1."""
    error = refused(lambda: read(Fields({"x": value}, "spec")))
    assert (error.field, error.reason) == ("spec.x", "WrongType")


def test_a_text_inside_an_object_of_texts_has_its_own_path() -> None:
    """The member that is no text is named, not the object."""
    error = refused(lambda: Fields({"data": {"a": "x", "b.c": 1}}, "spec").texts("data"))
    assert (error.field, error.reason) == ('spec.data["b.c"]', "WrongType")


@pytest.mark.parametrize("raw", [{}, {"x": None}])
def test_a_missing_member_and_null_are_the_same(raw: dict[str, object]) -> None:
    """Required ones are refused, others have their default."""
    fields = Fields(raw, "spec")
    for read in (
        lambda: fields.text("x"),
        lambda: fields.fields("x"),
        lambda: fields.items("x", required=True),
        lambda: fields.texts("x", required=True),
    ):
        error = refused(read)
        assert (error.field, error.reason) == ("spec.x", "MissingField")
    assert (fields.text("x", "d"), fields.flag("x", True), fields.integer("x", 7)) == ("d", True, 7)
    assert (fields.items("x"), fields.texts("x")) == ([], {})
    assert fields.has("x") is False
    with fields.fields("x", optional=True):
        pass


def test_items_come_with_their_paths() -> None:
    """So that an error in one names it."""
    assert Fields({"keys": ["a", "b"]}, "spec").items("keys") == [("spec.keys[0]", "a"), ("spec.keys[1]", "b")]


def test_a_name_that_is_no_text_is_refused() -> None:
    """YAML can make a number of a name; it is refused where it stands."""
    error = refused(lambda: Fields({1: "x"}, "spec"))
    assert (error.field, error.reason) == ("spec", "WrongType")


@given(SCALARS | st.lists(SCALARS, max_size=2))
def test_only_an_object_has_fields(raw: object) -> None:
    """Anything else is refused with the path of where an object should be, and is not quoted."""
    error = refused(lambda: Fields(raw, "spec.target"))
    assert (error.field, error.reason) == ("spec.target", "WrongType")
    assert error.message.startswith("must be an object, not ")


def test_a_choice_names_the_words_and_not_what_was_written() -> None:
    """A value in the wrong place is not repeated."""
    assert choice("Red", Colour, "spec.colour", "Colour") is Colour.RED
    error = refused(lambda: choice("canary-77", Colour, "spec.colour", "Colour"))
    assert str(error) == "spec.colour: is not one of Red, Blue; correct the word; case matters"
    assert error.reason == "Colour"
