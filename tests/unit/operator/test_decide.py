"""The whole chain of decisions, rule by rule, and what no input may ever bring about."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal import errors
from kmseal.cluster.holdings import KeyUse
from kmseal.cluster.keys import Bar
from kmseal.cluster.reasons import Reason
from kmseal.envelope import Scope
from kmseal.errors import AccessDenied, KeyUnusable, KmsealError, Malformed, Unavailable
from kmseal.manifest import Delivery, EncryptedSecret
from kmseal.redacted import Redacted
from kmseal.target import CreationPolicy, DeletionPolicy, Target
from kmseal_operator.decide import Decision, Inputs, Look, Open, Opened, Report, Write, decide
from kmseal_operator.ledger import Recorded, Seen

OWNER, MERGE, ADOPT = CreationPolicy.OWNER, CreationPolicy.MERGE, CreationPolicy.ADOPT
DELETE, RETAIN = DeletionPolicy.DELETE, DeletionPolicy.RETAIN
OPENED = Opened({"a": Redacted(b"x")}, (KeyUse("local:dev", "v1"),))
NONE = Recorded()
MADE = Recorded(target_name="db", target_uid="s-1")


def secret(owner: str = "", *, uids: tuple[str, ...] = (), foreign: tuple[str, ...] = (), uid: str = "s-1") -> Seen:
    return Seen(uid, "7", owner, frozenset(uids), (), foreign)


OURS = secret("db")
OURS_BY_REFERENCE = secret(uids=("o-1",))
RIVALS = secret("other")
NOBODYS = secret()
FORMER = secret("db", uid="s-0")
FORBIDDEN = Bar(AccessDenied("not for prod", reason=Reason.NAMESPACE_NOT_ALLOWED), revokes=False)
RETAINING = Bar(KeyUnusable("the key is Disabled", remedy="enable it"), revokes=False)
REVOKING = Bar(KeyUnusable("the key is Disabled", remedy="enable it"), revokes=True)
MOVED = Recorded(target_name="old", target_uid="s-0")


def inputs(
    policy: CreationPolicy = OWNER,
    deletion: DeletionPolicy = DELETE,
    *,
    delivery: Delivery = Delivery.SECRET,
    suspend: bool = False,
    **more: Any,
) -> Inputs:
    target = Target("db", creation_policy=policy, deletion_policy=deletion)
    object_ = EncryptedSecret("prod", "db", Scope.STRICT, (), {}, target, delivery, suspend)
    known = Inputs(
        object=object_, name="db", uid="o-1", recorded=NONE, target=None, opened=OPENED, merges=policy is MERGE,
        inject=delivery is INJECT,
    )  # fmt: skip
    return replace(known, **more)


def told(decision: Decision) -> tuple[Any, ...]:
    """A decision as the tables below write it."""
    match decision:
        case Report(outcome, remove):
            return "report", outcome.ready, outcome.reason, remove
        case Write():
            return "write", decision.uid, decision.force, decision.owned, decision.ours, decision.remove
    return (type(decision).__name__.lower(),)


def report(reason: Reason, *, ready: bool = False, remove: Seen | None = None) -> tuple[Any, ...]:
    return "report", ready, reason, remove


def write(uid: str = "s-1", *, owned: bool = True, ours: bool = False, remove: Seen | None = None) -> tuple[Any, ...]:
    return "write", uid, owned, owned, ours, remove


CONFLICT = report(Reason.TARGET_CONFLICT)
INJECT = Delivery.INJECT

CHAIN: dict[str, tuple[Inputs, tuple[Any, ...]]] = {
    "cannot be parsed": (inputs(object=Malformed("x"), target=OURS, former=FORMER), report(Reason.INVALID)),
    "suspended before it was ever made": (inputs(suspend=True, former=FORMER), report(Reason.SUSPENDED)),
    "suspended after it was made": (
        inputs(suspend=True, recorded=MADE, former=FORMER),
        report(Reason.SUSPENDED, ready=True),
    ),
    "suspended wins over a rival": (
        inputs(suspend=True, target=RIVALS, owner_lives=True),
        report(Reason.SUSPENDED),
    ),
    "a rival is reported without opening": (inputs(target=RIVALS, owner_lives=True, opened=None), CONFLICT),
    "nothing is known yet": (inputs(opened=None), ("open",)),
    "inject is opened too": (inputs(delivery=INJECT, opened=None), ("open",)),
    "inject does not mind a rival": (
        inputs(delivery=INJECT, target=RIVALS, owner_lives=True),
        report(Reason.INJECTABLE, ready=True),
    ),
    "inject removes the earlier target": (
        inputs(delivery=INJECT, former=FORMER),
        report(Reason.INJECTABLE, ready=True, remove=FORMER),
    ),
    "inject retains the earlier target": (
        inputs(OWNER, RETAIN, delivery=INJECT, former=FORMER),
        report(Reason.INJECTABLE, ready=True),
    ),
    "inject leaves what is not ours": (
        inputs(delivery=INJECT, former=RIVALS),
        report(Reason.INJECTABLE, ready=True),
    ),
    "could not be opened": (
        inputs(opened=Unavailable("x"), target=OURS, former=FORMER),
        report(Reason.KMS_UNAVAILABLE),
    ),
    # Owner
    "owner creates": (inputs(OWNER), write("")),
    "owner creates after looking": (inputs(OWNER, looked=True), write("")),
    "owner updates its own": (inputs(OWNER, target=OURS), write(ours=True)),
    "owner knows its own by reference": (inputs(OWNER, target=OURS_BY_REFERENCE), write(ours=True)),
    "owner meets a living owner": (inputs(OWNER, target=RIVALS, owner_lives=True), CONFLICT),
    "owner meets a gone owner's": (inputs(OWNER, target=RIVALS), CONFLICT),
    "owner meets nobody's": (inputs(OWNER, target=NOBODYS), CONFLICT),
    # Adopt
    "adopt looks first": (inputs(ADOPT), ("look",)),
    "adopt creates where there is nothing": (inputs(ADOPT, looked=True), write("")),
    "adopt updates its own": (inputs(ADOPT, target=OURS), write(ours=True)),
    "adopt takes nobody's, but may not replace it": (inputs(ADOPT, target=NOBODYS), write()),
    "adopt takes a gone owner's": (inputs(ADOPT, target=RIVALS), write()),
    "adopt meets a living owner": (inputs(ADOPT, target=RIVALS, owner_lives=True), CONFLICT),
    # Merge
    "merge looks first": (inputs(MERGE), ("look",)),
    "merge waits for the Secret": (inputs(MERGE, looked=True), report(Reason.TARGET_MISSING)),
    "merge keeps the former while it waits": (
        inputs(MERGE, looked=True, former=FORMER),
        report(Reason.TARGET_MISSING),
    ),
    "merge never forces": (inputs(MERGE, target=NOBODYS), write(owned=False)),
    "merge into another's": (inputs(MERGE, target=RIVALS, owner_lives=True), write(owned=False)),
    "merge does not own even its own": (inputs(MERGE, target=OURS), write(owned=False)),
    # A former target
    "a former target goes with the new one": (inputs(former=FORMER), write("", remove=FORMER)),
    "a former target is retained": (inputs(OWNER, RETAIN, former=FORMER), write("")),
    "a former target that is not ours stays": (inputs(former=RIVALS), write("")),
    "a former target stays while there is a conflict": (inputs(target=NOBODYS, former=FORMER), CONFLICT),
}  # fmt: skip


@pytest.mark.parametrize(("given_inputs", "expected"), CHAIN.values(), ids=CHAIN.keys())
def test_the_first_rule_that_holds_decides(given_inputs: Inputs, expected: tuple[Any, ...]) -> None:
    """The chain, as a table of inputs and decisions."""
    assert told(decide(given_inputs)) == expected


BARRED: dict[str, tuple[Inputs, tuple[Reason, Seen | None, bool]]] = {
    # Not revoking: nothing is touched
    "a namespace that is not allowed": (
        inputs(bar=FORBIDDEN, target=OURS, recorded=MADE, opened=None), (Reason.NAMESPACE_NOT_ALLOWED, None, False)
    ),
    "a shut key that retains": (
        inputs(bar=RETAINING, target=OURS, recorded=MADE, opened=None), (Reason.KEY_UNUSABLE, None, False)
    ),
    "a bar is known before a rival": (
        inputs(bar=RETAINING, target=RIVALS, owner_lives=True), (Reason.KEY_UNUSABLE, None, False)
    ),
    "a bar keeps the former target": (
        inputs(bar=RETAINING, former=FORMER, recorded=MOVED), (Reason.KEY_UNUSABLE, None, False)
    ),
    "suspended wins over a bar": (inputs(bar=FORBIDDEN, suspend=True), (Reason.SUSPENDED, None, False)),
    "a bar for Inject": (inputs(bar=FORBIDDEN, delivery=INJECT), (Reason.NAMESPACE_NOT_ALLOWED, None, False)),
    # Revoking: what this object made is taken away
    "cannot be parsed while revoked": (
        inputs(taken=REVOKING.error, object=Malformed("x"), target=OURS, recorded=MADE, opened=None),
        (Reason.KEY_UNUSABLE, OURS, True),
    ),
    "a further wrapping that opens nothing": (
        inputs(taken=REVOKING.error, opened=KeyUnusable("x"), target=OURS, recorded=MADE),
        (Reason.KEY_UNUSABLE, OURS, True),
    ),
    "a further wrapping that cannot be tried now": (
        inputs(taken=REVOKING.error, opened=Unavailable("x"), suspend=True, target=OURS, recorded=MADE),
        (Reason.KEY_UNUSABLE, OURS, True),
    ),
    "its own target": (inputs(bar=REVOKING, target=OURS, recorded=MADE), (Reason.KEY_UNUSABLE, OURS, True)),
    "its own by reference": (
        inputs(bar=REVOKING, target=OURS_BY_REFERENCE, recorded=MADE), (Reason.KEY_UNUSABLE, OURS_BY_REFERENCE, True)
    ),
    "suspended does not shield it": (
        inputs(bar=REVOKING, suspend=True, target=OURS, recorded=MADE), (Reason.KEY_UNUSABLE, OURS, True)
    ),
    "Retain is about the object's end, not the key's": (
        inputs(OWNER, RETAIN, bar=REVOKING, target=OURS, recorded=MADE), (Reason.KEY_UNUSABLE, OURS, True)
    ),
    "what was opened before does not help": (
        inputs(bar=REVOKING, target=OURS, recorded=MADE, opened=OPENED), (Reason.KEY_UNUSABLE, OURS, True)
    ),
    "adopted": (inputs(ADOPT, bar=REVOKING, target=OURS, recorded=MADE), (Reason.KEY_UNUSABLE, OURS, True)),
    "a name that was moved: the recorded one goes": (
        inputs(bar=REVOKING, target=None, former=FORMER, recorded=MOVED), (Reason.KEY_UNUSABLE, FORMER, True)
    ),
    "a name that was moved onto a rival's": (
        inputs(bar=REVOKING, target=RIVALS, former=FORMER, recorded=MOVED), (Reason.KEY_UNUSABLE, FORMER, True)
    ),
    "now Inject, but its Secret is still there": (
        inputs(bar=REVOKING, delivery=INJECT, target=OURS, former=OURS, recorded=MADE),
        (Reason.KEY_UNUSABLE, OURS, True),
    ),
    "somebody else's target": (
        inputs(bar=REVOKING, target=RIVALS, recorded=MADE), (Reason.KEY_UNUSABLE, None, True)
    ),
    "nobody's target": (inputs(bar=REVOKING, target=NOBODYS, recorded=MADE), (Reason.KEY_UNUSABLE, None, True)),
    "a merge is released, not deleted": (
        inputs(MERGE, bar=REVOKING, target=OURS, recorded=MADE), (Reason.KEY_UNUSABLE, None, True)
    ),
    "made, and the process died before it said so": (
        inputs(bar=REVOKING, target=OURS), (Reason.KEY_UNUSABLE, OURS, True)
    ),
    "Inject, beside a Secret that it left behind": (
        inputs(bar=REVOKING, delivery=INJECT, target=OURS), (Reason.KEY_UNUSABLE, None, True)
    ),
    "never made": (inputs(bar=REVOKING, looked=True), (Reason.KEY_UNUSABLE, None, True)),
}  # fmt: skip


@pytest.mark.parametrize(("given_inputs", "expected"), BARRED.values(), ids=BARRED.keys())
def test_a_bar_decides_what_becomes_of_the_target(
    given_inputs: Inputs, expected: tuple[Reason, Seen | None, bool]
) -> None:
    """Keys that may not be used, as a table of inputs, reasons and what is removed."""
    decision = decide(given_inputs)
    assert isinstance(decision, Report)
    assert (decision.outcome.reason, decision.remove, decision.revoked) == expected
    assert not decision.outcome.ready


@pytest.mark.parametrize(
    ("bar", "said", "unsaid"), [(RETAINING, "keeps the values", "Remove"), (REVOKING, "onUnavailable: Remove", "keeps")]
)
def test_a_bar_says_what_became_of_the_secret(bar: Bar, said: str, unsaid: str) -> None:
    """With the remedy; and never that a Secret keeps what was taken away."""
    decision = decide(inputs(bar=bar, target=OURS, recorded=MADE))
    assert isinstance(decision, Report)
    message = decision.outcome.message
    assert message.startswith("the key is Disabled; enable it")
    assert said in message
    assert unsaid not in message


def test_what_others_added_is_pruned_from_an_owned_target_only() -> None:
    """Neither a merged nor a freshly adopted Secret loses entries of others."""
    seen = {"db": secret("db", foreign=("x",)), "": secret("", foreign=("x",))}
    pruned = {}
    for policy, owner in ((OWNER, "db"), (ADOPT, "db"), (ADOPT, ""), (MERGE, "db"), (MERGE, "")):
        decision = decide(inputs(policy, target=seen[owner]))
        assert isinstance(decision, Write)
        pruned[policy, owner] = decision.prune
    assert pruned == {(OWNER, "db"): ("x",), (ADOPT, "db"): ("x",), (ADOPT, ""): (), (MERGE, "db"): (), (MERGE, ""): ()}


@pytest.mark.parametrize(("recorded", "kept"), [(NONE, False), (MADE, True)])
def test_a_failure_says_whether_a_secret_keeps_its_values(recorded: Recorded, kept: bool) -> None:
    """Only where a target was made does the message speak of it."""
    decision = decide(inputs(opened=Unavailable("no answer", field="spec.dataKeys[0]"), recorded=recorded))
    assert isinstance(decision, Report)
    assert decision.outcome.message.startswith("spec.dataKeys[0]: no answer")
    assert ("keeps the values" in decision.outcome.message) is kept


def test_a_conflict_names_the_other_owner() -> None:
    """Who reads the status learns whom to talk to."""
    decision = decide(inputs(target=RIVALS, owner_lives=True))
    assert isinstance(decision, Report)
    assert "EncryptedSecret other" in decision.outcome.message


secrets = st.sampled_from([None, OURS, OURS_BY_REFERENCE, RIVALS, NOBODYS])
faults = st.sampled_from(
    [kind("x") for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, KmsealError)]
)
any_inputs = st.builds(
    inputs,
    st.sampled_from(CreationPolicy),
    st.sampled_from(DeletionPolicy),
    delivery=st.sampled_from(Delivery),
    suspend=st.booleans(),
    recorded=st.sampled_from([NONE, MADE]),
    target=secrets,
    looked=st.booleans(),
    owner_lives=st.booleans(),
    former=st.sampled_from([None, FORMER, RIVALS, NOBODYS]),
    opened=st.sampled_from([None, OPENED]),
    bar=st.sampled_from([None, FORBIDDEN, RETAINING]),
)
revoked_inputs = st.builds(
    lambda given_inputs, recorded: replace(given_inputs, bar=REVOKING, recorded=recorded),
    any_inputs,
    st.sampled_from([NONE, MADE, MOVED]),
)


@given(any_inputs, faults, st.booleans())
def test_a_fault_never_writes_nor_removes(given_inputs: Inputs, fault: KmsealError, in_opening: bool) -> None:
    """Whatever else holds, an error of parsing or opening leaves every Secret alone and is not Ready."""
    faulty = replace(given_inputs, opened=fault) if in_opening else replace(given_inputs, object=fault)
    decision = decide(faulty)
    assert isinstance(decision, Report)
    assert decision.remove is None
    if not isinstance(faulty.object, EncryptedSecret) or not faulty.object.suspend:
        assert not decision.outcome.ready


@given(any_inputs)
def test_only_what_is_ours_is_removed_and_only_when_ready(given_inputs: Inputs) -> None:
    """No decision deletes another's Secret, against Retain, or without success of the new delivery."""
    decision = decide(given_inputs)
    if isinstance(decision, Report | Write) and decision.remove:
        assert decision.remove is FORMER
        assert decision.outcome.ready
        assert isinstance(given_inputs.object, EncryptedSecret)
        assert given_inputs.object.target.deletion_policy is DELETE


@given(revoked_inputs)
def test_a_revocation_removes_only_what_this_object_made(given_inputs: Inputs) -> None:
    """Nothing is written or opened meanwhile."""
    decision = decide(given_inputs)
    assert isinstance(decision, Report)
    assert decision.revoked
    assert not decision.outcome.ready
    assert decision.remove in (None, OURS, OURS_BY_REFERENCE, FORMER)
    if decision.remove:
        assert not given_inputs.merges


@given(any_inputs | revoked_inputs)
def test_a_bar_never_opens_nor_writes(given_inputs: Inputs) -> None:
    """Whatever else holds, what may not be opened is not opened, and no target is looked for."""
    decision = decide(given_inputs)
    assert given_inputs.bar is None or isinstance(decision, Report)


def test_what_another_wrapping_opens_is_not_taken_away() -> None:
    """Whether it does is found out first, suspended or not; then the object goes its usual way."""
    taken = inputs(taken=REVOKING.error, target=OURS, recorded=MADE, opened=None)
    assert decide(taken) == Open()
    assert isinstance(decide(replace(taken, opened=OPENED)), Write)
    spared = replace(taken, spared=True, opened=Unavailable("its region is down"))
    assert told(decide(spared))[2] == Reason.KMS_UNAVAILABLE
    suspended = inputs(taken=REVOKING.error, suspend=True, target=OURS, recorded=MADE, opened=None)
    assert decide(suspended) == Open()
    assert told(decide(replace(suspended, opened=OPENED)))[2] == Reason.SUSPENDED


@given(any_inputs)
def test_a_living_owners_secret_is_never_taken(given_inputs: Inputs) -> None:
    """Nothing is forced onto a Secret that belongs to another living object."""
    decision = decide(replace(given_inputs, target=RIVALS, owner_lives=True))
    assert not (isinstance(decision, Write) and decision.force)


@given(any_inputs)
def test_asking_again_with_the_answer_goes_on(given_inputs: Inputs) -> None:
    """A question that was answered is not asked a second time."""
    decision = decide(given_inputs)
    if isinstance(decision, Open):
        decision = decide(replace(given_inputs, opened=OPENED))
        assert not isinstance(decision, Open)
    if isinstance(decision, Look):
        assert isinstance(decide(replace(given_inputs, opened=OPENED, looked=True)), Report | Write)
