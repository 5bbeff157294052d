"""What the operator knows of the cluster: one compact record per EncryptedSecret, one per Secret of ours.

Fed by the feeds with what the API server shows and by the workers with what they have just written; read by the workers
and the metrics. It decides one thing only: whether an object is settled, so that an unchanged object costs nothing. An
object's content is kept, as bytes, only while there is work to do on it. It never sees a Secret's data.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from kmseal.cluster.holdings import Held, Holdings, Inventory, read_holdings, read_openers, resource_of
from kmseal.cluster.names import FIELD_MANAGER, Key
from kmseal.cluster.reasons import WAITS_FOR_KEY, Reason
from kmseal_operator.backlog import Lane
from kmseal_operator.queue import KeyedQueue

OWNER_ANNOTATION: Final = "kmseal.dev/owner"
RETAIN_ANNOTATION: Final = "kmseal.dev/retain"
"""On a Secret that an object with deletionPolicy Retain has merged into: its values stay when the object goes."""
TARGET_LABEL: Final = "kmseal.dev/target"
REWRAP_ANNOTATION: Final = "kmseal.dev/rewrap"
"""On an EncryptedSecret: "true" has it re-wrapped also where its KMSKey says Manual, "false" never."""

Json = dict[str, Any]
_GONE_MAX: Final = 1_024
_ASKED: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an object's status says, as far as decisions need it."""

    observed_generation: int = 0
    ready: str = ""
    reason: str = ""
    message: str = ""
    since: str = ""
    target_name: str = ""
    target_uid: str = ""
    target_version: str = ""
    applied_fields: str = ""

    @classmethod
    def parse(cls, status: object) -> "Recorded":
        """Reads a status leniently: whatever is not as we write it counts as not there."""
        if not isinstance(status, dict):
            return cls()
        conditions = status.get("conditions")
        ready: Json = (
            next((c for c in conditions if isinstance(c, dict) and c.get("type") == "Ready"), {})
            if isinstance(conditions, list)
            else {}
        )
        target = status.get("target")
        target = target if isinstance(target, dict) else {}
        observed = status.get("observedGeneration")
        return cls(
            observed_generation=observed if isinstance(observed, int) else 0,
            ready=str(ready.get("status", "")), reason=str(ready.get("reason", "")),
            message=str(ready.get("message", "")), since=str(ready.get("lastTransitionTime", "")),
            target_name=str(target.get("name", "")), target_uid=str(target.get("uid", "")),
            target_version=str(target.get("resourceVersion", "")),
            applied_fields=str(target.get("appliedFields", "")),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """The metadata of a Secret: who it belongs to, and which fields we and others have set."""

    uid: str
    version: str
    owner: str
    owner_uids: frozenset[str]
    applied: tuple[tuple[str, str], ...]
    """Digest of the fields set by each of our field managers."""
    foreign_data: tuple[str, ...]
    """Names of data entries that only others have set."""
    retains: bool = False

    @classmethod
    def parse(cls, metadata: Json) -> "Seen":
        """Reads the metadata of a Secret as the API server sends it."""
        applied, ours, others = [], set(), set()
        for entry in metadata.get("managedFields") or []:
            fields = entry.get("fieldsV1") or {}
            names = {name[2:] for name in fields.get("f:data") or {} if name.startswith("f:")}
            manager = str(entry.get("manager", ""))
            if entry.get("operation") == "Apply" and is_ours(manager):
                ours |= names
                text = json.dumps([entry.get("time"), fields], sort_keys=True, separators=(",", ":"))
                applied.append((manager, hashlib.sha256(text.encode()).hexdigest()[:16]))
            else:
                others |= names
        return cls(
            uid=str(metadata.get("uid", "")),
            version=str(metadata.get("resourceVersion", "")),
            owner=str((metadata.get("annotations") or {}).get(OWNER_ANNOTATION, "")),
            owner_uids=frozenset(str(ref.get("uid", "")) for ref in metadata.get("ownerReferences") or []),
            applied=tuple(applied),
            foreign_data=tuple(sorted(others - ours)),
            retains=RETAIN_ANNOTATION in (metadata.get("annotations") or {}),
        )

    def digest(self, manager: str) -> str:
        """Digest of what one of our field managers has set; empty where it has set nothing."""
        return dict(self.applied).get(manager, "")


def is_ours(manager: str) -> bool:
    """Whether a field manager's name is one of ours."""
    return manager == FIELD_MANAGER or manager.startswith(FIELD_MANAGER + ":")


def field_manager(name: str, *, merges: bool) -> str:
    """The field manager for an object's target: of its own where several objects may merge into one Secret."""
    if not merges:
        return FIELD_MANAGER
    return (
        f"{FIELD_MANAGER}:{name}"
        if len(name) <= 100
        else f"{FIELD_MANAGER}:{hashlib.sha256(name.encode()).hexdigest()}"
    )


@dataclass(slots=True)
class Known:
    """One EncryptedSecret. ``body`` is the object as JSON while there is work, else None."""

    uid: str
    generation: int
    version: int
    recorded: Recorded
    target: str
    merges: bool
    inject: bool
    suspended: bool
    retains: bool = False
    created: str = ""
    rewrap_asked: bool | None = None
    opened_by: Holdings = ()
    """What opened it last, where its spec names that no more: the target still holds what came of it."""
    recheck: bool = False
    """Whether the rules of its keys have changed since it was last looked at."""
    body: bytes | None = field(default=None, repr=False)

    def is_settled(self, seen: Seen | None, name: str) -> bool:
        """Nothing has changed since the status was written: this is all that an unchanged object ever costs."""
        recorded = self.recorded
        if recorded.observed_generation != self.generation:
            return False
        if self.suspended:
            return recorded.reason in (Reason.SUSPENDED, Reason.APPLIED, Reason.INJECTABLE) and recorded.message != ""
        if recorded.ready != "True":
            return False
        if self.inject:
            return recorded.reason == Reason.INJECTABLE and (self.retains or seen is None or seen.owner != name)
        if recorded.reason != Reason.APPLIED or recorded.target_name != self.target or seen is None:
            return False
        if seen.uid != recorded.target_uid:
            return False
        if seen.foreign_data and not self.merges:
            return False
        # A foreign label bumps the version but leaves the digest of our fields alone: that is no drift.
        digest = seen.digest(field_manager(name, merges=self.merges))
        return seen.version == recorded.target_version or (digest != "" and digest == recorded.applied_fields)


class Ledger:
    """All records, and the queue that gets the keys of objects with work."""

    def __init__(
        self,
        queue: KeyedQueue,
        on_holdings: Callable[[Key, Holdings, Holdings], None] = lambda key, before, after: None,
    ) -> None:
        self._queue = queue
        self._on_holdings = on_holdings
        self.inventory = Inventory()
        self._objects: dict[Key, Known] = {}
        self._secrets: dict[Key, Seen] = {}
        self._by_target: dict[Key, set[Key]] = {}
        self._gone: dict[Key, int] = {}
        """When Secrets that are gone were last known to be gone: an answer to an older write of ours may come later."""
        self.deleted: dict[Key, Known] = {}
        """Objects that are gone but whose traces in other people's Secrets are still to be removed."""

    def observe_object(self, raw: Json) -> None:
        """Takes in an EncryptedSecret from the feed."""
        metadata, spec = raw["metadata"], raw.get("spec")
        spec = spec if isinstance(spec, dict) else {}
        key = Key(metadata["namespace"], metadata["name"])
        version = int(metadata["resourceVersion"])
        before = self._objects.get(key)
        if before and before.uid == metadata["uid"] and version <= before.version:
            return
        target = spec.get("target")
        target = target if isinstance(target, dict) else {}
        known = Known(
            uid=metadata["uid"], generation=metadata.get("generation", 0), version=version,
            recorded=Recorded.parse(raw.get("status")), target=str(target.get("name") or key.name),
            merges=target.get("creationPolicy") == "Merge", inject=spec.get("delivery") == "Inject",
            suspended=bool(spec.get("suspend")),
            retains=target.get("deletionPolicy") == "Retain", created=str(metadata.get("creationTimestamp", "")),
            rewrap_asked=_ASKED.get((metadata.get("annotations") or {}).get(REWRAP_ANNOTATION, "")),
        )  # fmt: skip
        if before:
            self._forget_target(key, before.target)
            known.recheck = before.recheck
        self._objects[key] = known
        self._by_target.setdefault(Key(key.namespace, known.target), set()).add(key)
        holdings = read_holdings(raw)
        still = {held.spec.key_id for held in holdings}
        known.opened_by = tuple(Held(use, use) for use in read_openers(raw) if use.key_id not in still)
        self._hold(key, holdings, asked_anew=before is not None and before.rewrap_asked != known.rewrap_asked)
        if known.is_settled(self.target_of(key), key.name):
            return
        known.body = json.dumps(raw, separators=(",", ":")).encode()
        changed = before is None or before.generation != known.generation or before.uid != known.uid
        if changed:
            fresh = known.recorded.observed_generation != known.generation
            self._queue.add(key, Lane.FRONT if fresh else Lane.BACK)
        elif before and before.recorded != known.recorded and not self._queue.backlog.is_taken(key):
            # Somebody else has written the status. (An echo of our own write is known already, or its object is in a
            # worker's hands: it must not push a failing object past its backoff.)
            self._queue.add(key, Lane.BACK)

    def vanish_object(self, key: Key, version: int = 0) -> None:
        """The EncryptedSecret is gone."""
        known = self._objects.pop(key, None)
        if known is None:
            return
        self._forget_target(key, known.target)
        self._on_holdings(key, self.inventory.drop(key), ())
        self._queue.drop(key)
        if known.merges and not known.retains:
            self.deleted[key] = known
            self._queue.add(key)
        for rival in self._by_target.get(Key(key.namespace, known.target), ()):
            self._queue.add(rival)

    def observe_secret(self, raw: Json) -> None:
        """Takes in the metadata of one of our Secrets from the feed."""
        metadata = raw["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        seen = Seen.parse(metadata)
        before = self._secrets.get(key)
        if before and before.uid == seen.uid and int(seen.version) <= int(before.version):
            return
        self._secrets[key] = seen
        self._recheck(key)

    def vanish_secret(self, key: Key, version: int = 0) -> None:
        """A Secret of ours is gone, or carries our label no more, as of a resource version."""
        self._gone[key] = version
        if len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]
        if self._secrets.pop(key, None):
            self._recheck(key)

    def record(self, key: Key, uid: str, generation: int, version: int, recorded: Recorded) -> None:
        """Takes in what a worker has just written to an object's status, before the feed shows it."""
        known = self._objects.get(key)
        if known is None or known.uid != uid or known.generation != generation:
            return
        known.version = max(known.version, version)
        known.recorded = recorded
        if known.is_settled(self.target_of(key), key.name):
            known.body = None
        elif recorded.ready == "True":
            # The target has changed again between our write and this record.
            self._queue.add(key)

    def record_rewrapped(self, key: Key, uid: str, over: int, version: int, holdings: Holdings) -> None:
        """Takes in the newer wrappings that were just written to an object's status, before the feed shows them.

        :param over: the resource version that they were written over. Where it is not the one that is known here,
            somebody else's change lies in between, which only the feed can tell: then it tells of this write too
        """
        known = self._objects.get(key)
        if known and known.uid == uid and known.version == over:
            known.version = version
            known.body = None  # It shows the status of before: whoever needs the object reads it anew.
            self._hold(key, holdings)

    def recheck(self, keys: Iterable[Key], is_suspect: Callable[[Holdings, str], bool]) -> None:
        """Has objects looked at again after the rules or states of their keys changed, where that can matter."""
        for key in keys:
            known = self._objects.get(key)
            if known and is_suspect((*self.inventory.of(key), *known.opened_by), key.namespace):
                known.recheck = True
                self._queue.add(key, Lane.BACK)
            elif known and known.recorded.reason in WAITS_FOR_KEY:
                self._queue.add(key, Lane.BACK)

    def opened_with(self, key_ids: Iterable[str]) -> list[Key]:
        """The objects that one of these keys opened last, though their specs name it no more."""
        wanted = {resource_of(key_id) for key_id in key_ids}
        return [
            key
            for key, known in self._objects.items()
            if any(resource_of(held.spec.key_id) in wanted for held in known.opened_by)
        ]

    def record_secret(self, key: Key, seen: Seen) -> None:
        """Takes in what a worker has just written, unless the feed has shown something later already."""
        if int(seen.version) < self._gone.get(key, 0):
            self._recheck(key)
            return
        before = self._secrets.get(key)
        if before is None or before.uid != seen.uid or int(before.version) <= int(seen.version):
            self._secrets[key] = seen

    def forget_secret(self, key: Key, uid: str) -> None:
        """Takes in that a worker has just deleted a Secret, unless there is another one by that name already."""
        before = self._secrets.get(key)
        if before and before.uid == uid:
            del self._secrets[key]
            self._recheck(key)

    def get(self, key: Key) -> Known | None:
        """The record of an object."""
        return self._objects.get(key)

    def target_of(self, key: Key) -> Seen | None:
        """The Secret that an object's target names, if it is one of ours."""
        known = self._objects.get(key)
        return self._secrets.get(Key(key.namespace, known.target)) if known else None

    def secret(self, key: Key) -> Seen | None:
        """A Secret of ours by its own name."""
        return self._secrets.get(key)

    def keys(self) -> Iterable[Key]:
        """All objects."""
        return self._objects.keys()

    def secret_keys(self) -> Iterable[Key]:
        """All Secrets of ours."""
        return self._secrets.keys()

    def states(self) -> Counter[str]:
        """How many objects have which reason; those never decided on count as Pending."""
        return Counter(known.recorded.reason or "Pending" for known in self._objects.values())

    def orphans(self) -> list[tuple[Key, str, Seen]]:
        """Secrets with fields of a merging object that is gone: namespace and name, field manager, metadata."""
        managers = {
            (key.namespace, field_manager(key.name, merges=True))
            for key, known in self._objects.items()
            if known.merges
        }
        return [
            (key, manager, seen)
            for key, seen in self._secrets.items()
            for manager, _ in seen.applied
            if manager != FIELD_MANAGER and (key.namespace, manager) not in managers and not seen.retains
        ]

    def _hold(self, key: Key, holdings: Holdings, *, asked_anew: bool = False) -> None:
        before = self.inventory.of(key)
        if self.inventory.put(key, holdings) or asked_anew:
            self._on_holdings(key, before, holdings)

    def _recheck(self, secret: Key) -> None:
        for key in self._by_target.get(secret, ()):
            known = self._objects[key]
            if known.recorded.ready == "True" and known.is_settled(self._secrets.get(secret), key.name):
                continue
            if known.recorded.reason in (
                Reason.APPLIED,
                Reason.TARGET_CONFLICT,
                Reason.TARGET_MISSING,
                Reason.INJECTABLE,
            ):
                self._queue.add(key)

    def _forget_target(self, key: Key, target: str) -> None:
        rivals = self._by_target.get(Key(key.namespace, target))
        if rivals:
            rivals.discard(key)
            if not rivals:
                del self._by_target[Key(key.namespace, target)]
