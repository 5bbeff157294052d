"""The table of ``kmseal keys``, and the gate: what is safe to disable when objects and files count as well.

Used by ``keys``. What the operator calls safe is narrowed by what the cluster's objects need at this moment, for it may
have stopped, and by what files need; it is never widened. A status that is older than its spec frees nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from kmseal.cli.census import Census, Needs
from kmseal.cli.keyrows import KeyRow, KeyRows, Version
from kmseal.cli.traces import Trace
from kmseal.holdings import KeyUse


class Blocker(StrEnum):
    """Who still needs what the operator calls safe."""

    CLUSTER = "Cluster"
    """An object of the cluster that the operator has not counted."""
    FILES = "Files"
    """An object in a file."""
    TRACES = "Traces"
    """Perhaps a file that names it in a place that cannot be counted."""


@dataclass(frozen=True)
class Overview:
    """All KMSKeys of a cluster and what its objects need; where files were counted, these as well."""

    keys: KeyRows
    cluster: Needs
    census: Census | None = None
    traces: Sequence[Trace] = ()
    """Files with a version or key in a place that is not counted."""

    @cached_property
    def _files(self) -> Needs:
        return Needs(self.census.holders if self.census else ())

    def safe(self, row: KeyRow) -> list[KeyUse]:
        """What neither the cluster nor any file needs any more."""
        if self.census is not None and self.census.failures:
            return []
        blocked = {use for use, _, _ in self.blocked(row)}
        return [use for use in row.safe if use not in blocked]

    def blocked(self, row: KeyRow) -> list[tuple[KeyUse, Blocker, int]]:
        """What the operator calls safe and something else still needs: how many objects, or files, of each kind."""
        counted = [
            (use, blocker, count)
            for use in row.safe
            for blocker, count in (
                (Blocker.CLUSTER, self.cluster.count(use)),
                (Blocker.FILES, self._files.count(use)),
                (Blocker.TRACES, sum(trace.use == use for trace in self.traces)),
            )
        ]
        return [item for item in counted if item[2]]

    def stale_in_files(self, row: KeyRow) -> int:
        """How many objects in files hold a wrapping that should be under another version or key."""
        holders = self.census.holders if self.census else []
        return sum(any(self.keys.is_stale(row, held.spec) for held in holder.holdings) for holder in holders)

    def table(self) -> list[list[str]]:
        """A line for each KMSKey, below a line of titles."""
        titles = ["KEY", "STATE", "VERSION", "OBJECTS", "STALE IN CLUSTER", "STALE IN GIT", "SAFE TO DISABLE"]
        if self.census is not None:
            titles.insert(6, "STALE IN FILES")
        lines = [titles]
        for row in self.keys.rows:
            counts = [row.objects, row.stale_in_cluster, row.stale_in_git]
            counts += [self.stale_in_files(row)] if self.census is not None else []
            safe = ", ".join(item.key_version_id or item.key_id for item in self.safe(row))
            lines.append([row.key, row.state, row.primary or "-", *(str(count) for count in counts), safe or "-"])
        return lines

    def version_table(self) -> list[list[str]]:
        """A line for each version that the cluster or a file knows, with the objects that hold a wrapping under it."""
        in_files = self.census.count() if self.census else {}
        lines = [["KEY", "VERSION", "IN CLUSTER", "IN GIT", "IN FILES"]]
        for used, version in self._versions(in_files).items():
            counts = [str(version.in_cluster), str(version.in_git)] if version else ["-", "-"]
            lines.append([used.key_id, used.key_version_id, *counts, str(in_files.get(used, 0))])
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        in_files = self.census.count() if self.census else {}
        keys = []
        for row in self.keys.rows:
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
                    **{
                        f"neededBy{blocker}": [
                            use.to_dict() | {"objects": count} for use, by, count in self.blocked(row) if by is blocker
                        ]
                        for blocker in (Blocker.CLUSTER, Blocker.FILES)
                    },
                    "namedElsewhere": [
                        {**trace.use.to_dict(), "file": trace.file} for trace in self.traces if trace.use in row.safe
                    ],
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

    def _versions(self, in_files: Mapping[KeyUse, int]) -> dict[KeyUse, Version | None]:
        found: dict[KeyUse, Version | None] = {
            version.used: version for row in self.keys.rows for version in row.versions if version.used.key_version_id
        }
        for used in in_files:
            found.setdefault(used, None)
        return dict(sorted(found.items(), key=lambda item: item[0]))


def render_table(lines: Sequence[Sequence[str]]) -> str:
    """Columns that are as wide as they must be, three blanks apart, as kubectl prints them."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
        for line in lines
    )
