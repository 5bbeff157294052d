"""The status of a KMSKey: what is counted, stale and called safe, and what is worth a write or an event."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cluster.entry import Entry
from kmseal.cluster.holdings import Held, Holdings, Inventory, KeyUse
from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.names import Key
from kmseal.errors import KeyUnusable, Unavailable
from kmseal.kms.provider import KeyDescription, KeyState
from kmseal_operator.moves import Moves
from kmseal_operator.report import build_status, condition_of, is_due, is_urgent, staleness, transitions, versions

Json = dict[str, Any]
A, B, C, D = (f"acs:kms:cn-hangzhou:1:key/{letter}" for letter in "abcd")
ALIAS = "acs:kms:cn-hangzhou:1:alias/prod"
NOW, LATER = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 4, 0, 0, tzinfo=UTC)
NOBODY: frozenset[Key] = frozenset()


def nothing(_: object) -> None:
    """A listener that does not listen."""


class Setting:
    """KMSKeys, an inventory, and the report on one of the KMSKeys."""

    def __init__(self) -> None:
        self.keys = Keys(Mode.OPEN, Listeners(nothing, nothing, nothing))
        self.moves = Moves(self.keys)
        self.inventory = Inventory()
        self.version = self.objects = 0

    def show(self, name: str = "one", key_id: str = A, *, status: Json | None = None, **spec: Any) -> Entry:
        """The feed shows a KMSKey."""
        self.version += 1
        metadata = {"name": name, "uid": name, "generation": 3, "resourceVersion": str(self.version)}
        kind = {"apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey"}
        self.keys.observe({**kind, "metadata": metadata, "spec": {"keyId": key_id, **spec}, "status": status or {}})
        return self.entry(name)

    def entry(self, name: str = "one") -> Entry:
        """What the operator has of it."""
        entry = self.keys.get(name)
        assert entry is not None
        return entry

    def poll(self, *polled: str, name: str = "one", key_id: str = A, state: KeyState = KeyState.ENABLED) -> None:
        """KMS answers with these primary versions, one after the other."""
        for version in polled:
            self.keys.learn(self.entry(name), KeyDescription(key_id, state, version), 1.0)

    def hold(self, *holdings: Held) -> Key:
        """One more object."""
        key = Key("prod", f"object-{self.objects:02}")
        self.objects += 1
        self.inventory.put(key, holdings)
        return key

    def report(
        self, name: str = "one", *, failed: frozenset[Key] = NOBODY, complete: bool = True, now: datetime = NOW
    ) -> Json:
        """The status that would be written."""
        return build_status(
            self.entry(name), self.moves, self.inventory, failed=failed, complete=complete, now=now
        )  # fmt: skip

    def condition(self, kind: str, **more: Any) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        found = next(item for item in self.report(**more)["conditions"] if item["type"] == kind)
        return found["status"], found["reason"], found["message"]


@pytest.fixture
def setting() -> Setting:
    """One KMSKey whose key was rotated from v1 to v2."""
    setting = Setting()
    setting.show()
    setting.poll("v1", "v2")
    return setting


def held(version: str, newest: str = "", key_id: str = A, newest_key: str = "") -> Held:
    return Held(KeyUse(key_id, version), KeyUse(newest_key or key_id, newest or version))


# The inventory


def test_the_whole_status_of_a_rotation_in_progress(setting: Setting) -> None:
    """Every member, as it is sent."""
    setting.hold(held("v1"))
    setting.hold(held("v1", "v2"))
    setting.hold(held("v2"))
    setting.hold(held("v7", key_id=D))
    assert setting.report() == {
        "observedGeneration": 3,
        "keyId": A,
        "state": "Enabled",
        "primaryVersion": "v2",
        "previousKeys": [],
        "versions": [
            {"keyId": A, "id": "v1", "primary": False, "inGit": 2, "inCluster": 0},
            {"keyId": A, "id": "v2", "primary": True, "inGit": 1, "inCluster": 1},
        ],
        "objects": 3,
        "stale": {
            "inCluster": 1,
            "inGit": 2,
            "objects": [
                {"namespace": "prod", "name": "object-00", "where": "Cluster"},
                {"namespace": "prod", "name": "object-01", "where": "Git"},
            ],
        },
        "rewrap": {"pending": 1, "done": 1, "failed": 0},
        "safeToDisable": [],
        "conditions": [
            {
                "type": "Available", "status": "True", "reason": "Enabled", "message": "the key can be used",
                "observedGeneration": 3, "lastTransitionTime": "2026-01-02T03:04:05Z",
            },
            {
                "type": "UpToDate", "status": "False", "reason": "Rewrapping", "observedGeneration": 3,
                "message": "1 of 3 objects open by an older version only; they are being re-wrapped",
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            },
        ],
    }  # fmt: skip


def test_an_id_that_is_not_known_is_left_out() -> None:
    """An empty text is none."""
    setting = Setting()
    setting.show(key_id=ALIAS)
    assert not {"keyId", "primaryVersion"} & setting.report().keys()


def test_an_object_counts_once_for_each_version_however_many_wrappings_it_has(setting: Setting) -> None:
    """Objects are counted, not wrappings."""
    setting.hold(held("v1"), held("v1", "v2"), held("v2"))
    counts = {item["id"]: (item["inGit"], item["inCluster"]) for item in versions(setting.entry(), setting.inventory)}
    assert counts == {"v1": (1, 0), "v2": (1, 1)}
    assert setting.report()["objects"] == 1


def test_versions_that_were_never_primary_come_first(setting: Setting) -> None:
    """They are older than all that were seen; those of foreign keys are not shown."""
    setting.hold(held("v0"), held("v9", key_id=D))
    assert [item["id"] for item in setting.report()["versions"]] == ["v0", "v1", "v2"]


def test_the_number_of_versions_is_bounded_and_keeps_the_newest(setting: Setting) -> None:
    """Whoever may write objects can make versions up; they must not drive out the true ones."""
    for number in range(700):
        setting.hold(held(f"made-up-{number:03}"))
    shown = [item["id"] for item in setting.report()["versions"]]
    assert len(shown) == 512
    assert shown[-2:] == ["v1", "v2"]


def test_examples_are_few_and_begin_with_what_the_cluster_waits_for(setting: Setting) -> None:
    """Twenty, sorted, those that only Git lacks last."""
    for number in range(30):
        setting.hold(held("v1", "v2" if number < 15 else ""))
    examples = setting.report()["stale"]["objects"]
    assert [item["where"] for item in examples] == ["Cluster"] * 15 + ["Git"] * 5
    assert examples[0]["name"] == "object-15"


def test_all_wrappings_of_an_object_must_be_current(setting: Setting) -> None:
    """One that is stale beside one that is not keeps its key needed."""
    key = setting.hold(held("v2"), held("v1"))
    stale = staleness(setting.entry(), setting.moves, setting.inventory)
    assert ([*map(list, stale.in_cluster)], [*map(list, stale.in_git)], stale.renewed) == ([[key]], [[key]], 0)


def test_failed_counts_those_that_are_still_pending(setting: Setting) -> None:
    """What failed and was brought up to date from Git meanwhile is no failure any more."""
    pending, current = setting.hold(held("v1")), setting.hold(held("v2"))
    assert setting.report(failed=frozenset({pending, current}))["rewrap"] == {"pending": 1, "done": 0, "failed": 1}


# The gate


def test_an_old_version_is_safe_when_nothing_holds_it(setting: Setting) -> None:
    """Neither in Git nor in the cluster."""
    key = setting.hold(held("v1"))
    assert setting.report()["safeToDisable"] == []
    setting.inventory.put(key, (held("v1", "v2"),))
    assert setting.report()["safeToDisable"] == []
    setting.inventory.put(key, (held("v2"),))
    assert setting.report()["safeToDisable"] == [{"keyId": A, "keyVersionId": "v1"}]


def test_a_former_key_is_safe_when_nothing_holds_it() -> None:
    """One that the alias named before, and one that is replaced; the needs of the status count."""
    setting = Setting()
    setting.show(key_id=ALIAS, replaces=[C])
    setting.poll("v1", key_id=A)
    setting.poll("v1", key_id=B)
    first, second = setting.hold(held("v1", key_id=A)), setting.hold(held("v1", "v1", C, B))
    assert setting.report()["safeToDisable"] == []
    setting.inventory.drop(first)
    assert setting.report()["safeToDisable"] == [{"keyId": A}]
    setting.inventory.put(second, (held("v1", "v1", B, C),))
    assert setting.report()["safeToDisable"] == [{"keyId": A}]
    setting.inventory.put(second, (held("v1", key_id=B),))
    assert setting.report()["safeToDisable"] == [{"keyId": A}, {"keyId": C}]


def test_nothing_is_safe_while_not_all_objects_are_known(setting: Setting) -> None:
    """An operator of some namespaces, or one that has just started, cannot say."""
    assert setting.report(complete=False)["safeToDisable"] == []


def test_nothing_is_safe_before_kms_was_asked() -> None:
    """Which version is primary is only remembered until then."""
    setting = Setting()
    remembered = [{"keyId": A, "id": "v1"}, {"keyId": A, "id": "v2"}]
    setting.show(status={"primaryVersion": "v2", "versions": remembered}, replaces=[C])
    assert setting.report()["safeToDisable"] == []
    setting.entry().fail(Unavailable("no answer"), 1.0)
    assert setting.report()["safeToDisable"] == []
    setting.poll("v2")
    assert setting.report()["safeToDisable"] == [{"keyId": C}, {"keyId": A, "keyVersionId": "v1"}]


def test_no_version_of_an_asymmetric_key_is_called_safe() -> None:
    """Its public half may lie in Git: what is sealed offline tomorrow needs a version that nothing holds today."""
    setting = Setting()
    setting.show(status={"versions": [{"keyId": A, "id": "v1"}]})
    setting.keys.learn(setting.entry(), KeyDescription(A, KeyState.ENABLED, "", asymmetric=True), 1.0)
    assert setting.report()["safeToDisable"] == []


def test_the_primary_version_of_a_shut_key_is_not_called_safe(setting: Setting) -> None:
    """Also where KMS does not tell it while the key is shut."""
    setting.poll("", state=KeyState.DISABLED)
    assert setting.report()["safeToDisable"] == [{"keyId": A, "keyVersionId": "v1"}]


KEYS = [A, B, C, D]
uses = st.builds(KeyUse, st.sampled_from(KEYS), st.sampled_from(["v1", "v2", "v3"]))
inventories = st.lists(st.lists(st.builds(Held, uses, uses), max_size=3, unique=True).map(tuple), max_size=6)
polls = st.lists(st.tuples(st.sampled_from([A, B, C]), st.sampled_from(["v1", "v2", "v3"])), min_size=1, max_size=6)


@given(
    held_by_objects=inventories, polled=polls, replaces=st.lists(st.sampled_from(KEYS), unique=True),
    complete=st.booleans(),
)  # fmt: skip
def test_what_is_called_safe_is_needed_by_nothing(
    held_by_objects: list[Holdings], polled: list[tuple[str, str]], replaces: list[str], complete: bool
) -> None:
    """Against a plain statement of the rule: former keys and old versions that no spec and no status names, all of them
    and nothing else."""
    setting = Setting()
    setting.show(key_id=ALIAS, replaces=replaces)
    for key_id, version in polled:
        setting.poll(version, key_id=key_id)
    for holdings in held_by_objects:
        setting.hold(*holdings)
    present, primary = polled[-1]
    named = {(use.key_id, use.key_version_id) for holdings in held_by_objects for item in holdings for use in item}
    keys = {("key", key_id) for key_id in {*replaces, *(key_id for key_id, _ in polled)} - {present}}
    expected = {(kind, key_id, "") for kind, key_id in keys if key_id not in {named_key for named_key, _ in named}}
    expected |= {
        ("version", present, version)
        for key_id, version in polled
        if key_id == present and version != primary and (present, version) not in named
    }
    safe = setting.report(complete=complete)["safeToDisable"]
    told = {
        ("version" if "keyVersionId" in item else "key", item["keyId"], item.get("keyVersionId", "")) for item in safe
    }
    assert told == (expected if complete else set())
    assert len(told) == len(safe)


@given(held_by_objects=inventories, polled=polls, replaces=st.lists(st.sampled_from(KEYS), unique=True))
def test_counts_agree_with_a_count_by_hand(
    held_by_objects: list[Holdings], polled: list[tuple[str, str]], replaces: list[str]
) -> None:
    """Objects, stale ones and those per version, for any inventory."""
    setting = Setting()
    entry = setting.show(key_id=ALIAS, replaces=replaces)
    for key_id, version in polled:
        setting.poll(version, key_id=key_id)
    for holdings in held_by_objects:
        setting.hold(*holdings)
    present, primary = polled[-1]
    covered = {*replaces, *(key_id for key_id, _ in polled)}
    current = KeyUse(present, primary)
    mine = [item for item in held_by_objects if any(use.key_id in covered for pair in item for use in pair)]
    waiting = [item for item in mine if any(p.newest.key_id in covered and p.newest != current for p in item)]
    behind = [item for item in mine if any(p.spec.key_id in covered and p.spec != current for p in item)]
    status = setting.report()
    assert entry.covered == covered
    assert (status["objects"], status["stale"]["inCluster"], status["stale"]["inGit"]) == (
        len(mine), len(waiting), len(behind),
    )  # fmt: skip
    for item in status["versions"]:
        use = KeyUse(item["keyId"], item["id"])
        assert item["primary"] is (use == current)
        assert item["inGit"] == sum(any(pair.spec == use for pair in holdings) for holdings in mine)
        assert item["inCluster"] == sum(
            any(pair.newest == use != pair.spec for pair in holdings) for holdings in mine
        )  # fmt: skip
    assert (status["stale"]["inCluster"] == 0) is (condition_of(status, "UpToDate") == "True")


# Conditions


def test_available_says_what_kms_said() -> None:
    """From nothing known to a fault after an answer; a fault hides no shut key."""
    setting = Setting()
    entry = setting.show()
    told = [setting.condition("Available")[:2]]
    entry.fail(Unavailable("no answer", reason="Timeout"), 1.0)
    told.append(setting.condition("Available")[:2])
    entry.miss(KeyUnusable("no such key"), 1.0)
    told.append(setting.condition("Available")[:2])
    for state in KeyState:
        setting.poll("v1", state=state)
        told.append(setting.condition("Available")[:2])
    entry.fail(Unavailable("no answer"), 1.0)
    told.append(setting.condition("Available")[:2])
    setting.poll("v1")
    entry.fail(Unavailable("no answer"), 1.0)
    told.append(setting.condition("Available")[:2])
    assert told == [
        ("Unknown", "Waiting"),
        ("Unknown", "Timeout"),
        ("False", "NotFound"),
        ("True", "Enabled"),
        ("False", "Disabled"),
        ("False", "PendingDeletion"),
        ("False", "PendingImport"),
        ("False", "PendingImport"),
        ("Unknown", "Unavailable"),
    ]


def test_a_spec_that_cannot_be_read_is_not_available() -> None:
    """With the field that is wrong, and no other news."""
    setting = Setting()
    setting.show(onlyOnWorkdays=True)
    status, reason, message = setting.condition("Available")
    assert (status, reason) == ("False", "Invalid")
    assert message.startswith("spec.onlyOnWorkdays")


def test_up_to_date_says_why_not(setting: Setting) -> None:
    """In the order in which somebody can do something about it."""
    key = setting.hold(held("v1"))
    told = [setting.condition("UpToDate")[:2], setting.condition("UpToDate", failed=frozenset({key}))[:2]]
    setting.show(rewrap="Manual")
    told.append(setting.condition("UpToDate")[:2])
    setting.poll("v2", state=KeyState.DISABLED)
    told.append(setting.condition("UpToDate")[:2])
    setting.inventory.put(key, (held("v1", "v2"),))
    told.append(setting.condition("UpToDate")[:2])
    assert told == [
        ("False", "Rewrapping"),
        ("False", "RewrapFailing"),
        ("False", "Manual"),
        ("False", "NotAvailable"),
        ("True", "UpToDate"),
    ]
    assert "kmseal rewrap --from-cluster" in setting.condition("UpToDate")[2]
    setting.inventory.put(key, (held("v2"),))
    assert setting.condition("UpToDate")[2] == "all 1 objects open by the newest version"


def test_a_circle_of_replacements_is_told_by_everybody_in_it() -> None:
    """Nothing moves, so that somebody must break it."""
    setting = Setting()
    for name, key_id, replaced in (("one", A, B), ("two", B, A)):
        setting.show(name, key_id, replaces=[replaced])
        setting.poll("v1", name=name, key_id=key_id)
    setting.hold(held("v1", key_id=A))
    setting.hold(held("v1", key_id=B))
    assert [setting.condition("UpToDate", name=name)[1] for name in ("one", "two")] == ["ReplacementCircle"] * 2


def test_an_alias_that_was_never_resolved_is_no_circle() -> None:
    """What it replaces waits for the key."""
    setting = Setting()
    setting.show(key_id=ALIAS, replaces=[C])
    setting.hold(held("v1", key_id=C))
    assert setting.condition("UpToDate")[:2] == ("Unknown", "Waiting")


def test_a_long_message_is_cut(setting: Setting) -> None:
    """The API server's limit for messages is far away."""
    setting.entry().fail(Unavailable("x" * 9999), 1.0)
    assert len(setting.condition("Available")[2]) == 1024


def test_the_time_of_transition_is_kept_while_a_condition_does_not_change(setting: Setting) -> None:
    """Another reason is no transition; another status is."""
    setting.entry().status = setting.report()
    setting.hold(held("v1"))
    setting.entry().fail(Unavailable("no answer"), 1.0)
    first = setting.report(now=LATER)
    assert [item["lastTransitionTime"] for item in first["conditions"]] == ["2026-01-02T04:00:00Z"] * 2
    setting.entry().status = first
    setting.show(rewrap="Manual")
    setting.entry().status = first
    setting.entry().fail(Unavailable("none", reason="Timeout"), 1.0)
    second = setting.report(now=NOW)
    assert [item["reason"] for item in second["conditions"]] == ["Timeout", "Manual"]
    assert [item["lastTransitionTime"] for item in second["conditions"]] == ["2026-01-02T04:00:00Z"] * 2


# Writes and events


def test_times_alone_are_not_worth_a_write(setting: Setting) -> None:
    """Everything else is, a count as much as a condition; what is not urgent waits for the pause."""
    before = setting.report()
    without = {**before, "conditions": [{**item, "lastTransitionTime": "another"} for item in before["conditions"]]}
    assert not is_due(before, without)
    assert is_due(before, {})
    setting.hold(held("v2"))
    counted = setting.report()
    assert is_due(counted, before)
    assert not is_urgent(counted, before)
    assert is_urgent({**before, "safeToDisable": []}, before)


@pytest.mark.parametrize("change", ["state", "primary", "stale", "generation", "moved"])
def test_what_people_wait_for_is_urgent(setting: Setting, change: str) -> None:
    """State, versions, conditions and the generation that was observed."""
    before = setting.report()
    if change == "state":
        setting.poll("v2", state=KeyState.DISABLED)
    elif change == "primary":
        setting.poll("v3")
    elif change == "stale":
        setting.hold(held("v1"))
    elif change == "moved":
        setting.poll("v1", key_id=B)
    else:
        setting.entry().generation += 1
    assert is_urgent(setting.report(), before)
    assert is_due(setting.report(), before)


@pytest.mark.parametrize("before", [{}, {"conditions": "nonsense"}, {"conditions": [7], "safeToDisable": None}])
def test_a_status_that_is_not_ours_is_written_over(setting: Setting, before: Json) -> None:
    """Whatever stands there cannot stop the report."""
    setting.entry().status = before
    after = setting.report()
    assert is_due(after, before)
    assert is_urgent(after, before)
    list(transitions(setting.entry(), after))


def events(setting: Setting, *, complete: bool = True) -> list[tuple[bool, str]]:
    """The events of the next report, which then stands."""
    after = setting.report(complete=complete)
    told = [(warning, reason) for warning, reason, _ in transitions(setting.entry(), after)]
    setting.entry().status = after
    return told


def test_each_transition_is_one_event() -> None:
    """From the first report, which is none, to the old version's being safe; a repetition is none, either."""
    setting = Setting()
    setting.show()
    setting.poll("v1")
    key = setting.hold(held("v1"))
    told = [events(setting), events(setting)]
    setting.poll("v2")
    told += [events(setting), events(setting)]
    setting.inventory.put(key, (held("v1", "v2"),))
    told += [events(setting), events(setting)]
    setting.inventory.put(key, (held("v2"),))
    told += [events(setting), events(setting)]
    setting.poll("v2", state=KeyState.DISABLED)
    told += [events(setting), events(setting)]
    setting.poll("v2")
    told += [events(setting), events(setting)]
    assert told[1::2] == [[]] * 6
    assert told[::2] == [
        [],
        [(False, "Rotated")],
        [(False, "Rewrapped")],
        [(False, "SafeToDisable")],
        [(True, "Disabled")],
        [(False, "Enabled")],
    ]


def test_an_alias_that_moves_is_one_event() -> None:
    """Not one for the key and another for its version."""
    setting = Setting()
    setting.show(key_id=ALIAS)
    setting.poll("v1", key_id=A)
    setting.hold(held("v1", key_id=A))
    events(setting)
    setting.poll("v2", key_id=B)
    assert events(setting) == [(False, "Moved")]


def test_the_event_of_what_is_safe_names_it(setting: Setting) -> None:
    """A key, or a version of a key."""
    setting.show(replaces=[C])
    setting.entry().status = {"state": "Enabled", "safeToDisable": [{"keyId": D}]}
    texts = [text for _, reason, text in transitions(setting.entry(), setting.report()) if reason == "SafeToDisable"]
    assert texts == [
        f"no object of this cluster needs {C} any more",
        f"no object of this cluster needs {A} version v1 any more",
    ]
