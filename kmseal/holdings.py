"""Which key versions the wrappings of one object name: in ``spec``, and in the newer ones that its status holds.

Read by everything that says what is still needed: the servers' inventory and ``kmseal keys``. Wrappings are read
leniently: an object that is wrong in other ways, or a data key that no value names, still needs the key that its
wrappings name, and must block its being called safe to disable. It asks nobody.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kmseal.errors import Malformed
from kmseal.manifest import Wrapping
from kmseal.rewrapped import digest, read_rewrapped

Json = Mapping[str, Any]


class KeyUse(NamedTuple):
    """A version of a key, as a wrapping names it; without a version where the whole key is meant."""

    key_id: str
    key_version_id: str = ""

    @classmethod
    def of(cls, wrapping: Wrapping) -> "KeyUse":
        """What a wrapping names."""
        return cls(wrapping.key_id, wrapping.key_version_id)

    def to_dict(self) -> dict[str, str]:
        """As in a wrapping."""
        return {"keyId": self.key_id} | ({"keyVersionId": self.key_version_id} if self.key_version_id else {})

    def __str__(self) -> str:
        return f"{self.key_id} version {self.key_version_id}" if self.key_version_id else self.key_id


class Held(NamedTuple):
    """One wrapping of an object: what Git holds, and the newest that the cluster has of it."""

    spec: KeyUse
    newest: KeyUse


Holdings = tuple[Held, ...]


def read_holdings(raw: Json) -> Holdings:
    """All wrappings of an object from the API server or a file, those of unused data keys included, each pair once."""
    stand_ins = {(item.data_key_id, item.digest): item.wrapping for item in read_rewrapped(raw.get("status"))}
    found: dict[Held, None] = {}
    for use, data_key_id, wrapping in _wrappings(raw):
        newest = _stand_in(stand_ins, data_key_id, wrapping) if isinstance(data_key_id, str) else None
        found[Held(use, newest or use)] = None
    return tuple(found)


def read_uses(raw: Json) -> list[KeyUse]:
    """What each wrapping of ``spec`` names, one for each."""
    return [use for use, _, _ in _wrappings(raw)]


def resource_of(key_id: str) -> str:
    """What names a key apart from the account and the region that a manifest claims for it, which may be false."""
    return key_id.rpartition(":")[2]


def _wrappings(raw: Json) -> Iterator[tuple[KeyUse, object, Json]]:
    """Each wrapping with what it names, and what its data key calls itself."""
    spec = raw.get("spec")
    for data_key in _objects(spec.get("dataKeys") if isinstance(spec, Mapping) else None):
        for wrapping in _objects(data_key.get("wrappings")):
            key_id, version = wrapping.get("keyId"), wrapping.get("keyVersionId")
            if isinstance(key_id, str) and isinstance(version, str):
                yield KeyUse(key_id, version), data_key.get("id"), wrapping


def _objects(items: object) -> list[Json]:
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _stand_in(stand_ins: Mapping[Any, Wrapping], data_key_id: str, wrapping: Json) -> KeyUse | None:
    if not stand_ins:
        return None
    try:
        newest = stand_ins.get((data_key_id, digest(Wrapping.parse(wrapping))))
    except Malformed:
        return None
    return KeyUse.of(newest) if newest else None
