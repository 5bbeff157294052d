"""KMSKeys of a cluster as the command line reads them, and where they say that wrappings should be.

Used by ``keys`` for its table and its gate, and by ``rewrap --from-cluster`` to tell which key may take another's
place. The rules of moving are those of the operator, in ``kmseal.moves``. It asks nobody.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmseal import moves
from kmseal.errors import Malformed
from kmseal.holdings import KeyUse
from kmseal.kmskey import AUTOMATIC, AUTOMATIC_LABEL, KMSKey

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key, and how many objects hold a wrapping under it."""

    used: KeyUse
    primary: bool
    in_git: int
    in_cluster: int


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One KMSKey: what its spec names, and what the operator says of it."""

    name: str
    key: str
    """What the spec names: a key or an alias."""
    key_id: str
    """The key that this is now; empty where the operator does not know it."""
    state: str
    primary: str
    former: frozenset[str]
    """Keys whose wrappings are to be moved under this one."""
    replaces: frozenset[str]
    """Those of ``former`` that the spec names."""
    versions: tuple[Version, ...]
    objects: int
    stale_in_cluster: int
    stale_in_git: int
    safe: tuple[KeyUse, ...]
    """By the operator alone. Without a version: the whole key."""
    observed: bool
    """Whether the status speaks of the present spec."""
    automatic: bool = False
    """Whether the operator made it for a key that it met."""
    is_neutral: bool = False
    """Whether nobody has said anything in it since."""

    @classmethod
    def read(cls, raw: Json) -> "KeyRow":
        """Reads a KMSKey as the API server sends it; what is not there yet counts as unknown, or as nothing."""
        metadata, spec, status = _object(raw.get("metadata")), _object(raw.get("spec")), _object(raw.get("status"))
        key, counts = str(spec.get("keyId") or ""), _object(status.get("stale"))
        key_id = str(status.get("keyId") or "") if ":alias/" in key else key
        replaces = frozenset(map(str, _list(spec.get("replaces"))))
        generation = metadata.get("generation")
        observed = generation is not None and status.get("observedGeneration") == generation
        automatic = _object(metadata.get("labels")).get(AUTOMATIC_LABEL) == AUTOMATIC
        return cls(
            name=str(metadata.get("name") or ""),
            key=key,
            key_id=key_id,
            state=str(status.get("state") or "Unknown"),
            primary=str(status.get("primaryVersion") or ""),
            former=(replaces | frozenset(map(str, _list(status.get("previousKeys"))))) - {key_id},
            replaces=replaces,
            versions=tuple(
                Version(
                    KeyUse(str(item.get("keyId") or ""), str(item.get("id") or "")),
                    item.get("primary") is True,
                    _count(item.get("inGit")),
                    _count(item.get("inCluster")),
                )
                for item in map(_object, _list(status.get("versions")))
            ),
            objects=_count(status.get("objects")),
            stale_in_cluster=_count(counts.get("inCluster")),
            stale_in_git=_count(counts.get("inGit")),
            safe=tuple(
                KeyUse(str(item.get("keyId") or ""), str(item.get("keyVersionId") or ""))
                for item in map(_object, _list(status.get("safeToDisable")))
                if observed
            ),
            observed=observed,
            automatic=automatic,
            is_neutral=automatic and _is_bare(raw),
        )

    @property
    def covered(self) -> frozenset[str]:
        """All keys that this KMSKey speaks of."""
        return self.former | ({self.key_id} if self.key_id else frozenset())

    def is_outdated(self, use: KeyUse) -> bool:
        """Whether a wrapping is under another version of the present key than the primary one.

        A key without a primary version is asymmetric, or was never reached: nothing is known to be newer.
        """
        return use.key_id == self.key_id and self.primary not in ("", use.key_version_id)


class KeyRows:
    """All KMSKeys of a cluster, in the order of what they name."""

    def __init__(self, rows: Iterable[KeyRow]) -> None:
        self.rows = sorted(rows, key=lambda row: (row.key, row.name))
        self._by_key: dict[str, list[KeyRow]] = {}
        for row in sorted(self.rows, key=lambda row: (row.automatic, row.name)):
            for key_id in row.covered:
                self._by_key.setdefault(key_id, []).append(row)

    def covering(self, key_id: str) -> Sequence[KeyRow]:
        """The KMSKeys that speak of a key, those that people wrote first."""
        return self._by_key.get(key_id, ())

    def is_stale(self, row: KeyRow, use: KeyUse) -> bool:
        """Whether a KMSKey says that a wrapping should be wrapped anew."""
        if use.key_id != row.key_id:
            return moves.leaves(row, use.key_id, self.covering(use.key_id))
        return row.is_outdated(use)

    def is_stale_anywhere(self, use: KeyUse) -> bool:
        """Whether any KMSKey says so."""
        return any(self.is_stale(row, use) for row in self.covering(use.key_id))

    def destination(self, key_id: str) -> KeyUse | None:
        """Where wrappings under a key should be; None where nothing is known of it, and for a circle."""
        row = moves.final(key_id, self.covering)
        return KeyUse(row.key_id, row.primary) if row else None

    def may_replace(self, key_id: str, other: str) -> bool:
        """Whether wrappings under ``key_id`` are moved under ``other``, at last or on the way."""
        return any(row.key_id == other for row in moves.route(key_id, self.covering) or ())


def _is_bare(raw: Json) -> bool:
    try:
        return KMSKey.parse(raw).is_bare
    except Malformed:
        return False


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
