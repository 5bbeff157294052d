"""Which key versions each object needs: the inventory behind staleness, re-wrapping and the gate.

The ledger puts in what the feed shows of an object; the keeper counts, the re-wrapper finds its work here. Wrappings
are read leniently: an object that is wrong in other ways still needs the key that its wrappings name, and must block
its being called safe to disable. Objects share their holdings, of which there are few: 10,000 objects under one key
cost one tuple and a dictionary entry each.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kmseal.cluster.names import Key
from kmseal.errors import Malformed
from kmseal.manifest import Wrapping
from kmseal.rewrapped import digest, read_rewrapped

Json = dict[str, Any]


class KeyUse(NamedTuple):
    """A version of a key, as a wrapping names it."""

    key_id: str
    key_version_id: str


class Held(NamedTuple):
    """One wrapping of an object: what Git holds, and the newest that the cluster has of it."""

    spec: KeyUse
    newest: KeyUse


Holdings = tuple[Held, ...]


def read_holdings(raw: Json) -> Holdings:
    """All wrappings of an object as the API server sends it, those of unused data keys included."""
    stand_ins = {(item.data_key_id, item.digest): item.wrapping for item in read_rewrapped(raw.get("status"))}
    found: dict[Held, None] = {}
    spec = raw.get("spec")
    for data_key in _dicts(spec.get("dataKeys") if isinstance(spec, dict) else None):
        for wrapping in _dicts(data_key.get("wrappings")):
            key_id, version = wrapping.get("keyId"), wrapping.get("keyVersionId")
            if not (isinstance(key_id, str) and isinstance(version, str)):
                continue
            use = KeyUse(key_id, version)
            data_key_id = data_key.get("id")
            newest = _stand_in(stand_ins, data_key_id, wrapping) if isinstance(data_key_id, str) else None
            found[Held(use, newest or use)] = None
    return tuple(found)


@dataclass(slots=True)
class _Group:
    holdings: Holdings
    keys: dict[Key, None] = field(default_factory=dict)


class Inventory:
    """The holdings of all objects, and the objects of each holdings."""

    def __init__(self) -> None:
        self._of: dict[Key, Holdings] = {}
        self._groups: dict[Holdings, _Group] = {}

    def put(self, key: Key, holdings: Holdings) -> bool:
        """Takes in what an object holds now; says whether that is new."""
        before = self._of.get(key)
        if before == holdings:
            return False
        self.drop(key)
        group = self._groups.get(holdings)
        if group is None:
            group = self._groups[holdings] = _Group(holdings)
        group.keys[key] = None
        self._of[key] = group.holdings  # Not the equal tuple that was just read: each is kept once.
        return True

    def drop(self, key: Key) -> Holdings:
        """Forgets an object; says what it held."""
        holdings = self._of.pop(key, ())
        if group := self._groups.get(holdings):
            group.keys.pop(key, None)
            if not group.keys:
                del self._groups[holdings]
        return holdings

    def of(self, key: Key) -> Holdings:
        """What one object holds."""
        return self._of.get(key, ())

    def groups(self) -> Iterator[tuple[Holdings, Iterable[Key]]]:
        """Each distinct holdings with its objects."""
        for group in self._groups.values():
            yield group.holdings, group.keys

    def holders(self, key_ids: Iterable[str]) -> list[Key]:
        """The objects that hold a wrapping under one of these keys, in Git or in the cluster."""
        wanted = set(key_ids)
        return [
            key
            for group in self._groups.values()
            if any(held.spec.key_id in wanted or held.newest.key_id in wanted for held in group.holdings)
            for key in group.keys
        ]


def _dicts(items: object) -> list[Json]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _stand_in(stand_ins: dict[Any, Wrapping], data_key_id: str, wrapping: Json) -> KeyUse | None:
    if not stand_ins:
        return None
    try:
        newest = stand_ins.get((data_key_id, digest(Wrapping.parse(wrapping))))
    except Malformed:
        return None
    return KeyUse(newest.key_id, newest.key_version_id) if newest else None
