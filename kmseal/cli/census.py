"""Which keys and versions objects need, in files and in a cluster.

Used by ``keys``. An object that is wrong in other ways still needs its keys, and a manifest that may hold an
EncryptedSecret and cannot be read blocks everything: what is in it is not known. Account and region of a key are what a
manifest claims: what is needed is told by the key's own id.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from kmseal.cli.filetree import FileTree, is_manifest
from kmseal.cli.keyrows import KeyRows
from kmseal.cli.report import ObjectReport
from kmseal.cli.repository import name_of, read_manifests
from kmseal.errors import KmsealError, Malformed
from kmseal.holdings import Holdings, KeyUse, read_holdings, resource_of

_NO_OBJECT: Final = "there is no EncryptedSecret in any file"


@dataclass(frozen=True, slots=True)
class Holder:
    """An object and its wrappings; ``file`` is empty for one that is in the cluster."""

    file: str
    namespace: str
    name: str
    holdings: Holdings


class Needs:
    """How many objects hold a wrapping under a key, or under one version of it, in their spec or their status."""

    def __init__(self, holders: Iterable[Holder]) -> None:
        self._counts: Counter[KeyUse] = Counter()
        for holder in holders:
            uses = {KeyUse(resource_of(key_id), version) for held in holder.holdings for key_id, version in held}
            self._counts.update(uses | {KeyUse(use.key_id) for use in uses})

    def count(self, use: KeyUse) -> int:
        """Of a version, or of the whole key where ``use`` names none."""
        return self._counts[KeyUse(resource_of(use.key_id), use.key_version_id)]


@dataclass(slots=True)
class Census:
    """The objects of files, and the files that could not be read."""

    holders: list[Holder] = field(default_factory=list)
    failures: list[ObjectReport] = field(default_factory=list)
    tree: FileTree = field(default_factory=FileTree)
    """All files that were looked at."""

    def count(self) -> Counter[KeyUse]:
        """How many objects hold a wrapping under each version of each key."""
        return Counter(use for holder in self.holders for use in {held.spec for held in holder.holdings})

    def fail(self, file: str, error: KmsealError) -> None:
        """Takes in why a file cannot be counted, or not all of it."""
        report = ObjectReport(file)
        report.fail(error)
        self.failures.append(report)

    def __str__(self) -> str:
        objects, files = len(self.holders), len({holder.file for holder in self.holders})
        return (
            f"{objects} object{'' if objects == 1 else 's'} in {files} of {len(self.tree.files)} "
            f"file{'' if len(self.tree.files) == 1 else 's'}"
        )


def take_census(tree: FileTree, namespace: str | None) -> Census:
    """Reads all files. Where none has an object, that is a failure: it is no answer, but a wrong path."""
    census = Census(tree=tree)
    for path in tree.files:
        try:
            found = read_manifests(path, strict=is_manifest(path))
        except KmsealError as error:
            census.fail(path, error)
            continue
        for _, raw in found.objects if found else ():
            census.holders.append(Holder(path, *name_of(raw, namespace), read_holdings(raw)))
    if not census.holders and not census.failures:
        remedy = "check the paths after --git: what they do not lead to is not counted"
        census.fail("", Malformed(_NO_OBJECT, field="--git", reason="NoObjects", remedy=remedy))
    return census


def stale(holders: Sequence[Holder], keys: KeyRows) -> Iterator[tuple[str, Holder, KeyUse, KeyUse | None]]:
    """Where it is stale (``Cluster``, ``Git`` or ``File``), the object, the wrapping and where it should be.

    ``Git`` is what the cluster has of Git: the object's ``spec`` there. Where wrappings should be is None for a circle
    of replacements.
    """
    for holder in holders:
        for held in holder.holdings:
            places = (("File", held.spec),) if holder.file else (("Cluster", held.newest), ("Git", held.spec))
            for where, use in places:
                if keys.is_stale_anywhere(use):
                    yield where, holder, use, keys.destination(use.key_id)
