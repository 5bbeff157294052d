"""JSON Patch: what is made here, an independent implementation applies."""

import copy
import json
from typing import Any

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal_webhook.patch import escape, make_patch

Json = dict[str, Any]


def applied(before: Json, patch: list[Json]) -> str:
    """The patched document as canonical JSON, which tells true from 1."""
    return json.dumps(jsonpatch.apply_patch(copy.deepcopy(before), patch), sort_keys=True)


_LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0]) | st.text("a/~0é", max_size=3)
_NAMED = st.fixed_dictionaries({"name": st.sampled_from("abc"), "value": _LEAVES})
_DOCUMENTS = st.recursive(
    _LEAVES | _NAMED,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("ab/~0", max_size=2), inner, max_size=4),
    max_leaves=20,
)
_OBJECTS = st.dictionaries(st.text("ab/~0", max_size=2), _DOCUMENTS, max_size=4)


@given(_OBJECTS, _OBJECTS)
def test_round_trip(before: Json, after: Json) -> None:
    """The patch turns any document into any other."""
    assert applied(before, make_patch(before, after)) == json.dumps(after, sort_keys=True)


@given(st.lists(_NAMED, max_size=6), st.lists(_NAMED, max_size=6))
def test_round_trip_of_lists(before: list[Json], after: list[Json]) -> None:
    """So it does with lists of named items, however they moved, and where names repeat."""
    assert applied({"x": before}, make_patch({"x": before}, {"x": after})) == json.dumps({"x": after}, sort_keys=True)


@given(_OBJECTS)
def test_nothing_to_do(document: Json) -> None:
    """Equal documents need no operation."""
    assert make_patch(document, copy.deepcopy(document)) == []


@pytest.mark.parametrize(("one", "other"), [(True, 1), (1, 1.0), (0, False), (None, 0), ({}, []), ("", None)])
def test_what_python_thinks_equal(one: object, other: object) -> None:
    """JSON values of different types differ."""
    assert make_patch({"x": one}, {"x": other}) == [{"op": "replace", "path": "/x", "value": other}]
    assert make_patch({"x": [one]}, {"x": [other]}) != []


def test_escapes() -> None:
    """Slash and tilde in a name are escaped, the tilde first."""
    assert escape("kmseal.dev/~1") == "kmseal.dev~1~01"
    assert make_patch({"a": {}}, {"a": {"kmseal.dev/injected": "x"}}) == [
        {"op": "add", "path": "/a/kmseal.dev~1injected", "value": "x"}
    ]


def test_an_item_in_front_is_one_operation() -> None:
    """What follows a new item is not touched."""
    old = [{"name": "app", "image": "a"}, {"name": "side", "image": "b"}]
    assert make_patch({"c": old}, {"c": [{"name": "init"}, *old]}) == [
        {"op": "add", "path": "/c/0", "value": {"name": "init"}}
    ]


def test_mounts_of_one_volume_are_told_apart() -> None:
    """The path of a mount identifies it, not the name of its volume."""
    one, two = {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}
    assert make_patch({"m": [two]}, {"m": [one, two]}) == [{"op": "add", "path": "/m/0", "value": one}]


def test_changed_order_replaces_the_list() -> None:
    """Where items changed places, the list is replaced as a whole."""
    one, two = {"name": "a"}, {"name": "b"}
    assert make_patch({"c": [one, two]}, {"c": [two, one]}) == [{"op": "replace", "path": "/c", "value": [two, one]}]
