"""Wraps data keys anew after a rotation: finds the work, paces it, and writes the result beside the object.

Told of new destinations by the keeper and of moved objects by the ledger. Every call is a background one: it takes
only what the budget has left over, so that a new object never waits for a rotation. The result goes to
``status.rewrapped``; ``spec`` belongs to Git and is never written. What is done is known by the status alone, so that a
restart goes on where it ended. Whether the object is Ready, and its target, are no business of this module.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from kmseal.cluster.holdings import Held, Holdings, KeyUse, read_holdings
from kmseal.cluster.keys import Keys
from kmseal.cluster.names import FIELD_MANAGER, Key
from kmseal.cluster.reasons import HEALS_WITH_KMS, reason_of_opening
from kmseal.errors import Conflict, KmsealError, Terminal, Throttled
from kmseal.kms.budget import in_background
from kmseal.kms.provider import Context, KeyDescription, Unwrapped
from kmseal.kube import ENCRYPTED_SECRETS, KubeClient
from kmseal.manifest import Algorithm, DataKey, EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, digest, live, openers, read_rewrapped
from kmseal_operator.backlog import Lane
from kmseal_operator.ledger import Known, Ledger
from kmseal_operator.metrics import Metrics
from kmseal_operator.moves import Moves
from kmseal_operator.queue import KeyedQueue

_WRITES_MAX: Final = 4
"""How often a status is written anew after somebody else was first, before the object goes to the back."""
_log = logging.getLogger(__name__)


class Rewrapping(Protocol):
    """The part of the keyring that re-wrapping needs."""

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        """Wraps the same data key under the primary version of a key."""
        ...

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context) -> Unwrapped:
        """Opens one of the wrappings of a data key."""
        ...

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        """Wraps a data key that the caller holds."""
        ...


@dataclass(frozen=True, slots=True)
class _Step:
    """One wrapping to make: in place of which one of the spec, from what, and to where."""

    data_key: DataKey
    replaced: Wrapping
    sources: tuple[Wrapping, ...]
    """The newest one, then the one of the spec, should the newest not open."""
    destination: KeyDescription


class Rewrapper:
    """The re-wrapper, with a queue of its own."""

    def __init__(
        self, kube: KubeClient, keyring: Rewrapping, keys: Keys, ledger: Ledger, queue: KeyedQueue, *,
        metrics: Metrics, touch: Callable[[Key], None],
    ) -> None:  # fmt: skip
        """:param touch: is told of objects that failed or were done, for the reports"""
        self._kube = kube
        self._keyring = keyring
        self._keys = keys
        self._moves = Moves(keys)
        self._ledger = ledger
        self._queue = queue
        self._metrics = metrics
        self._touch = touch
        self._failed: set[Key] = set()
        self._planned = False

    def plan(self) -> None:
        """Queues all objects that can move now: the oldest wrappings first, the oldest objects first among equals."""
        self._planned = True
        work: list[tuple[int, str, Key]] = []
        for holdings, keys in self._ledger.inventory.groups():
            age = self._moves.age(holdings)
            work.extend((age, known.created, key) for key in keys if (known := self._movable(key, holdings)))
        for _, _, key in sorted(work):
            self._queue.add(key, Lane.BACK)

    def on_holdings(self, key: Key, after: Holdings) -> None:
        """An object has changed what it holds, or what its annotation asks for."""
        if not after:
            self._queue.drop(key)
            self._failed.discard(key)
        elif self._planned and self._movable(key, after):
            # Until the first plan, objects come in the order of a list, which is not the order of work.
            self._queue.add(key, Lane.BACK)

    def failed(self) -> frozenset[Key]:
        """The objects whose last try failed."""
        return frozenset(self._failed)

    @property
    def pending(self) -> int:
        """How many objects wait for their turn or their next try."""
        return self._queue.backlog.ready + self._queue.backlog.delayed

    async def work(self) -> None:
        """A worker: takes objects for ever. An unexpected error costs one object a retry, never the worker."""
        while True:
            key = await self._queue.take()
            try:
                result = await self._rewrap(key)
            except Terminal as error:
                # Trying again would not help; a change of the object brings it back.
                self._note_failure(key, error.reason)
                self._queue.done(key)
                _log.warning("not re-wrapped: %s", error, extra={"object": str(key), "reason": error.reason})
            except KmsealError as error:
                self._note_failure(key, error.reason)
                hint = error.retry_after if isinstance(error, Throttled) else None
                # The words that are hastened when KMS answers again.
                reason = reason_of_opening(error)
                cap = 30.0 if reason in HEALS_WITH_KMS else None
                delay = self._queue.failed(key, reason, cap=cap, at_least=hint or 0.0)
                _log.warning(
                    "not re-wrapped: %s", error,
                    extra={"object": str(key), "reason": error.reason, "retry_seconds": round(delay, 1)},
                )  # fmt: skip
            except Exception as error:  # noqa: BLE001  # The last line of defence; its text may quote anything.
                self._note_failure(key, "Unexpected")
                self._queue.failed(key, "Unexpected")
                _log.error("unexpected error", extra={"object": str(key), "error": type(error).__name__})
            else:
                self._failed.discard(key)
                self._queue.done(key)
                if result:
                    self._metrics.rewrapped("ok")

    def _note_failure(self, key: Key, reason: str) -> None:
        self._metrics.rewrapped(reason)
        if key not in self._failed:
            self._failed.add(key)
            self._touch(key)

    async def _rewrap(self, key: Key) -> bool:
        """One object; False where there was nothing to do."""
        known = self._ledger.get(key)
        if known is None or not self._movable(key, self._ledger.inventory.of(key)):
            return False
        raw = await self._kube.get(ENCRYPTED_SECRETS, key.namespace, key.name)
        if raw is None:
            return False
        object_ = EncryptedSecret.parse(raw)
        # Ciphertext that stands in the wrong place could not be opened under this object's context anyway.
        object_.require_place()
        before = live(object_, read_rewrapped(raw.get("status")))
        fresh: list[Rewrapped] = []
        failures: list[KmsealError] = []
        for step in self._steps(object_, before, asked=known.rewrap_asked):
            try:
                # Rules and states may have changed while others were waited for.
                sources = self._keys.usable(step.sources, key.namespace)
                wrapping = await self._wrap(object_, step, sources)
            except KmsealError as error:
                failures.append(error)
            else:
                fresh.append(Rewrapped(step.data_key.id, digest(step.replaced), wrapping))
        # What was made is kept, whatever became of the others: else each retry would make it again.
        written = bool(fresh) and await self._write(key, raw, object_, fresh)
        if failures:
            raise next((error for error in failures if not isinstance(error, Terminal)), failures[0])
        return written

    async def _wrap(self, object_: EncryptedSecret, step: _Step, sources: Sequence[Wrapping]) -> Wrapping:
        *others, last = sources
        with in_background():
            for source in others:
                try:
                    return await self._wrap_from(object_, step, source)
                except Terminal:
                    continue  # What the status holds does not open; what Git holds may.
            return await self._wrap_from(object_, step, last)

    async def _wrap_from(self, object_: EncryptedSecret, step: _Step, source: Wrapping) -> Wrapping:
        context = object_.place.encryption_context()
        if source.algorithm is not Algorithm.RSAES_OAEP_SHA_256:
            return await self._keyring.rewrap(source, step.destination.key_id, context, description=step.destination)
        # Sealed to a public key, a wrapping is bound to no place: copied from another object it would be given this
        # one's context, and whoever may open this one could open what it came from. Only a value that opens here,
        # under this place, shows that the data key is this object's own.
        data_key = (await self._keyring.unwrap([source], context)).data_key
        object_.require_own(step.data_key.id, data_key)
        return await self._keyring.wrap(step.destination.key_id, data_key, context)

    async def _write(self, key: Key, raw: dict[str, Any], object_: EncryptedSecret, fresh: Sequence[Rewrapped]) -> bool:
        """Adds the newer wrappings to the status; a lost race costs another write, never another KMS call."""
        for _ in range(_WRITES_MAX):
            # Of two that replace the same wrapping, the later counts.
            standing = live(object_, (*read_rewrapped(raw.get("status")), *fresh))
            if not any(item in standing for item in fresh):
                return False  # Git was faster: what these would have replaced is gone.
            status = _status(raw, object_, standing)
            version = int(raw["metadata"]["resourceVersion"])
            try:
                answer = await self._kube.patch_status(
                    ENCRYPTED_SECRETS, key.namespace, key.name, status, version=version, manager=FIELD_MANAGER
                )
            except Conflict:
                latest = await self._kube.get(ENCRYPTED_SECRETS, key.namespace, key.name)
                if latest is None or latest["metadata"]["uid"] != raw["metadata"]["uid"]:
                    return False
                raw, object_ = latest, EncryptedSecret.parse(latest)
                continue
            if answer is None:
                return False
            holdings = read_holdings({**raw, "status": {**(raw.get("status") or {}), **status}})
            written_at = int(answer["metadata"]["resourceVersion"])
            self._ledger.record_rewrapped(key, raw["metadata"]["uid"], version, written_at, holdings)
            return True
        raise Conflict("the object keeps changing while its status is written", remedy="find out who else writes it")

    def _steps(self, object_: EncryptedSecret, before: Sequence[Rewrapped], *, asked: bool | None) -> Iterator[_Step]:
        newest = {(item.data_key_id, item.digest): item.wrapping for item in before}
        for data_key in object_.data_keys:
            for wrapping in data_key.wrappings:
                stand_in = newest.get((data_key.id, digest(wrapping)))
                source = stand_in or wrapping
                use = KeyUse(source.key_id, source.key_version_id)
                if destination := self._moves.destination(use, object_.namespace, asked=asked):
                    sources = (source, wrapping) if stand_in else (wrapping,)
                    yield _Step(data_key, wrapping, sources, destination)

    def _movable(self, key: Key, holdings: Sequence[Held]) -> Known | None:
        """The record of an object that can move now; None of one that cannot."""
        known = self._ledger.get(key)
        if known and any(
            self._moves.destination(held.newest, key.namespace, asked=known.rewrap_asked) for held in holdings
        ):
            return known
        return None


def _status(raw: dict[str, Any], object_: EncryptedSecret, standing: Sequence[Rewrapped]) -> dict[str, Any]:
    """The part of the status that changes; which versions open the object is only said where it was opened before."""
    status: dict[str, Any] = {"rewrapped": [item.to_dict() for item in standing]}
    if (raw.get("status") or {}).get("keys"):
        first = [openers(data_key, standing)[0] for data_key in object_.used_data_keys]
        uses = dict.fromkeys((wrapping.key_id, wrapping.key_version_id) for wrapping in first)
        status["keys"] = [{"keyId": key_id, "keyVersionId": version} for key_id, version in uses]
    return status
