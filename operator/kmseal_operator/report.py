"""The status of a KMSKey as it is written: inventory, staleness, the gate, conditions. Pure builders of JSON.

Called by the keeper. The gate errs on the side of "still needed": it names a key or a version only where no object of
the cluster holds a wrapping under it any more, in Git or in its status, and only while the whole cluster is in view.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final

from kmseal.cluster.entry import NOT_FOUND, Entry
from kmseal.cluster.holdings import Holdings, Inventory, KeyUse, resource_of
from kmseal.cluster.names import Key
from kmseal_operator.moves import Moves
from kmseal_operator.status import rfc3339

Json = dict[str, Any]
_EXAMPLES_MAX: Final = 20
_VERSIONS_MAX: Final = 512
_MESSAGE_CHARS_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Staleness:
    """Which objects one KMSKey still has to move, in groups of equal holdings."""

    objects: int
    in_cluster: tuple[Collection[Key], ...]
    """Objects that open by an older version only."""
    in_git: tuple[Collection[Key], ...]
    """Objects whose spec still holds such a wrapping, those of ``in_cluster`` included."""
    renewed: int
    """Objects that have a newer wrapping in their status where Git is stale."""

    @property
    def cluster_count(self) -> int:
        """How many objects open by an older version only."""
        return sum(map(len, self.in_cluster))

    @property
    def git_count(self) -> int:
        """How many objects are stale in Git."""
        return sum(map(len, self.in_git))


def staleness(entry: Entry, moves: Moves, inventory: Inventory) -> Staleness:
    """Looks through the inventory: its cost grows with the number of distinct holdings, not of objects."""
    total, renewed = 0, 0
    in_cluster: list[Collection[Key]] = []
    in_git: list[Collection[Key]] = []
    for holdings, keys in _under(entry, inventory):
        total += len(keys)
        stale = any(moves.is_stale(entry, held.newest) for held in holdings)
        if stale:
            in_cluster.append(keys)
        if any(moves.is_stale(entry, held.spec) for held in holdings):
            in_git.append(keys)
            renewed += 0 if stale else len(keys)
    return Staleness(total, tuple(in_cluster), tuple(in_git), renewed)


def build_status(
    entry: Entry, moves: Moves, inventory: Inventory, *, failed: frozenset[Key], complete: bool, now: datetime
) -> Json:
    """The whole status.

    :param failed: objects that the re-wrapper could not do and tries again
    :param complete: whether every object of the cluster is in view; else nothing is called safe
    """
    stale = staleness(entry, moves, inventory)
    pending = stale.cluster_count
    status: Json = {
        "observedGeneration": entry.generation,
        "keyId": entry.key_id,
        "state": entry.state,
        "primaryVersion": entry.primary,
        "previousKeys": list(entry.previous),
        "versions": list(versions(entry, inventory)),
        "objects": stale.objects,
        "stale": {"inCluster": pending, "inGit": stale.git_count, "objects": _examples(stale)},
        "rewrap": {"pending": pending, "done": stale.renewed, "failed": _count_of(failed, stale)},
        "safeToDisable": list(_safe(entry, moves, inventory)) if complete and _is_known(entry) else [],
        "conditions": [
            _condition("Available", *_available(entry), entry, now),
            _condition("UpToDate", *_up_to_date(entry, moves, stale, failed), entry, now),
        ],
    }
    # An empty text would not have the form that the schema demands of ids.
    return {name: value for name, value in status.items() if value or name not in ("keyId", "primaryVersion")}


def _is_known(entry: Entry) -> bool:
    """Whether the last poll said what the key is: else the primary version may be another one by now."""
    return entry.confirmed and entry.failure is None


def is_due(status: Json, before: Json) -> bool:
    """Whether a status is worth a write: transition times alone are not."""
    return _without_times(status) != _without_times(before)


def is_urgent(status: Json, before: Json) -> bool:
    """Whether more than numbers has changed: what people and gates wait for is not held back."""
    firm = ("observedGeneration", "keyId", "state", "primaryVersion", "previousKeys", "safeToDisable")
    return any(status.get(name) != before.get(name) for name in firm) or any(
        condition_of(status, kind) != condition_of(before, kind) for kind in ("Available", "UpToDate")
    )


def _under(entry: Entry, inventory: Inventory) -> Iterator[tuple[Holdings, Collection[Key]]]:
    covered = entry.covered
    for holdings, keys in inventory.groups():
        if any(held.spec.key_id in covered or held.newest.key_id in covered for held in holdings):
            yield holdings, keys


def versions(entry: Entry, inventory: Inventory) -> Iterator[Json]:
    """Each key version that is known or held, oldest first, with how many objects hold it."""
    in_git: Counter[KeyUse] = Counter()
    in_cluster: Counter[KeyUse] = Counter()
    covered = entry.covered
    for holdings, keys in _under(entry, inventory):
        count = len(keys)
        in_git.update(dict.fromkeys({held.spec for held in holdings if held.spec.key_id in covered}, count))
        renewed = {held.newest for held in holdings if held.newest != held.spec and held.newest.key_id in covered}
        in_cluster.update(dict.fromkeys(renewed, count))
    # Those that were never seen as primary are older than all that were; then the order in which they came.
    met = sorted({*in_git, *in_cluster} - set(entry.versions))
    strangers = set(met)
    for use in [*met, *entry.versions][-_VERSIONS_MAX:]:
        yield {
            "keyId": use.key_id,
            "id": use.key_version_id,
            "primary": use == KeyUse(entry.key_id, entry.primary),
            **({"met": True} if use in strangers else {}),
            "inGit": in_git[use],
            "inCluster": in_cluster[use],
        }


def _safe(entry: Entry, moves: Moves, inventory: Inventory) -> Iterator[Json]:
    needed = {use for holdings, _ in inventory.groups() for held in holdings for use in held}
    # By their ids alone: account and region are what the manifest claims, and may be false.
    needed_ids = {resource_of(use.key_id) for use in needed}
    needed_versions = {(resource_of(use.key_id), use.key_version_id) for use in needed}
    for key_id in sorted(entry.former):
        if resource_of(key_id) not in needed_ids and moves.leaves(entry, key_id):
            yield {"keyId": key_id}
    # Of an asymmetric key, which has no primary version, none is old: what was sealed offline may need any.
    for use in entry.versions if entry.primary else ():
        is_old = use.key_id == entry.key_id and use.key_version_id != entry.primary and use not in entry.unheard
        if is_old and (resource_of(use.key_id), use.key_version_id) not in needed_versions:
            yield {"keyId": use.key_id, "keyVersionId": use.key_version_id}


def _count_of(failed: frozenset[Key], stale: Staleness) -> int:
    return sum(key in group for key in failed for group in stale.in_cluster)


def _examples(stale: Staleness) -> list[Json]:
    """Those that wait for the cluster first: Git can only follow."""
    chosen: dict[Key, str] = {}
    for where, groups in (("Cluster", stale.in_cluster), ("Git", stale.in_git)):
        # Twice as many as are shown: those that stand under Cluster already come again under Git.
        for key in heapq.nsmallest(2 * _EXAMPLES_MAX, chain.from_iterable(groups)):
            chosen.setdefault(key, where)
    shown = list(chosen.items())[:_EXAMPLES_MAX]
    return [{"namespace": key.namespace, "name": key.name, "where": where} for key, where in shown]


def _available(entry: Entry) -> tuple[str, str, str]:
    if entry.invalid:
        return "False", "Invalid", str(entry.invalid)
    if entry.state == NOT_FOUND and entry.failure:
        return "False", NOT_FOUND, str(entry.failure)
    if entry.is_shut:
        return "False", entry.state, f"the key is {entry.state} in KMS; its objects are not Ready until it is back"
    if entry.failure:
        return "Unknown", entry.failure.reason, str(entry.failure)
    if not entry.confirmed:
        return "Unknown", "Waiting", "KMS has not been asked yet"
    return "True", entry.state, "the key can be used"


def _up_to_date(entry: Entry, moves: Moves, stale: Staleness, failed: frozenset[Key]) -> tuple[str, str, str]:
    count = stale.cluster_count
    if not entry.confirmed:
        return "Unknown", "Waiting", "KMS has not been asked yet"
    if not count:
        waiting = stale.git_count
        git = f"; Git is behind for {waiting} of them: run kmseal rewrap --from-cluster" if waiting else ""
        return "True", "UpToDate", f"all {stale.objects} objects open by the newest version{git}"
    text = f"{count} of {stale.objects} objects open by an older version only"
    if entry.key_id and any(moves.final(key_id) is None for key_id in entry.former):
        return "False", "ReplacementCircle", f"{text}; spec.replaces of KMSKeys leads in a circle: break it"
    if broken := _count_of(failed, stale):
        return "False", "RewrapFailing", f"{text}; {broken} could not be re-wrapped and are tried again"
    if entry.description is None:
        return "False", "NotAvailable", f"{text}; they wait for the key"
    if entry.key.rewrap == "Manual":
        return "False", "Manual", f'{text}; annotate them kmseal.dev/rewrap: "true", or set spec.rewrap to Auto'
    return "False", "Rewrapping", f"{text}; they are being re-wrapped"


def _condition(kind: str, status: str, reason: str, message: str, entry: Entry, now: datetime) -> Json:
    before = next((item for item in _conditions(entry.status) if item.get("type") == kind), {})
    same = before.get("status") == status and before.get("lastTransitionTime")
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message[:_MESSAGE_CHARS_MAX],
        "observedGeneration": entry.generation,
        "lastTransitionTime": before["lastTransitionTime"] if same else rfc3339(now),
    }


def condition_of(status: Json, kind: str) -> str:
    """Status of a condition as text, empty where there is none."""
    return next((str(item.get("status", "")) for item in _conditions(status) if item.get("type") == kind), "")


def _conditions(status: Json) -> list[Json]:
    items = status.get("conditions")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _without_times(status: Json) -> Json:
    timeless = [
        {name: value for name, value in item.items() if name != "lastTransitionTime"} for item in _conditions(status)
    ]
    return {**status, "conditions": timeless}


def transitions(entry: Entry, after: Json) -> Iterator[tuple[bool, str, str]]:
    """What is worth an event between the status as it stands and the one to be written: warning, reason, text."""
    before = entry.status
    if not before:
        return
    if before.get("state") != after.get("state"):
        shut = condition_of(after, "Available") == "False"
        yield shut, str(after["state"]), f"the key is now {after['state']}; it was {before.get('state', 'not known')}"
    old, new = before.get("primaryVersion", ""), after.get("primaryVersion", "")
    if before.get("keyId", after.get("keyId")) != after.get("keyId"):
        yield False, "Moved", f"{entry.key.key_id} names {after.get('keyId')} now; it named {before.get('keyId')}"
    elif old and new and old != new:
        yield False, "Rotated", f"the primary version is now {new}; it was {old}"
    if condition_of(before, "UpToDate") == "False" and condition_of(after, "UpToDate") == "True":
        yield (
            False,
            "Rewrapped",
            next(str(item["message"]) for item in after["conditions"] if item["type"] == "UpToDate"),
        )
    known = [tuple(item.values()) for item in before.get("safeToDisable") or [] if isinstance(item, dict)]
    for item in after["safeToDisable"]:
        if tuple(item.values()) not in known:
            yield False, "SafeToDisable", f"no object of this cluster needs {' version '.join(item.values())} any more"
