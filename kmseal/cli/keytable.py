"""KMSKeys as ``kmseal keys`` shows them, and the gate: what is safe to disable when files count as well.

Used by ``keys``. The operator's status is the authority on what the cluster needs; here it is only narrowed by what
files still need, and never widened. A status that is older than its spec frees nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kmseal.cli.census import Census, Destinations, stale
from kmseal.cli.report import Used

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key, and how many objects hold a wrapping under it."""

    used: Used
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
    former: tuple[str, ...]
    """Keys whose wrappings are to be moved under this one."""
    versions: tuple[Version, ...]
    objects: int
    stale_in_cluster: int
    stale_in_git: int
    safe: tuple[Used, ...]
    """By the cluster alone. Without a version: the whole key."""
    observed: bool
    """Whether the status speaks of the present spec."""

    @classmethod
    def read(cls, raw: Json) -> "KeyRow":
        """Reads a KMSKey as the API server sends it; what is not there yet counts as unknown, or as nothing."""
        metadata, spec, status = _object(raw.get("metadata")), _object(raw.get("spec")), _object(raw.get("status"))
        key, counts = str(spec.get("keyId") or ""), _object(status.get("stale"))
        key_id = str(status.get("keyId") or ("" if ":alias/" in key else key))
        former = [*_list(status.get("previousKeys")), *_list(spec.get("replaces"))]
        generation = metadata.get("generation")
        observed = generation is not None and status.get("observedGeneration") == generation
        return cls(
            name=str(metadata.get("name") or ""),
            key=key,
            key_id=key_id,
            state=str(status.get("state") or "Unknown"),
            primary=str(status.get("primaryVersion") or ""),
            former=tuple(dict.fromkeys(str(item) for item in former if item != key_id)),
            versions=tuple(
                Version(
                    Used(str(item.get("keyId") or ""), str(item.get("id") or "")),
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
                Used(str(item.get("keyId") or ""), str(item.get("keyVersionId") or ""))
                for item in map(_object, _list(status.get("safeToDisable")))
                if observed
            ),
            observed=observed,
        )


@dataclass(frozen=True, slots=True)
class Overview:
    """All KMSKeys of a cluster and, where files were counted, these as well."""

    rows: Sequence[KeyRow]
    census: Census | None = None

    def safe(self, row: KeyRow) -> list[Used]:
        """What neither the cluster nor any file needs any more."""
        if self.census is None:
            return list(row.safe)
        if self.census.failures:
            return []
        return [item for item in row.safe if not self.census.needing(item.key_id, item.version)]

    def blocked(self, row: KeyRow) -> list[tuple[Used, int]]:
        """What only files still need, and how many objects in them."""
        if self.census is None:
            return []
        counted = [(item, self.census.needing(item.key_id, item.version)) for item in row.safe]
        return [(item, count) for item, count in counted if count]

    def destinations(self) -> Destinations:
        """Where wrappings should be."""
        known = [row for row in self.rows if row.key_id]
        primary = {row.key_id: row.primary for row in known}
        return Destinations(primary, {former: row.key_id for row in known for former in row.former})

    def stale_in_files(self, row: KeyRow) -> int:
        """How many objects in files hold a wrapping that should be under another version or key."""
        ours = {row.key_id, *row.former}
        holders = self.census.holders if self.census else []
        found = stale(holders, self.destinations())
        return len(
            {(holder.file, holder.namespace, holder.name) for _, holder, used, _ in found if used.key_id in ours}
        )

    def table(self) -> list[list[str]]:
        """A line for each KMSKey, below a line of titles."""
        titles = ["KEY", "STATE", "VERSION", "OBJECTS", "STALE IN CLUSTER", "STALE IN GIT", "SAFE TO DISABLE"]
        if self.census is not None:
            titles.insert(6, "STALE IN FILES")
        lines = [titles]
        for row in sorted(self.rows, key=lambda row: row.key):
            counts = [row.objects, row.stale_in_cluster, row.stale_in_git]
            counts += [self.stale_in_files(row)] if self.census is not None else []
            safe = ", ".join(item.version or item.key_id for item in self.safe(row))
            lines.append([row.key, row.state, row.primary or "-", *(str(count) for count in counts), safe or "-"])
        return lines

    def version_table(self) -> list[list[str]]:
        """A line for each version that the cluster or a file knows, with the objects that hold a wrapping under it."""
        in_files = self.census.count() if self.census else {}
        lines = [["KEY", "VERSION", "IN CLUSTER", "IN GIT", "IN FILES"]]
        for used, version in self._versions(in_files).items():
            counts = [str(version.in_cluster), str(version.in_git)] if version else ["-", "-"]
            lines.append([used.key_id, used.version, *counts, str(in_files.get(used, 0))])
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        in_files = self.census.count() if self.census else {}
        keys = []
        for row in sorted(self.rows, key=lambda row: row.key):
            counted = {"inCluster": row.stale_in_cluster, "inGit": row.stale_in_git}
            keys.append(
                {
                    "name": row.name,
                    "key": row.key,
                    "keyId": row.key_id,
                    "state": row.state,
                    "primaryVersion": row.primary,
                    "statusIsCurrent": row.observed,
                    "objects": row.objects,
                    "stale": counted | ({"inFiles": self.stale_in_files(row)} if self.census is not None else {}),
                    "safeToDisable": [item.to_dict() for item in self.safe(row)],
                    "neededByFiles": [item.to_dict() | {"objects": count} for item, count in self.blocked(row)],
                }
            )
        versions = [
            {
                **used.to_dict(),
                "primary": bool(version and version.primary),
                **({"inCluster": version.in_cluster, "inGit": version.in_git} if version else {}),
                **({"inFiles": in_files.get(used, 0)} if self.census is not None else {}),
            }
            for used, version in self._versions(in_files).items()
        ]
        return {"keys": keys, "versions": versions}

    def _versions(self, in_files: Mapping[Used, int]) -> dict[Used, Version | None]:
        found: dict[Used, Version | None] = {
            version.used: version for row in self.rows for version in row.versions if version.used.version
        }
        for used in in_files:
            found.setdefault(used, None)
        return dict(sorted(found.items(), key=lambda item: (item[0].key_id, item[0].version)))


def render_table(lines: Sequence[Sequence[str]]) -> str:
    """Columns that are as wide as they must be, three blanks apart, as kubectl prints them."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
