"""What is to be done about one EncryptedSecret: a pure, ordered chain of rules.

``reconcile`` gathers the inputs, asks, carries the decision out, and asks again when a decision was to find out more.
There is no input, output or clock here. The comment above each rule is its specification; the first that holds decides.
"""

from dataclasses import dataclass
from typing import Final

from kmseal.cluster.keys import Bar
from kmseal.cluster.opening import Opened
from kmseal.cluster.reasons import Reason, reason_of_opening
from kmseal.errors import KmsealError, Retryable
from kmseal.manifest import Delivery, EncryptedSecret
from kmseal.target import CreationPolicy, DeletionPolicy
from kmseal_operator.ledger import Recorded, Seen


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that decisions depend on."""

    object: EncryptedSecret | KmsealError
    name: str
    uid: str
    recorded: Recorded
    target: Seen | None
    bar: Bar | None = None
    """Why the object may not be opened here, as far as is known without asking KMS."""
    taken: KmsealError | None = None
    """Why the key that opened it last opens nothing any more, where its KMSKey says that targets go with it."""
    spared: bool = False
    """Whether it has a wrapping under another key that is registered, which may open it when a fault is over."""
    merges: bool = False
    """Whether its target is somebody else's Secret."""
    inject: bool = False
    looked: bool = False
    """Whether ``target`` was read from the API server just now, so that None means that there is no such Secret."""
    owner_lives: bool = False
    """Whether the EncryptedSecret that the target's annotation names exists."""
    former: Seen | None = None
    """The Secret that the status names, where the spec names another now or none."""
    opened: Opened | KmsealError | None = None
    """None until it was tried."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the Ready condition is to say."""

    ready: bool
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Open:
    """Unwrap the data keys, open the values, render the templates; then decide again."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read the target's metadata from the API server; then decide again."""


@dataclass(frozen=True, slots=True)
class Report:
    """Write nothing but the status, and remove the former target where one is named."""

    outcome: Outcome
    remove: Seen | None = None
    revoked: bool = False
    """Whether the recorded target is taken away: ``remove`` names it where this object owns it."""


@dataclass(frozen=True, slots=True)
class Write:
    """Apply the target, remove the former one where one is named, and write the status."""

    opened: Opened
    uid: str
    """The uid that the target must have; empty when it must not exist."""
    force: bool
    owned: bool
    ours: bool
    """Whether the target that is there was made by this object: only then may it be replaced."""
    prune: tuple[str, ...]
    """Data entries of an owned target that only others have set."""
    remove: Seen | None
    outcome: Outcome


Decision = Open | Look | Report | Write

_APPLIED: Final = Outcome(True, Reason.APPLIED, "the Secret holds the values")
_INJECTABLE: Final = Outcome(True, Reason.INJECTABLE, "the values can be opened for pods; there is no Secret")


def decide(inputs: Inputs) -> Decision:
    """The decision for one object that is not settled."""
    object_ = inputs.object
    # A key that was shut to take its secrets away wins over whatever somebody writes into the object meanwhile: what
    # cannot be parsed, a suspension, a further wrapping that opens nothing.
    if inputs.bar and inputs.bar.revokes:
        return _revoke(inputs, inputs.bar.error)
    if inputs.taken and not isinstance(inputs.opened, Opened):
        if inputs.opened is None and not isinstance(object_, KmsealError) and not inputs.bar:
            return Open()
        if not (inputs.spared and isinstance(inputs.opened, Retryable)):
            return _revoke(inputs, inputs.taken)
    # An object that cannot be parsed touches nothing.
    if isinstance(object_, KmsealError):
        return Report(_failure(object_, inputs.recorded))
    # A suspended object touches nothing, but says whether its target was ever made.
    if object_.suspend:
        made = bool(inputs.recorded.target_uid)
        return Report(Outcome(made, Reason.SUSPENDED, "suspended by spec.suspend; the target is left as it is"))
    # A key that may not be used here opens nothing.
    if inputs.bar:
        return Report(_failure(inputs.bar.error, inputs.recorded))
    # A rival is known without opening anything.
    if object_.delivery is Delivery.SECRET and (conflict := _conflict(object_, inputs)):
        return Report(conflict)
    # Nothing is written before everything is open.
    if inputs.opened is None:
        return Open()
    # A fault while opening touches nothing: a working Secret keeps its values.
    if isinstance(inputs.opened, KmsealError):
        return Report(_failure(inputs.opened, inputs.recorded))
    former = inputs.former if _is_ours(inputs.former, object_.name, inputs.uid) else None
    if object_.target.deletion_policy is DeletionPolicy.RETAIN:
        former = None
    # Inject makes no Secret, and removes the one of an earlier delivery.
    if object_.delivery is Delivery.INJECT:
        return Report(_INJECTABLE, remove=former)
    return _place(object_, inputs, inputs.opened, former)


def _place(object_: EncryptedSecret, inputs: Inputs, opened: Opened, former: Seen | None) -> Decision:
    """Where and how an opened object is written."""
    target, policy = inputs.target, object_.target.creation_policy
    owned = policy is not CreationPolicy.MERGE
    if target is None:
        # Who may take over or merge must know first what is there.
        if policy is not CreationPolicy.OWNER and not inputs.looked:
            return Look()
        # Merging waits for the Secret, because creating it would make its real author fail.
        if policy is CreationPolicy.MERGE:
            return Report(
                Outcome(False, Reason.TARGET_MISSING, f"there is no Secret {object_.target.name} to merge into yet")
            )
        # Otherwise it is created, and the API server refuses if somebody else was first.
        return Write(opened, "", force=True, owned=True, ours=False, prune=(), remove=former, outcome=_APPLIED)
    ours = owned and _is_ours(target, object_.name, inputs.uid)
    prune = target.foreign_data if ours else ()
    return Write(opened, target.uid, force=owned, owned=owned, ours=ours, prune=prune, remove=former, outcome=_APPLIED)


def _revoke(inputs: Inputs, error: KmsealError) -> Report:
    """Takes the target away until the key is back."""
    outcome = Outcome(
        False, reason_of_opening(error), f"{error}; until then there is no Secret (onUnavailable: Remove)"
    )
    # Not by the status alone: a process may have died between making the target and saying so.
    target = inputs.former or (None if inputs.inject else inputs.target)
    owned = not inputs.merges and _is_ours(target, inputs.name, inputs.uid)
    return Report(outcome, remove=target if owned else None, revoked=True)


def _conflict(object_: EncryptedSecret, inputs: Inputs) -> Outcome | None:
    """Why the target may not be written, if so."""
    target, policy = inputs.target, object_.target.creation_policy
    if target is None or policy is CreationPolicy.MERGE or _is_ours(target, object_.name, inputs.uid):
        return None
    name = object_.target.name
    if target.owner and inputs.owner_lives:
        return Outcome(
            False, Reason.TARGET_CONFLICT,
            f"the Secret {name} belongs to the EncryptedSecret {target.owner}; give this one another spec.target.name",
        )  # fmt: skip
    if policy is CreationPolicy.ADOPT:
        return None
    return Outcome(
        False, Reason.TARGET_CONFLICT,
        f"the Secret {name} exists and is not ours; delete or rename it, or set spec.target.creationPolicy to Adopt or "
        "Merge in a new object",
    )  # fmt: skip


def _is_ours(target: Seen | None, name: str, uid: str) -> bool:
    return target is not None and (target.owner == name or uid in target.owner_uids)


def _failure(error: KmsealError, recorded: Recorded) -> Outcome:
    kept = "; the Secret keeps the values it has" if recorded.target_uid else ""
    return Outcome(False, reason_of_opening(error), f"{error}{kept}")
