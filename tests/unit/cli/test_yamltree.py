"""Reading YAML with positions: as kubectl means it, and without ever quoting it in an error."""

import contextlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cli.yamltree import ObjectNode, parse
from kmseal.errors import Malformed


def json_values(texts: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    """What JSON can say, with these texts."""
    numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    return st.recursive(
        st.none() | st.booleans() | numbers | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )


# PyYAML writes these without quotes, and kubectl's parser takes them for booleans.
QUOTED_TEXTS = st.text(max_size=8).filter(lambda text: text not in ("y", "Y", "n", "N"))


def value(text: str) -> object:
    """What the first document means."""
    root = parse(text)[0].root
    assert root is not None
    return root.value()


@given(json_values(st.text(max_size=8)))
def test_json_is_read_as_json(raw: object) -> None:
    """Every JSON text means what the JSON parser says, with escapes beyond the basic plane."""
    text = json.dumps({"": raw})
    assert value(text) == json.loads(text)


@given(json_values(QUOTED_TEXTS))
def test_yaml_is_read_as_yaml_1_1(raw: object) -> None:
    """What a YAML 1.1 writer writes is read back."""
    text = yaml.safe_dump({"key": raw})
    assert value(text) == {"key": raw}


@pytest.mark.parametrize("plain", ["yes", "off", "1_000", "0777", "0o17", "12:30:45", "1e3", "~", ".inf", "0x1F"])
def test_what_is_no_text_for_kubectl_is_no_text_here(plain: str) -> None:
    """A value without quotes that the cluster would read as something else is not taken for a text."""
    assert not isinstance(value(f"a: {plain}")["a"], str)  # type: ignore[index]  # A mapping by construction.


def test_dates_are_texts() -> None:
    """kubectl turns YAML into JSON, which has no dates."""
    assert value("a: 2001-01-01") == {"a": "2001-01-01"}


def test_anchors_aliases_and_merges_mean_what_they_mean() -> None:
    """Own members win over merged ones, and earlier merged ones over later."""
    text = "q: &q {a: 1, b: 1}\nr: &r {b: 2, c: 2}\nz:\n  a: 3\n  <<: [*q, *r]\nw: *q\n"
    assert value(text) == {
        "q": {"a": 1, "b": 1},
        "r": {"b": 2, "c": 2},
        "z": {"a": 3, "b": 1, "c": 2},
        "w": {"a": 1, "b": 1},
    }


@pytest.mark.parametrize("merged", [False, True])
def test_aliases_of_aliases_are_bounded(merged: bool) -> None:
    """A few lines could mean billions of nodes."""
    lines = ["a0: &a0 {u: 1, v: 2}"]
    for level in range(1, 30):
        twice = f"*a{level - 1}, *a{level - 1}"
        lines.append(f"a{level}: &a{level} " + (f"{{<<: [{twice}]}}" if merged else f"[{twice}]"))
    with pytest.raises(Malformed, match="repeats too much by aliases"):
        parse("\n".join(lines))
    assert parse("\n".join(lines[:10]))


def test_the_text_of_a_stream_is_the_text_of_its_documents() -> None:
    """Nothing between documents belongs to nobody."""
    text = "# head\na: 1\n---\n# two\nb: 2\n...\n# tail\n---\n--- # empty\n"
    documents = parse(text)
    assert "".join(text[document.start : document.end] for document in documents) == text
    assert [document.root.value() if document.root else None for document in documents] == [
        {"a": 1},
        {"b": 2},
        None,
        None,
    ]


def test_positions_are_those_of_the_text() -> None:
    """Also behind a byte order mark, characters beyond the basic plane, and Windows line ends."""
    text = "\ufeff# 😀\r\na:  'x'\r\nb: {c: \"d\"}\r\n"
    root = parse(text)[0].root
    assert isinstance(root, ObjectNode)
    inner = root.get("b")
    assert isinstance(inner, ObjectNode)
    assert [text[node.start : node.end] for _, node in (*root.entries, *inner.entries)] == ["'x'", '{c: "d"}', '"d"']


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a: b: hunter2\n", "line 1, column 5"),
        ("a: hunter2\na: hunter2\n", "line 2, column 1"),
        ("a: *hunter2\n", "line 1, column 4"),
        ("a:\n  b: !hunter2 x\n", "line 2, column 6"),
        ("a: !!binary aHVudGVyMg==\n", "line 1, column 4"),
        ("a: @hunter2\n", "line 1, column 4"),
        ("\thunter2: b\n", "line 1, column 1"),
        ("a: 'hunter2\n", "line 2, column 1"),
        ("a: [hunter2\nb: c\n", "line 2, column 2"),
        ("hunter2: \x01\n", "line 1, column 10"),
        ('a: "\\hunter2"\n', "line 1, column 6"),
        ('{"a": "\\ud83d hunter2"}', "line 1, column 7"),
        ("1: hunter2\n", "line 1, column 1"),
        ("[hunter2]: x\n", "line 1, column 1"),
        ("<<: hunter2\n", "line 1, column 5"),
        ("%YAML 3.0\n--- hunter2\n", "line 1, column 1"),
        ("[" * 5000, "line 1, column 1"),
    ],
)
def test_an_error_names_line_and_column_and_nothing_of_the_text(text: str, where: str) -> None:
    """Any piece of a broken file may be a piece of a secret."""
    with pytest.raises(Malformed) as caught:
        parse(text)
    assert where in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.reason == "Syntax"
    assert caught.value.remedy


@given(st.text(alphabet="ab:-#'\"{}[],&*!|>%@?\n\t \\0", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    """The parser's own errors never come through."""
    with contextlib.suppress(Malformed):
        parse(text)
