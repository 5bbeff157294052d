"""One turn of one EncryptedSecret: gather, decide, apply, record.

Called by the workers with keys from the queue. At most two API writes for a change: the Secret, then the status. If
the process dies between them, the next turn finds its own Secret, applies the same content (which the API server takes
as no change) and writes the status.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from kmseal.cluster.events import Announcer
from kmseal.cluster.holdings import read_openers
from kmseal.cluster.keys import Bar, Keys
from kmseal.cluster.names import FIELD_MANAGER, Key
from kmseal.cluster.opening import GuardedKeyring, open_object
from kmseal.cluster.reasons import HEALS_WITH_KMS, WAITS_FOR_SPEC, Reason, reason_of_writing
from kmseal.errors import Conflict, KmsealError, Refused, Throttled, WrongBinding
from kmseal.kube import ENCRYPTED_SECRETS, SECRETS, KubeClient
from kmseal.manifest import EncryptedSecret
from kmseal.rewrapped import Rewrapped, live, openers, read_rewrapped
from kmseal_operator.decide import Inputs, Open, Outcome, Report, Write, decide
from kmseal_operator.events import announce
from kmseal_operator.ledger import Known, Ledger, Seen, field_manager
from kmseal_operator.metrics import Metrics
from kmseal_operator.queue import KeyedQueue
from kmseal_operator.status import manager_of, record, release_body, secret_body, status_patch

_TURNS_MAX: Final = 6  # Open, Look, a conflict, Look again, a replacement: more than that is a fight, so back off.
_IMMUTABLE_FIELDS: Final = ("type", "data", "immutable", "stringData")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """One object as it was read for a turn."""

    object: EncryptedSecret | KmsealError
    version: int
    """The resource version that it was read at, as far as the ledger knew."""
    rewrapped: tuple[Rewrapped, ...] = ()
    prunes: bool = False
    """Whether the status holds newer wrappings that replace nothing any more."""
    bar: Bar | None = None
    taken: KmsealError | None = None
    """Why the key that opened it last opens nothing any more, where targets are to go with it."""
    spared: bool = False
    """Whether another registered key may open it."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a turn ended: what the condition is to say, and what was done."""

    outcome: Outcome
    written: tuple[Write, str, Seen] | None = None
    revoked: bool = False


class Reconciler:
    """The workers' function, with all that it needs."""

    def __init__(
        self,
        *,
        kube: KubeClient,
        keyring: GuardedKeyring,
        keys: Keys,
        ledger: Ledger,
        queue: KeyedQueue,
        announcer: Announcer,
        metrics: Metrics,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._kube = kube
        self._keyring = keyring
        self._keys = keys
        self._ledger = ledger
        self._queue = queue
        self._announcer = announcer
        self._metrics = metrics
        self._now = now
        self._clock = clock

    async def work(self) -> None:
        """A worker: takes keys for ever. An unexpected error costs one object a retry, never the worker."""
        while True:
            key = await self._queue.take()
            try:
                await self.reconcile(key)
            except Exception as error:  # noqa: BLE001  # The last line of defence; its text may quote anything.
                self._look_again(key)
                delay = self._queue.failed(key, "Unexpected")
                _log.error(
                    "unexpected error",
                    extra={"object": str(key), "error": type(error).__name__, "retry_seconds": delay},
                )
                _log.debug("unexpected error at %s", _where(error), extra={"object": str(key)})

    async def reconcile(self, key: Key) -> None:
        """One turn; ends with the key done or failed in the queue."""
        known = self._ledger.get(key)
        if known is None:
            gone = self._ledger.deleted.get(key)
            if gone is None or await self._release(key, gone):
                self._queue.done(key)
            return
        gone = self._ledger.deleted.get(key)
        if gone and not await self._release(key, gone):
            return
        settled = known.is_settled(self._ledger.target_of(key), key.name)
        if settled and not known.recheck:
            self._queue.done(key)
            return
        try:
            gathered = await self._gather(key, known)
        except KmsealError as error:
            self._look_again(key)
            self._retry(key, reason_of_writing(error), error.message, None)
            return
        if gathered is None or (settled and not (gathered.bar or gathered.taken)):
            self._queue.done(key)
            return
        try:
            ending = await self._carry_out(key, known, gathered, settled=settled)
        except KmsealError as error:
            ending = _Ending(Outcome(False, reason_of_writing(error), str(error)))
            hint = error.retry_after if isinstance(error, Throttled) else None
        else:
            hint = None
        try:
            await self._record(key, known, gathered, ending)
        except KmsealError as error:
            self._look_again(key)
            self._retry(key, reason_of_writing(error), error.message, None)
            return
        outcome = ending.outcome
        self._metrics.reconciled(outcome.reason)
        if outcome.ready or outcome.reason in WAITS_FOR_SPEC:
            self._queue.done(key)
            _log.debug(
                "reconciled", extra={"object": str(key), "reason": outcome.reason, "generation": known.generation}
            )
        else:
            self._retry(key, outcome.reason, outcome.message, hint)

    async def _gather(self, key: Key, known: Known) -> _Gathered | None:
        """Reads the object; None where there is none any more."""
        version = known.version
        raw = await self._body(key, known)
        known.recheck = False
        if raw is None:
            return None
        taken = self._taken(raw, key.namespace)
        try:
            object_ = EncryptedSecret.parse(raw)
        except KmsealError as error:
            return _Gathered(error, version, taken=taken)
        recorded = read_rewrapped(raw.get("status"))
        rewrapped = live(object_, recorded)
        bar = self._keys.bar(object_, rewrapped)
        if bar and not bar.revokes and _is_misplaced(object_):
            bar = None  # Opening will say so, before any key is asked: that is what somebody has to mend first.
        return _Gathered(
            object_, version, rewrapped, prunes=rewrapped != recorded, bar=bar, taken=taken,
            # A key that nobody registered may be made up, so that a fault in reaching it would never be over.
            spared=any(
                self._keys.covering(key_id) and not self._keys.refusal(key_id, key.namespace)
                for data_key in object_.used_data_keys
                for key_id in {wrapping.key_id for wrapping in openers(data_key, rewrapped)}
            ),
        )  # fmt: skip

    def _taken(self, raw: dict[str, Any], namespace: str) -> KmsealError | None:
        """Whether a key that has opened the object was shut and takes targets along: by what the status says of it."""
        revoked = [use.key_id for use in read_openers(raw) if self._keys.is_revoked(use.key_id)]
        return self._keys.refusal(revoked[0], namespace) if revoked else None

    async def _carry_out(self, key: Key, known: Known, gathered: _Gathered, *, settled: bool) -> _Ending:
        """Asks and acts until there is an outcome."""
        object_ = gathered.object
        inputs = self._inputs(key, known, gathered)
        room_made = False
        for _ in range(_TURNS_MAX):
            decision = decide(inputs)
            if isinstance(decision, Report):
                await self._leave_former(key, known, decision)
                return _Ending(decision.outcome, revoked=decision.revoked)
            assert isinstance(object_, EncryptedSecret), "what cannot be parsed is only reported"  # noqa: S101
            name = object_.target.name
            if isinstance(decision, Open):
                seconds = self._metrics.unwrap_seconds.observe
                opened = await open_object(
                    object_, gathered.rewrapped, self._keyring, clock=self._clock, on_unwrap=seconds
                )
                inputs = replace(inputs, opened=opened)
                continue
            if isinstance(decision, Write) and settled:
                # A key of several was shut: that another one opens it is all that had to be found out.
                return _Ending(decision.outcome)
            if isinstance(decision, Write):
                try:
                    seen = await self._apply(object_, known.uid, decision)
                except (Conflict, Refused) as error:
                    if error.reason == "FieldConflict":
                        return _Ending(Outcome(False, Reason.TARGET_CONFLICT, _field_conflict(name, error)))
                    if _is_immutable(error) and decision.ours and not room_made:
                        await self._make_room(object_, known.uid, decision)
                        inputs, room_made = replace(inputs, target=None, looked=True), True
                        continue
                    if isinstance(error, Refused) and error.field != "metadata.uid":
                        raise
                    # Another Secret has that name by now, or none: look, and decide anew.
                else:
                    await self._leave_former(key, known, decision)
                    return _Ending(decision.outcome, (decision, name, seen))
            inputs = self._with_target(inputs, key, await self._look(key.namespace, name))
        raise Conflict("the target keeps changing while it is written", remedy="find out who else writes it")

    def _inputs(self, key: Key, known: Known, gathered: _Gathered) -> Inputs:
        target = self._ledger.target_of(key)
        former_name = known.recorded.target_name
        has_moved = former_name and (former_name != known.target or known.inject)
        return Inputs(
            object=gathered.object,
            name=key.name,
            uid=known.uid,
            recorded=known.recorded,
            target=target,
            bar=gathered.bar,
            taken=gathered.taken,
            spared=gathered.spared,
            merges=known.merges,
            inject=known.inject,
            owner_lives=self._lives(key.namespace, target),
            former=self._ledger.secret(Key(key.namespace, former_name)) if has_moved else None,
        )

    def _with_target(self, inputs: Inputs, key: Key, target: Seen | None) -> Inputs:
        return replace(inputs, target=target, looked=True, owner_lives=self._lives(key.namespace, target))

    def _lives(self, namespace: str, target: Seen | None) -> bool:
        return (
            bool(target and target.owner)
            and self._ledger.get(Key(namespace, target.owner if target else "")) is not None
        )

    async def _body(self, key: Key, known: Known) -> dict[str, Any] | None:
        if known.body is not None:
            body: dict[str, Any] = json.loads(known.body)
            return body
        return await self._kube.get(ENCRYPTED_SECRETS, key.namespace, key.name)

    async def _look(self, namespace: str, name: str) -> Seen | None:
        answer = await self._kube.get(SECRETS, namespace, name, metadata=True)
        return Seen.parse(answer["metadata"]) if answer else None

    async def _apply(self, object_: EncryptedSecret, uid: str, decision: Write) -> Seen:
        namespace, name = object_.namespace, object_.target.name
        if decision.prune:
            await self._kube.merge(
                SECRETS, namespace, name, {"metadata": {"uid": decision.uid}, "data": dict.fromkeys(decision.prune)},
                manager=FIELD_MANAGER,
            )  # fmt: skip
        body = secret_body(object_, uid, decision)
        answer = await self._kube.apply(
            SECRETS, namespace, name, body, manager=manager_of(object_), force=decision.force
        )
        seen = Seen.parse(answer["metadata"])
        self._ledger.record_secret(Key(namespace, name), seen)
        return seen

    async def _make_room(self, object_: EncryptedSecret, uid: str, decision: Write) -> None:
        """Deletes a target whose type or immutability forbids the change, once its successor is known to be valid."""
        body = secret_body(object_, uid, replace(decision, uid=""))
        body["metadata"].pop("resourceVersion")
        body["metadata"]["generateName"] = body["metadata"].pop("name")[:240] + "-"
        await self._kube.create(SECRETS, object_.namespace, body, manager=FIELD_MANAGER, dry_run=True)
        await self._kube.delete(SECRETS, object_.namespace, object_.target.name, uid=decision.uid)

    async def _leave_former(self, key: Key, known: Known, decision: Report | Write) -> None:
        """Removes the target of an earlier generation, or from it what a merging object had set there."""
        former = known.recorded.target_name
        remove = decision.remove
        if isinstance(decision, Report) and decision.revoked and former and not (remove or known.merges):
            # Without our label a Secret is on no feed: taking that off must not save it from being taken away.
            seen = await self._look(key.namespace, former)
            ours = seen and (seen.owner == key.name or known.uid in seen.owner_uids)
            remove = seen if seen and ours and seen.uid == known.recorded.target_uid else None
        if remove:
            await self._remove(key.namespace, former or known.target, remove)
        elif known.merges:
            manager = field_manager(key.name, merges=True)
            moved = former and decision.outcome.ready and (former != known.target or known.inject)
            if isinstance(decision, Report) and decision.revoked:
                seen = self._ledger.secret(Key(key.namespace, former or known.target))
                if former or (seen and seen.digest(manager)):
                    await self.release(Key(key.namespace, former or known.target), manager)
            elif moved:
                await self.release(Key(key.namespace, former), manager)

    async def _remove(self, namespace: str, name: str, seen: Seen) -> None:
        await self._kube.delete(SECRETS, namespace, name, uid=seen.uid)
        self._ledger.forget_secret(Key(namespace, name), seen.uid)

    async def _record(self, key: Key, known: Known, gathered: _Gathered, ending: _Ending) -> None:
        now, before, written = self._now(), known.recorded, ending.written
        manager = field_manager(key.name, merges=known.merges)
        target = (written[1], written[2]) if written else None
        recorded = record(
            ending.outcome, known.generation, before, now, target=target, manager=manager, revoked=ending.revoked
        )
        if recorded == before:
            return
        current = self._ledger.get(key)
        if current is None or (current.uid, current.generation) != (known.uid, known.generation):
            # Another generation, or another object of that name, is waiting already: it gets a turn of its own.
            return
        patch = status_patch(
            recorded, now, written=written[0] if written else None,
            # Only what was read at this very version may be dropped: the re-wrapper writes there, too.
            rewrapped=gathered.rewrapped if gathered.prunes and current.version == gathered.version else None,
        )  # fmt: skip
        answer = await self._kube.patch_status(
            ENCRYPTED_SECRETS, key.namespace, key.name, patch, version=current.version, manager=FIELD_MANAGER
        )
        if answer is None:
            return
        version = int(answer["metadata"]["resourceVersion"])
        self._ledger.record(key, known.uid, known.generation, version, recorded)
        await announce(self._announcer, key, known.uid, before, recorded)

    async def _release(self, key: Key, gone: Known) -> bool:
        """Removes from somebody else's Secret what a deleted merging object had set; False when it must be retried."""
        live = self._ledger.get(key)
        if live is None or live.target != gone.target:
            try:
                await self.release(Key(key.namespace, gone.target), field_manager(key.name, merges=True))
            except KmsealError as error:
                self._retry(key, reason_of_writing(error), error.message, None)
                return False
        self._ledger.deleted.pop(key, None)
        return True

    async def release(self, secret: Key, manager: str) -> None:
        """Gives up all fields that ``manager`` has set in a Secret, which removes those nobody else has set."""
        seen = await self._look(secret.namespace, secret.name)
        if seen and seen.digest(manager):
            body = release_body(secret.namespace, secret.name, seen.uid)
            await self._kube.apply(SECRETS, secret.namespace, secret.name, body, manager=manager, force=True)

    def _look_again(self, key: Key) -> None:
        """What could not be finished is done anew, also where the status still says that all is well."""
        if known := self._ledger.get(key):
            known.recheck = True

    def _retry(self, key: Key, reason: Reason, message: str, at_least: float | None) -> None:
        cap = 30.0 if reason in HEALS_WITH_KMS or reason is Reason.API_UNAVAILABLE else None
        delay = self._queue.failed(key, reason, cap=cap, at_least=at_least or 0.0)
        _log.warning(
            "not ready: %s", message, extra={"object": str(key), "reason": reason, "retry_seconds": round(delay, 1)}
        )


def _is_misplaced(object_: EncryptedSecret) -> bool:
    try:
        object_.require_place()
    except WrongBinding:
        return True
    return False


def _is_immutable(error: KmsealError) -> bool:
    fields = error.field.split(", ") if isinstance(error, Refused) else []
    return any(field.split("[")[0].split(".")[0] in _IMMUTABLE_FIELDS for field in fields)


def _field_conflict(name: str, error: KmsealError) -> str:
    return f"somebody else sets {error.field or 'the same fields'} in the Secret {name}; rename the value"


def _where(error: BaseException) -> str:
    """Where an error was raised: file and line, never its text."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
