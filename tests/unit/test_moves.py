"""The rules of moving on simple values: what the operator and the command line both go by."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from kmseal.moves import final, leaves, route


@dataclass(frozen=True)
class Simple:
    """A KMSKey that names ``key_id`` now and has named or replaces others."""

    key_id: str
    previous: str = ""
    replaced: str = ""
    is_neutral: bool = False

    @property
    def replaces(self) -> Sequence[str]:
        return self.replaced.split()

    @property
    def former(self) -> frozenset[str]:
        return frozenset(f"{self.previous} {self.replaced}".split()) - {self.key_id}


def covering(movers: Sequence[Simple], key_id: str) -> Sequence[Simple]:
    return [mover for mover in movers if key_id in {mover.key_id, *mover.former}]


def ends(movers: Sequence[Simple], key_id: str) -> tuple[list[str] | None, str | None]:
    """The keys on the way, and the last one where a KMSKey names it."""
    passed, last = route(key_id, lambda key: covering(movers, key)), final(key_id, lambda key: covering(movers, key))
    return [mover.key_id for mover in passed] if passed is not None else None, last.key_id if last else None


@pytest.mark.parametrize(
    ("movers", "way", "last"),
    [
        ([], [], None),
        ([Simple("a")], [], "a"),
        ([Simple("b", "a")], ["b"], "b"),
        ([Simple("b", "", "a")], ["b"], "b"),
        ([Simple("b", "a"), Simple("c", "", "b")], ["b", "c"], "c"),
        ([Simple("b", "a"), Simple("a")], [], "a"),
        ([Simple("b", "a"), Simple("a", is_neutral=True)], ["b"], "b"),
        ([Simple("b", "", "a"), Simple("a")], ["b"], "b"),
        ([Simple("b", "a"), Simple("a", "b")], [], "a"),
        ([Simple("b", "", "a"), Simple("a", "", "b")], None, None),
        ([Simple("", "", "a")], [], None),
    ],
)
def test_wrappings_move_to_the_end_of_the_way(movers: list[Simple], way: list[str] | None, last: str | None) -> None:
    """Not away from a key that people registered, unless they said so; a circle moves nothing."""
    assert ends(movers, "a") == (way, last)


def test_only_a_former_key_is_left() -> None:
    """And never the present one."""
    assert not leaves(Simple("a", "a"), "a", [])
    assert not leaves(Simple("a", "b"), "c", [])
    assert leaves(Simple("a", "b"), "b", [])
