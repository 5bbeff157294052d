"""Which wrappings change, and where they go in the text."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cli.rewrapping import Request, Step, move, place_wrappings, require_one_source
from kmseal.envelope import DataKeyId, Place, Scope
from kmseal.errors import Malformed
from kmseal.kms.provider import KeyDescription, KeyState
from kmseal.manifest import Algorithm, DataKey, EncryptedSecret, Wrapping
from kmseal.target import Target

PLACE = Place.of(Scope.STRICT, "prod", "db")
TARGET = KeyDescription("local:new", KeyState.ENABLED, "2")


def wrapping(key: str, version: str = "1") -> Wrapping:
    return Wrapping(f"local:{key}", version, Algorithm.LOCAL_AES_256_GCM, b"x")


def data_key(*wrappings: Wrapping) -> DataKey:
    return DataKey(DataKeyId("oldk2345"), PLACE, wrappings)


def names(moved: Sequence[Wrapping | Step]) -> list[str]:
    """What stays by its key, and what moves with an arrow."""
    return [item.key_id if isinstance(item, Wrapping) else f"{item.old and item.old.key_id}->" for item in moved]


@pytest.mark.parametrize(
    ("before", "from_key", "after"),
    [
        ([wrapping("a")], "", ["local:a->"]),
        ([wrapping("a"), wrapping("b")], "local:a", ["local:a->", "local:b"]),
        ([wrapping("a"), wrapping("b")], "local:c", ["local:a", "local:b"]),
        ([wrapping("a"), wrapping("new", "2")], "local:a", ["local:new"]),
        ([wrapping("a"), wrapping("new", "1")], "local:a", ["local:new->"]),
        ([wrapping("new", "2")], "", ["local:new"]),
        ([wrapping("new", "1")], "", ["local:new->"]),
    ],
)
def test_wrappings_move_under_the_target(before: list[Wrapping], from_key: str, after: list[str]) -> None:
    """Once at the most, and under its primary version."""
    assert names(move(data_key(*before), TARGET, from_key)) == after


@pytest.mark.parametrize(
    ("data_keys", "clear"),
    [
        ([[wrapping("a")]], True),
        ([[wrapping("a")], [wrapping("a")]], True),
        ([[wrapping("a")], [wrapping("new")]], True),
        ([[wrapping("a")], [wrapping("b")]], False),
        ([[wrapping("a"), wrapping("b")]], False),
        ([[wrapping("a"), wrapping("new")]], False),
    ],
)
def test_which_one_is_to_move_is_not_guessed(data_keys: list[list[Wrapping]], clear: bool) -> None:
    """An object that can be opened in two ways must not lose one of them by an oversight."""
    parts = tuple(data_key(*item) for item in data_keys)
    encrypted = EncryptedSecret("prod", "db", Scope.STRICT, parts, {}, Target("db"))
    request = Request(to_key="local:new")
    if clear:
        require_one_source(encrypted, request, "local:new")
    else:
        with pytest.raises(Malformed, match="has wrappings under"):
            require_one_source(encrypted, request, "local:new")
    require_one_source(encrypted, Request(to_key="local:new", from_key="local:a"), "local:new")


KEYS = st.lists(st.sampled_from("abcdef"), max_size=6, unique=True)


@given(old=KEYS, new=KEYS)
def test_every_new_wrapping_has_one_place(old: list[str], new: list[str]) -> None:
    """Its own where its key had one; the order is that of the text, with the added ones behind."""
    before = [wrapping(key) for key in old]
    placed = place_wrappings(before, [wrapping(key, "2") for key in new])
    assert sorted(item.key_id for _, item in placed) == sorted(f"local:{key}" for key in new)
    indexes = [index for index, _ in placed if index is not None]
    assert indexes == sorted(set(indexes))
    assert [index for index, _ in placed[len(indexes) :]] == [None] * (len(placed) - len(indexes))
    for index, item in placed:
        assert item.key_id not in {each.key_id for each in before} or before[index or 0].key_id == item.key_id
    # Nothing is added behind while an old place is free.
    assert len(indexes) == min(len(old), len(new))
