"""Which key versions each object needs: the inventory behind staleness, re-wrapping and the gate.

The ledger puts in what the feed shows of an object; the keeper counts, the re-wrapper finds its work here. Wrappings
are read leniently: an object that is wrong in other ways still needs the key that its wrappings name, and must block
its being called safe to disable. Objects share their holdings, of which there are few: 10,000 objects under one key
cost one tuple and a dictionary entry each.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kmseal.cluster.names import Key
from kmseal.holdings import Held, Holdings, KeyUse, read_holdings

__all__ = ["Held", "Holdings", "Inventory", "KeyUse", "read_holdings", "read_openers"]

Json = dict[str, Any]


@dataclass(slots=True)
class _Group:
    holdings: Holdings
    keys: dict[Key, None] = field(default_factory=dict)


def resource_of(key_id: str) -> str:
    """``key/<id>`` of an ARN: what names a key apart from the account and the region that somebody claims for it."""
    return key_id.rpartition(":")[2]


def read_openers(raw: Json) -> tuple[KeyUse, ...]:
    """The key versions that an object was last opened with, as its status says."""
    status = raw.get("status")
    uses = _dicts(status.get("keys") if isinstance(status, dict) else None)
    named = ((use.get("keyId"), use.get("keyVersionId")) for use in uses)
    return tuple(KeyUse(key, version) for key, version in named if isinstance(key, str) and isinstance(version, str))


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

    def groups(self) -> Iterator[tuple[Holdings, Collection[Key]]]:
        """Each distinct holdings with its objects."""
        for group in self._groups.values():
            yield group.holdings, group.keys

    def holders(self, key_ids: Iterable[str]) -> list[Key]:
        """The objects that hold a wrapping under one of these keys, in Git or in the cluster.

        Also under a name that claims another account or region for it: KMS opens by the ciphertext, not by that claim.
        """
        wanted = {resource_of(key_id) for key_id in key_ids}
        return [
            key
            for group in self._groups.values()
            if any(resource_of(use.key_id) in wanted for held in group.holdings for use in held)
            for key in group.keys
        ]


def _dicts(items: object) -> list[Json]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
