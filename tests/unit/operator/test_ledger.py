"""What the operator knows: when an object is settled, and which events make work."""

from functools import partial
from typing import Any

import pytest

from kmseal.cluster.holdings import Held, Holdings, KeyUse
from kmseal.cluster.names import Backoff, Key
from kmseal_operator.backlog import Backlog, Lane
from kmseal_operator.ledger import (
    OWNER_ANNOTATION,
    RETAIN_ANNOTATION,
    REWRAP_ANNOTATION,
    Ledger,
    Recorded,
    Seen,
    field_manager,
)
from kmseal_operator.queue import KeyedQueue

DB, CACHE = Key("prod", "db"), Key("prod", "cache")


class Setting:
    """A ledger with its queue, and what the API server would send."""

    def __init__(self) -> None:
        self.queue = KeyedQueue(Backlog(Backoff(1, 60, lambda: 0)), clock=lambda: 0.0)
        self.moves: list[tuple[Key, Holdings, Holdings]] = []
        self.ledger = Ledger(self.queue, lambda key, before, after: self.moves.append((key, before, after)))

    def moved(self) -> list[tuple[Key, Holdings, Holdings]]:
        """What was told of holdings since the last time: of which object, before and after."""
        moves, self.moves = self.moves, []
        return moves

    def work(self) -> list[Key]:
        """Takes all ready keys, in order, and finishes them."""
        keys = []
        while taken := self.queue.backlog.take(0):
            keys.append(taken[0])
        for key in keys:
            self.queue.backlog.done(key, 0)
        return keys


@pytest.fixture
def setting() -> Setting:
    """An empty ledger."""
    return Setting()


def secret(
    name: str = "db", *, version: int = 50, uid: str = "s-1", owner: str = "db", manager: str = "kmseal",
    ours: tuple[str, ...] = ("a",), others: tuple[str, ...] = (), time: str = "t1", retains: bool = False,
) -> dict[str, Any]:  # fmt: skip
    fields = [
        {
            "manager": manager,
            "operation": "Apply",
            "time": time,
            "fieldsV1": {"f:data": {f"f:{entry}": {} for entry in ours}},
        },
        {
            "manager": "kubectl",
            "operation": "Update",
            "time": "t9",
            "fieldsV1": {"f:metadata": {}, "f:data": {".": {}, **{f"f:{entry}": {} for entry in others}}},
        },
    ]
    annotations = {**({OWNER_ANNOTATION: owner} if owner else {}), **({RETAIN_ANNOTATION: "true"} if retains else {})}
    return {
        "metadata": {
            "namespace": "prod", "name": name, "uid": uid, "resourceVersion": str(version),
            "annotations": annotations, "managedFields": fields,
        }
    }  # fmt: skip


def status(
    generation: int = 1, *, ready: str = "True", reason: str = "Applied", target: dict[str, Any] | None = None,
    name: str = "db", manager: str = "kmseal",
) -> dict[str, Any]:  # fmt: skip
    seen = Seen.parse((target or secret())["metadata"])
    return {
        "observedGeneration": generation,
        "conditions": [{"type": "Ready", "status": ready, "reason": reason, "message": "m"}],
        "target": {
            "name": name, "uid": seen.uid, "resourceVersion": seen.version, "appliedFields": seen.digest(manager),
        },
    }  # fmt: skip


def encrypted(
    name: str = "db", *, version: int = 100, uid: str = "o-1", generation: int = 1,
    state: dict[str, Any] | None = None, rewrap: str = "", **spec: Any,
) -> dict[str, Any]:  # fmt: skip
    metadata = {
        "namespace": "prod", "name": name, "uid": uid, "generation": generation, "resourceVersion": str(version),
        "annotations": {REWRAP_ANNOTATION: rewrap} if rewrap else None,
    }  # fmt: skip
    return {"metadata": metadata, "spec": spec, **({"status": state} if state else {})}


def test_a_settled_object_makes_no_work_and_keeps_no_body(setting: Setting) -> None:
    """After a restart unchanged objects cost nothing."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(encrypted(state=status()))
    known = setting.ledger.get(DB)
    assert known is not None
    assert known.body is None
    assert setting.work() == []


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (secret(version=51), []),
        (secret(version=51, time="t2"), [DB]),
        (secret(version=51, ours=("a", "b")), [DB]),
        (secret(version=51, others=("x",)), [DB]),
        (secret(version=51, others=("a",)), []),
        (secret(version=60, uid="s-2"), [DB]),
        (secret(version=49, time="t0"), []),
        (secret(version=50, others=("x",)), []),
    ],
    ids=[
        "foreign label", "written in our name", "our fields changed", "foreign entry", "entry shared with us",
        "another Secret", "stale", "repeated",
    ],
)  # fmt: skip
def test_only_drift_of_the_target_makes_work(setting: Setting, later: dict[str, Any], expected: list[Key]) -> None:
    """Our fields' digest and foreign entries count; other metadata and stale events do not."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(encrypted(state=status()))
    setting.ledger.observe_secret(later)
    assert setting.work() == expected


def test_a_vanished_target_makes_work(setting: Setting) -> None:
    """Once; a Secret that was not known makes none."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(encrypted(state=status()))
    setting.ledger.vanish_secret(DB)
    assert setting.work() == [DB]
    setting.ledger.vanish_secret(DB)
    assert setting.work() == []


@pytest.mark.parametrize(
    "raw",
    [
        encrypted(),
        encrypted(generation=2, state=status(1)),
        encrypted(state=status(ready="False", reason="KmsUnavailable")),
        encrypted(state=status(name="elsewhere")),
        encrypted(state=status(target=secret(uid="s-0"))),
        encrypted(state=status(target=secret(version=40, time="t0"))),
        encrypted(state={"conditions": "nonsense", "target": [], "observedGeneration": "1"}),
        encrypted(delivery="Inject", state=status(reason="Injectable")),
    ],
    ids=["new", "changed", "failing", "moved", "recreated", "drifted", "nonsense", "inject beside its old target"],
)
def test_what_is_not_settled_makes_work_when_first_seen(setting: Setting, raw: dict[str, Any]) -> None:
    """Whatever the status does not prove is looked at once."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(raw)
    assert setting.work() == [DB]


@pytest.mark.parametrize("reason", ["Suspended", "Applied", "Injectable"])
def test_a_suspended_object_is_settled_whatever_the_target(setting: Setting, reason: str) -> None:
    """Not even drift makes work then."""
    setting.ledger.observe_object(encrypted(suspend=True, state=status(reason=reason)))
    assert setting.work() == []


def test_a_merge_is_settled_beside_foreign_entries(setting: Setting) -> None:
    """They are the reason to merge; only its own manager's digest counts."""
    shared = secret("shared", manager="kmseal:db", owner="", others=("x", "y"))
    state = status(target=shared, name="shared", manager="kmseal:db")
    setting.ledger.observe_secret(shared)
    setting.ledger.observe_object(encrypted(state=state, target={"name": "shared", "creationPolicy": "Merge"}))
    assert setting.work() == []


def test_changes_go_before_rechecks(setting: Setting) -> None:
    """A generation that nobody has looked at is more urgent than a failing one after a restart."""
    setting.ledger.observe_object(encrypted("cache", state=status(ready="False", reason="KmsDenied")))
    setting.ledger.observe_object(encrypted())
    assert setting.work() == [DB, CACHE]


def test_stale_events_of_an_object_are_ignored(setting: Setting) -> None:
    """A re-list may bring what is older than what is known."""
    setting.ledger.observe_object(encrypted(version=100, generation=3))
    setting.work()
    setting.ledger.observe_object(encrypted(version=99, generation=2))
    setting.ledger.observe_object(encrypted(version=100, generation=3))
    assert setting.work() == []
    known = setting.ledger.get(DB)
    assert known is not None
    assert known.generation == 3


def test_the_echo_of_an_own_status_write_makes_no_work(setting: Setting) -> None:
    """A failing object keeps its backoff."""
    setting.ledger.observe_object(encrypted())
    setting.queue.backlog.take(0)
    failing = status(ready="False", reason="KmsUnavailable")
    setting.ledger.record(DB, "o-1", 1, 101, Recorded.parse(failing))
    setting.queue.backlog.failed(DB, "KmsUnavailable", 0)
    setting.ledger.observe_object(encrypted(version=101, state=failing))
    setting.ledger.observe_object(encrypted(version=102, state=failing))
    assert setting.work() == []
    assert setting.queue.backlog.delayed == 1


def test_an_echo_that_comes_before_its_answer_makes_no_work(setting: Setting) -> None:
    """While a worker holds the object, a changed status is taken for its own write."""
    setting.ledger.observe_object(encrypted())
    setting.queue.backlog.take(0)
    setting.ledger.observe_object(encrypted(version=101, state=status(ready="False", reason="KmsUnavailable")))
    setting.queue.backlog.failed(DB, "KmsUnavailable", 0)
    assert setting.work() == []


def test_a_status_that_somebody_else_wrote_makes_work(setting: Setting) -> None:
    """Wiped, or made to say something else, at the same generation: it is put right at once."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(encrypted(state=status()))
    setting.ledger.observe_object(encrypted(version=101))
    assert setting.work() == [DB]
    setting.ledger.observe_object(encrypted(version=102, state=status(ready="False", reason="Invalid")))
    assert setting.work() == [DB]


def test_a_write_that_was_answered_after_its_deletion_was_seen_does_not_bring_the_secret_back(setting: Setting) -> None:
    """The answer to an older write must not hide that the Secret is gone."""
    setting.ledger.observe_object(encrypted())
    setting.work()
    setting.ledger.vanish_secret(DB, 60)
    setting.ledger.record_secret(DB, Seen.parse(secret(version=50)["metadata"]))
    assert setting.ledger.secret(DB) is None
    setting.ledger.record(DB, "o-1", 1, 101, Recorded.parse(status()))
    assert setting.work() == [DB]
    setting.ledger.record_secret(DB, Seen.parse(secret(version=61, uid="s-2")["metadata"]))
    assert setting.ledger.secret(DB) is not None


def test_a_recreated_object_makes_work(setting: Setting) -> None:
    """The same name and generation with another uid is another object."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(encrypted(state=status()))
    setting.ledger.observe_object(encrypted(uid="o-2", version=110))
    assert setting.work() == [DB]


def test_a_success_frees_the_body(setting: Setting) -> None:
    """Content is held only while there is work."""
    setting.ledger.observe_object(encrypted())
    setting.work()
    seen = Seen.parse(secret()["metadata"])
    setting.ledger.record_secret(DB, seen)
    recorded = Recorded.parse(status())
    setting.ledger.record(DB, "o-1", 1, 101, recorded)
    known = setting.ledger.get(DB)
    assert known is not None
    assert (known.body, known.recorded) == (None, recorded)
    assert setting.work() == []


def test_drift_between_write_and_record_makes_work(setting: Setting) -> None:
    """What the feed showed meanwhile is not forgotten by the worker's own record."""
    setting.ledger.observe_object(encrypted())
    setting.work()
    setting.ledger.observe_secret(secret(version=60, others=("x",)))
    setting.ledger.record_secret(DB, Seen.parse(secret()["metadata"]))
    setting.ledger.record(DB, "o-1", 1, 101, Recorded.parse(status()))
    assert setting.work() == [DB]


@pytest.mark.parametrize(("uid", "generation"), [("o-0", 1), ("o-1", 0)])
def test_a_record_of_an_earlier_object_or_generation_is_dropped(setting: Setting, uid: str, generation: int) -> None:
    """A slow worker does not overwrite what is newer."""
    setting.ledger.observe_object(encrypted())
    setting.ledger.record(DB, uid, generation, 999, Recorded(1, "True", "Applied"))
    known = setting.ledger.get(DB)
    assert known is not None
    assert (known.version, known.recorded) == (100, Recorded())


def test_rivals_get_a_turn_when_the_holder_vanishes(setting: Setting) -> None:
    """They do not wait for the Secret's own end, nor does anybody else move."""
    target = {"name": "shared"}
    conflict = status(ready="False", reason="TargetConflict")
    setting.ledger.observe_object(encrypted(target=target))
    setting.ledger.observe_object(encrypted("cache", target=target, state=conflict))
    setting.ledger.observe_object(encrypted("third"))
    setting.work()
    setting.ledger.vanish_object(DB)
    assert setting.work() == [CACHE]


def test_a_rival_gets_a_turn_when_the_secret_goes(setting: Setting) -> None:
    """By the feed's word or by a worker's own deletion, but not for another Secret's deletion."""
    conflict = status(ready="False", reason="TargetConflict")
    for goes in (
        partial(setting.ledger.vanish_secret, DB),
        partial(setting.ledger.forget_secret, DB, "s-1"),
    ):
        setting.ledger.observe_secret(secret(owner=""))
        setting.ledger.observe_object(encrypted(state=conflict))
        setting.work()
        setting.ledger.forget_secret(DB, "s-0")
        assert setting.work() == []
        goes()
        assert setting.work() == [DB]


def test_a_vanished_merge_is_released_unless_it_retains(setting: Setting) -> None:
    """Its traces in another's Secret are work; with Retain, and for owned targets, there is none."""
    for name, policy in (
        ("db", {"creationPolicy": "Merge"}),
        ("cache", {"creationPolicy": "Merge", "deletionPolicy": "Retain"}),
        ("third", {}),
    ):
        setting.ledger.observe_object(encrypted(name, target={"name": "shared", **policy}))
    setting.work()
    for name in ("third", "cache", "db"):
        setting.ledger.vanish_object(Key("prod", name))
        setting.ledger.vanish_object(Key("prod", name))
    assert set(setting.ledger.deleted) == {DB}
    assert DB in setting.work()


def test_orphans_are_fields_of_merges_that_are_gone(setting: Setting) -> None:
    """Not those of living merges, of the common manager, of others, or of Secrets to be retained."""
    setting.ledger.observe_secret(secret("one", manager="kmseal:gone"))
    setting.ledger.observe_secret(secret("two", manager="kmseal:db"))
    setting.ledger.observe_secret(secret("three", manager="kmseal"))
    setting.ledger.observe_secret(secret("four", manager="someone"))
    setting.ledger.observe_secret(secret("five", manager="kmseal:gone", retains=True))
    setting.ledger.observe_object(encrypted(target={"name": "two", "creationPolicy": "Merge"}))
    assert [(key.name, manager) for key, manager, _ in setting.ledger.orphans()] == [("one", "kmseal:gone")]


def test_states_count_objects_by_reason(setting: Setting) -> None:
    """Those never decided on are Pending."""
    setting.ledger.observe_object(encrypted())
    setting.ledger.observe_object(encrypted("cache", state=status(ready="False", reason="KmsDenied")))
    assert setting.ledger.states() == {"Pending": 1, "KmsDenied": 1}


def test_a_long_name_gives_a_field_manager_of_legal_length() -> None:
    """The API server accepts 128 characters; two long names do not meet."""
    names = [field_manager(letter * 253, merges=True) for letter in "ab"]
    assert len(set(names)) == 2
    assert all(len(name) <= 128 for name in names)


def test_the_front_lane_is_for_generations_nobody_has_looked_at(setting: Setting) -> None:
    """A later change of a failing object comes forward."""
    setting.ledger.observe_object(encrypted(state=status(ready="False", reason="KmsDenied")))
    setting.queue.add(CACHE, Lane.BACK)
    setting.ledger.observe_object(encrypted("third", version=101, generation=2, state=status(1)))
    assert setting.work()[0] == Key("prod", "third")


# Keys: what objects hold, and who is looked at again

OLD, NEW = KeyUse("local:old", "v1"), KeyUse("local:new", "v1")
HELD: Holdings = (Held(OLD, OLD),)
RENEWED: Holdings = (Held(OLD, NEW),)


def data_keys(use: KeyUse = OLD) -> list[dict[str, Any]]:
    return [{"id": "aaaa", "wrappings": [{"keyId": use.key_id, "keyVersionId": use.key_version_id}]}]


def test_what_an_object_holds_is_told_when_it_changes(setting: Setting) -> None:
    """When it comes, with each new spec, and when it goes; an echo tells nothing."""
    setting.ledger.observe_object(encrypted(dataKeys=data_keys()))
    assert setting.moved() == [(DB, (), HELD)]
    setting.ledger.observe_object(encrypted(version=101, dataKeys=data_keys(), state=status()))
    setting.ledger.observe_object(encrypted(version=99, dataKeys=data_keys(NEW)))
    assert setting.moved() == []
    setting.ledger.observe_object(encrypted(version=102, generation=2, dataKeys=data_keys(NEW)))
    assert setting.moved() == [(DB, HELD, (Held(NEW, NEW),))]
    setting.ledger.vanish_object(DB)
    setting.ledger.vanish_object(DB)
    assert setting.moved() == [(DB, (Held(NEW, NEW),), ())]
    assert setting.ledger.inventory.holders([NEW.key_id]) == []


def test_a_settled_object_is_in_the_inventory(setting: Setting) -> None:
    """After a restart nothing is done about it, but its keys are needed."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(encrypted(state=status(), dataKeys=data_keys()))
    assert setting.work() == []
    assert setting.ledger.inventory.of(DB) == HELD


@pytest.mark.parametrize(
    ("text", "asked"), [("true", True), ("false", False), ("", None), ("True", None), ("yes", None)]
)
def test_the_annotation_asks_or_forbids(setting: Setting, text: str, asked: bool | None) -> None:
    """Only in the words that are documented; a change of it is told although nothing that is held has changed."""
    setting.ledger.observe_object(encrypted(dataKeys=data_keys()))
    setting.moved()
    setting.ledger.observe_object(encrypted(version=101, rewrap=text, dataKeys=data_keys()))
    known = setting.ledger.get(DB)
    assert known is not None
    assert known.rewrap_asked is asked
    assert setting.moved() == ([] if asked is None else [(DB, HELD, HELD)])


def test_a_newer_wrapping_that_was_just_written_is_held_before_the_feed_shows_it(setting: Setting) -> None:
    """It is told; the body of before is dropped, and the next write names the version that is there now."""
    setting.ledger.observe_object(encrypted(dataKeys=data_keys()))
    setting.work()
    setting.moved()
    setting.ledger.record_rewrapped(DB, "o-1", 100, 105, RENEWED)
    known = setting.ledger.get(DB)
    assert known is not None
    assert (known.version, known.body) == (105, None)
    assert setting.moved() == [(DB, HELD, RENEWED)]
    assert setting.work() == []
    setting.ledger.observe_object(encrypted(version=104, dataKeys=data_keys()))
    assert setting.ledger.inventory.of(DB) == RENEWED


@pytest.mark.parametrize(("uid", "over"), [("o-0", 100), ("o-1", 99), ("o-1", 110)])
def test_a_newer_wrapping_over_something_unknown_is_left_to_the_feed(setting: Setting, uid: str, over: int) -> None:
    """Another object of that name, or a change that the feed has yet to tell of: it must not be skipped over."""
    setting.ledger.observe_object(encrypted(dataKeys=data_keys()))
    setting.moved()
    setting.ledger.record_rewrapped(DB, uid, over, 111, RENEWED)
    setting.ledger.record_rewrapped(CACHE, "o-1", 100, 999, RENEWED)
    known = setting.ledger.get(DB)
    assert known is not None
    assert known.version == 100
    assert known.body is not None
    assert setting.moved() == []
    assert setting.ledger.inventory.of(CACHE) == ()


def test_suspects_are_looked_at_again_although_they_are_settled(setting: Setting) -> None:
    """Those that hold what is refused now, and no others; unknown ones are passed over."""
    for name, use in (("db", OLD), ("cache", NEW)):
        target = secret(name, owner=name)
        setting.ledger.observe_secret(target)
        setting.ledger.observe_object(encrypted(name, state=status(target=target, name=name), dataKeys=data_keys(use)))
    assert setting.work() == []
    asked: list[tuple[Holdings, str]] = []

    def is_suspect(holdings: Holdings, namespace: str) -> bool:
        asked.append((holdings, namespace))
        return holdings == HELD

    setting.ledger.recheck([DB, CACHE, Key("prod", "gone")], is_suspect)
    assert asked == [(HELD, "prod"), ((Held(NEW, NEW),), "prod")]
    assert setting.work() == [DB]
    known = [setting.ledger.get(key) for key in (DB, CACHE)]
    assert [item.recheck for item in known if item] == [True, False]


@pytest.mark.parametrize(
    ("reason", "looked_at"),
    [
        ("KeyUnusable", True), ("KeyNotRegistered", True), ("NamespaceNotAllowed", True), ("KmsDenied", True),
        ("Misconfigured", True), ("KmsUnavailable", False), ("TargetConflict", False), ("Invalid", False),
    ],
)  # fmt: skip
def test_what_waits_for_its_key_is_tried_at_once_when_nothing_is_refused_any_more(
    setting: Setting, reason: str, looked_at: bool
) -> None:
    """It does not wait for its backoff; faults of another kind keep theirs."""
    setting.ledger.observe_object(encrypted(state=status(ready="False", reason=reason), dataKeys=data_keys()))
    setting.queue.backlog.take(0)
    setting.queue.backlog.failed(DB, reason, 0)
    setting.ledger.recheck([DB], lambda holdings, namespace: False)
    assert setting.work() == ([DB] if looked_at else [])
    known = setting.ledger.get(DB)
    assert known is not None
    assert not known.recheck


def test_a_recheck_outlives_a_change_and_goes_after_new_objects(setting: Setting) -> None:
    """An event between the rule and the look must not make the operator forget to look."""
    setting.ledger.observe_secret(secret())
    setting.ledger.observe_object(encrypted(state=status(), dataKeys=data_keys()))
    setting.ledger.recheck([DB], lambda holdings, namespace: True)
    setting.ledger.observe_object(encrypted(version=101, state=status(), dataKeys=data_keys()))
    setting.ledger.observe_object(encrypted("cache"))
    known = setting.ledger.get(DB)
    assert known is not None
    assert known.recheck
    assert setting.work() == [CACHE, DB]
