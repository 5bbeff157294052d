"""Which keys and versions objects need, in files and in a cluster, and where their wrappings should be.

Used by ``keys``. Wrappings are read leniently, as the operator counts them: an object that is wrong in other ways, or
a data key that no value names, still blocks the key of its wrappings from being called safe to disable. A file that
may hold an EncryptedSecret and cannot be read blocks everything: what is in it is not known.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kmseal.cli.report import ObjectReport, Used
from kmseal.cli.repository import name_of, read_manifests
from kmseal.errors import KmsealError, Malformed
from kmseal.manifest import Wrapping
from kmseal.rewrapped import digest, read_rewrapped

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Holding:
    """One wrapping of an object: as it stands in ``spec``, and the newest that there is of it."""

    spec: Used
    newest: Used


@dataclass(frozen=True, slots=True)
class Holder:
    """An object and its wrappings; ``file`` is empty for one that is in the cluster."""

    file: str
    namespace: str
    name: str
    holdings: tuple[Holding, ...]


@dataclass(slots=True)
class Census:
    """The objects of files, and the files that could not be read."""

    holders: list[Holder] = field(default_factory=list)
    failures: list[ObjectReport] = field(default_factory=list)

    def count(self) -> dict[Used, int]:
        """How many objects hold a wrapping under each version of each key."""
        counts: dict[Used, int] = {}
        for holder in self.holders:
            for used in {holding.spec for holding in holder.holdings}:
                counts[used] = counts.get(used, 0) + 1
        return counts

    def needing(self, key_id: str, version: str) -> int:
        """How many objects hold a wrapping under a version, or under any where ``version`` is empty."""
        return sum(
            any(item.spec.key_id == key_id and version in ("", item.spec.version) for item in holder.holdings)
            for holder in self.holders
        )


def take_census(paths: Iterable[str], namespace: str | None) -> Census:
    """Reads all files."""
    census = Census()
    for path in paths:
        try:
            found = read_manifests(path)
        except KmsealError as error:
            failed = ObjectReport(path)
            failed.fail(error)
            census.failures.append(failed)
            continue
        for _, raw in found.objects if found else ():
            census.holders.append(Holder(path, *name_of(raw, namespace), read_holdings(raw)))
    return census


def read_holdings(raw: Json) -> tuple[Holding, ...]:
    """The wrappings of an object, from a file or from the API server, each distinct pair once."""
    newer = {(item.data_key_id, item.digest): item.wrapping for item in read_rewrapped(raw.get("status"))}
    found: dict[Holding, None] = {}
    spec = raw.get("spec")
    for data_key in _objects(spec.get("dataKeys") if isinstance(spec, Mapping) else None):
        for wrapping in _objects(data_key.get("wrappings")):
            key_id, version = wrapping.get("keyId"), wrapping.get("keyVersionId")
            if isinstance(key_id, str) and isinstance(version, str):
                used = Used(key_id, version)
                found[Holding(used, _newest(newer, data_key.get("id"), wrapping) or used)] = None
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where wrappings should be, by what KMSKeys say.

    ``primary`` has the primary version of each key that a KMSKey names; ``successors`` the key that takes over from
    another one, which a KMSKey replaces or an alias named before.
    """

    primary: Mapping[str, str]
    successors: Mapping[str, str]

    def of(self, used: Used) -> Used | None:
        """Where a stale wrapping should be; None where it is current, or nothing is known of its key."""
        key_id, passed = used.key_id, {used.key_id}
        while key_id in self.successors:
            key_id = self.successors[key_id]
            if key_id in passed:
                return None  # A circle of replacements moves nothing.
            passed.add(key_id)
        # A key without a primary version is asymmetric, or was never reached: nothing is known to be newer.
        version = self.primary.get(key_id, "")
        target = Used(key_id, version)
        return target if target != used and (version or key_id != used.key_id) else None


def stale(holders: Sequence[Holder], destinations: Destinations) -> Iterator[tuple[str, Holder, Used, Used]]:
    """Where it is stale (``Cluster``, ``Git`` or ``File``), the object, the wrapping and where it should be.

    ``Git`` is what the cluster has of Git: the object's ``spec`` there.
    """
    for holder in holders:
        for holding in holder.holdings:
            for where, used in (("Cluster", holding.newest), ("Git", holding.spec)):
                target = destinations.of(used)
                if target and holder.file and where == "Git":
                    yield "File", holder, used, target
                elif target and not holder.file:
                    yield where, holder, used, target


def _objects(items: object) -> list[Json]:
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _newest(newer: Mapping[Any, Wrapping], data_key_id: object, wrapping: Json) -> Used | None:
    try:
        found = newer.get((data_key_id, digest(Wrapping.parse(wrapping)))) if newer else None
    except Malformed:
        return None
    return Used.of(found) if found else None
