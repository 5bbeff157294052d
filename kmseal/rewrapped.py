"""Newer wrappings that stand beside an object, in its status: how they are read and which wrappings count.

After a rotation the operator wraps data keys anew and cannot write ``spec``, which belongs to Git. The new wrapping
goes to ``status.rewrapped`` together with the digest of the one it replaces. Read by the operator (and the broker) to
open objects, and by ``kmseal rewrap --from-cluster`` to bring Git up to date. Rules in comments are those of
``docs/format.md``, section 6. Nothing here calls a key service.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from kmseal.envelope import DataKeyId, length_prefixed, require_data_key_id
from kmseal.errors import Malformed
from kmseal.manifest import DataKey, EncryptedSecret, Wrapping
from kmseal.structure import Fields

_LABEL: Final = "kmseal/v1/wrapping"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """One newer wrapping: of which data key, instead of which wrapping."""

    data_key_id: DataKeyId
    digest: str
    """:func:`digest` of the wrapping in ``spec`` that it replaces."""
    wrapping: Wrapping

    @classmethod
    def parse(cls, raw: object, path: str = "") -> "Rewrapped":
        """Reads one item of ``status.rewrapped`` (R1). Raises Malformed with the path of the field."""
        with Fields(raw, path) as fields:
            text = fields.text("dataKeyId")
            try:
                data_key_id = require_data_key_id(text)
            except Malformed as error:
                error.field = fields.path("dataKeyId")
                raise
            replaced = fields.text("digest")
            if not _DIGEST.fullmatch(replaced):
                raise Malformed(
                    "is not a digest of a wrapping",
                    field=fields.path("digest"),
                    reason="Digest",
                    remedy="leave the status to the operator; it makes such items again",
                )
            wrapping = Wrapping.parse(fields.fields("wrapping").raw, fields.path("wrapping"))
            return cls(data_key_id, replaced, wrapping)

    def to_dict(self) -> dict[str, Any]:
        """The item as it stands in the status."""
        return {"dataKeyId": self.data_key_id, "digest": self.digest, "wrapping": self.wrapping.to_dict()}


def digest(wrapping: Wrapping) -> str:
    """The name of a wrapping: SHA-256 in hex over everything that it says (R2)."""
    text = length_prefixed(_LABEL, wrapping.key_id, wrapping.key_version_id, wrapping.algorithm.value)
    return hashlib.sha256(text + wrapping.wrapped).hexdigest()


def read_rewrapped(status: object) -> tuple[Rewrapped, ...]:
    """The newer wrappings of a status. Items that are not as the operator writes them count as not there (R4).

    The status informs; what cannot be read must never stand in the way of what ``spec`` says.
    """
    items = status.get("rewrapped") if isinstance(status, Mapping) else None
    found = []
    for item in items if isinstance(items, list) else ():
        try:
            found.append(Rewrapped.parse(item))
        except Malformed:
            continue
    return tuple(found)


def live(object_: EncryptedSecret, rewrapped: Iterable[Rewrapped]) -> tuple[Rewrapped, ...]:
    """Those that replace a wrapping which still stands in ``spec``, at most one for each (R3)."""
    standing = {(data_key.id, digest(wrapping)) for data_key in object_.data_keys for wrapping in data_key.wrappings}
    by_place = {(item.data_key_id, item.digest): item for item in rewrapped}
    return tuple(item for place, item in by_place.items() if place in standing)


def openers(data_key: DataKey, rewrapped: Iterable[Rewrapped]) -> tuple[Wrapping, ...]:
    """The wrappings to try, in order: each one's newer stand-in in its place, and what was replaced last (R5).

    All of ``spec`` are among them, whatever the status says; none is there twice.
    """
    newer = _newer(data_key, rewrapped)
    first, last = [], []
    for wrapping in data_key.wrappings:
        stand_in = newer.get(digest(wrapping)) if newer else None
        if stand_in is None:
            first.append(wrapping)
        else:
            first.append(stand_in)
            last.append(wrapping)
    return tuple(dict.fromkeys((*first, *last)))


def brought_up_to_date(data_key: DataKey, rewrapped: Iterable[Rewrapped]) -> DataKey:
    """The data key with its newer wrappings in place of those they replace: what Git should hold (R6).

    Where two would then name one key, one stays, for K3: the one that ``spec`` has before a newer one, for it was
    reviewed; else the first.
    """
    newer = _newer(data_key, rewrapped)
    kept: dict[str, Wrapping] = {}
    for wrapping in data_key.wrappings:
        current = newer.get(digest(wrapping), wrapping)
        if current is wrapping or current.key_id not in kept:
            kept[current.key_id] = current
    return replace(data_key, wrappings=tuple(kept.values()))


def _newer(data_key: DataKey, rewrapped: Iterable[Rewrapped]) -> dict[str, Wrapping]:
    """The stand-ins of a data key by the digest of what they replace. Of several for one, the last counts (R3)."""
    return {item.digest: item.wrapping for item in rewrapped if item.data_key_id == data_key.id}
