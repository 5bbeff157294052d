"""One KMSKey in memory: what it believes of an earlier process, what it learns, and what follows for wrappings."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cluster.entry import NOT_FOUND, UNKNOWN, Entry
from kmseal.cluster.holdings import KeyUse
from kmseal.errors import KeyUnusable, Unavailable
from kmseal.kms.provider import KeyDescription, KeyState
from kmseal.kmskey import AUTOMATIC, AUTOMATIC_LABEL

Json = dict[str, Any]
A, B, C = (f"acs:kms:cn-hangzhou:1:key/{letter}" for letter in "abc")
ALIAS = "acs:kms:cn-hangzhou:1:alias/prod"
STATUS = {
    "keyId": A, "state": "Disabled", "primaryVersion": "v2", "previousKeys": [B],
    "versions": [{"keyId": A, "id": "v1"}, {"keyId": A, "id": "v2"}],
}  # fmt: skip


def raw(key_id: str = A, *, status: object = None, labels: Json | None = None, **spec: Any) -> Json:
    return {
        "apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey", "status": status, "spec": {"keyId": key_id, **spec},
        "metadata": {"name": "prod", "uid": "u-1", "generation": 3, "resourceVersion": "7", "labels": labels},
    }  # fmt: skip


def entry(key_id: str = A, **more: Any) -> Entry:
    found = Entry.read(raw(key_id, **more))
    assert found is not None
    return found


def described(key_id: str = A, version: str = "v1", state: KeyState = KeyState.ENABLED) -> KeyDescription:
    return KeyDescription(key_id, state, version)


# What is believed of a status


def test_the_status_is_believed_but_not_confirmed() -> None:
    """A restart knows at once which key was shut; where to wrap it waits for KMS."""
    found = entry(ALIAS, status=STATUS)
    assert (found.key_id, found.state, found.primary, found.previous) == (A, "Disabled", "v2", (B,))
    assert found.versions == (KeyUse(A, "v1"), KeyUse(A, "v2"))
    assert found.is_shut
    assert not found.confirmed
    assert entry(status={**STATUS, "state": "Enabled"}).description is None


def test_without_a_status_nothing_is_known() -> None:
    """An alias that was never resolved names no key; a key names itself."""
    fresh = entry(ALIAS)
    assert (fresh.key_id, fresh.state, fresh.covered) == ("", UNKNOWN, frozenset())
    assert not fresh.is_shut
    assert entry(A).covered == {A}


def test_the_spec_of_a_key_wins_over_its_status() -> None:
    """A status that was written for something else does not make a KMSKey speak of another key."""
    assert entry(A, status={"keyId": B}).key_id == A


garbage = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from([A, "Disabled"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*STATUS, "id", "keyId", "replaces", "names"]), inner, max_size=5)
    ),
    max_leaves=10,
)


@given(spec=garbage, status=garbage)
def test_neither_spec_nor_status_can_stop_the_reader(spec: object, status: object) -> None:
    """A newer CRD or an edited status ends no operator, and every version it shows has a key and an id."""
    found = Entry.read({**raw(), "spec": spec, "status": status})
    if found is not None:
        assert all(use.key_id and use.key_version_id for use in found.versions)
        assert len(found.previous) <= 64


# Failing closed


def test_a_spec_that_cannot_be_read_allows_nobody() -> None:
    """A field of a newer CRD may be a limit: nobody is within it, and nothing is moved to the key."""
    found = entry(A, onlyOnWorkdays=True)
    assert found.invalid is not None
    assert not found.key.allows("prod", {})
    found.learn(described(), 1.0)
    assert found.description is None


def test_a_spec_that_cannot_be_read_still_speaks_of_the_keys_it_replaces() -> None:
    """They do not become free for all while it is wrong."""
    assert entry(A, replaces=[B, 7], onlyOnWorkdays=True).covered == {A, B}


def test_what_names_no_key_is_no_entry() -> None:
    """There is nothing that it could allow or forbid."""
    assert Entry.read({**raw(), "spec": {"keyId": 7}}) is None


# What KMS says


def test_an_alias_that_moves_leaves_its_former_key_behind() -> None:
    """Wrappings under it are stale from then on, whatever their version."""
    found = entry(ALIAS)
    found.learn(described(A), 1.0)
    assert (found.key_id, found.former) == (A, frozenset())
    found.learn(described(B), 2.0)
    assert (found.key_id, found.previous) == (B, (A,))
    assert found.former == {A}
    assert not found.is_outdated(KeyUse(B, "v1"))


def test_an_alias_that_comes_back_is_no_loop() -> None:
    """After A, B, A only B is former; after A, B, C, B the order is that of leaving."""
    found = entry(ALIAS)
    for key_id in (A, B, A):
        found.learn(described(key_id), 1.0)
    assert (found.key_id, found.previous) == (A, (B,))
    for key_id in (C, B):
        found.learn(described(key_id), 1.0)
    assert (found.key_id, found.previous) == (B, (A, C))


@given(st.lists(st.sampled_from([A, B, C]), min_size=1, max_size=12))
def test_a_present_key_is_never_former(moves: list[str]) -> None:
    """However often an alias moves: all other keys that it ever named are former, each once."""
    found = entry(ALIAS)
    for key_id in moves:
        found.learn(described(key_id), 1.0)
    assert found.key_id == moves[-1]
    assert sorted(found.previous) == sorted(set(moves) - {moves[-1]})
    assert found.covered == set(moves)


def test_an_alias_that_moves_to_a_replaced_key_replaces_it_no_more() -> None:
    """A key is never its own successor."""
    found = entry(ALIAS, replaces=[B])
    found.learn(described(A), 1.0)
    found.learn(described(B), 2.0)
    assert found.former == {A}


def test_versions_are_kept_in_the_order_in_which_they_were_primary() -> None:
    """Each once; an older one is stale."""
    found = entry()
    for version in ("v1", "v2", "v2", "v3"):
        found.learn(described(version=version), 1.0)
    assert found.versions == tuple(KeyUse(A, version) for version in ("v1", "v2", "v3"))
    assert [found.is_outdated(KeyUse(A, version)) for version in ("v1", "v2", "v3", "unheard-of")] == [1, 1, 0, 1]
    assert not found.is_outdated(KeyUse(C, "v1"))


def test_a_key_that_cannot_be_used_and_does_not_tell_keeps_its_primary_version() -> None:
    """Else a disabled key would look as if nothing were stale, and its newest version as if it were an old one."""
    found = entry()
    found.learn(described(version="v2"), 1.0)
    found.learn(described(version="", state=KeyState.DISABLED), 2.0)
    assert (found.state, found.primary) == ("Disabled", "v2")
    assert found.is_outdated(KeyUse(A, "v1"))


def test_the_primary_version_of_another_key_is_not_kept() -> None:
    """An alias that moves to a key that does not tell knows none."""
    found = entry(ALIAS)
    found.learn(described(A, "v2"), 1.0)
    found.learn(described(B, "", KeyState.PENDING_IMPORT), 2.0)
    assert found.primary == ""


def test_no_version_of_an_asymmetric_key_is_stale_and_none_is_a_destination() -> None:
    """Each of its versions opens what it wrapped; the operator wraps under symmetric keys only."""
    found = entry(status={"primaryVersion": "v2"})
    found.learn(KeyDescription(A, KeyState.ENABLED, "", asymmetric=True), 1.0)
    assert not found.is_outdated(KeyUse(A, "v1"))
    assert found.description is None


@pytest.mark.parametrize("state", KeyState)
def test_only_an_enabled_key_is_a_destination(state: KeyState) -> None:
    """All other states are shut."""
    found = entry()
    found.learn(described(state=state), 1.0)
    assert (found.description is not None) is (state is KeyState.ENABLED)
    assert found.is_shut is (state is not KeyState.ENABLED)


def test_a_fault_is_no_news_of_the_key() -> None:
    """State and versions stay; only that it failed, and when, is noted, until the next answer."""
    found = entry(status=STATUS)
    found.fail(Unavailable("no answer"), 5.0)
    assert (found.state, found.primary, found.confirmed, found.polled_at) == ("Disabled", "v2", False, 5.0)
    failures = [found.failure]
    found.learn(described(), 6.0)
    failures.append(found.failure)
    assert [str(failure) for failure in failures] == ["no answer", "None"]
    assert (found.confirmed, found.polled_at) == (True, 6.0)


def test_a_key_that_is_not_found_was_not_shut_by_anybody() -> None:
    """Perhaps the region is wrong: it is no destination, and no reason to take Secrets away."""
    found = entry(status=STATUS)
    found.miss(KeyUnusable("no such key"), 5.0)
    assert (found.state, found.is_shut, found.description) == (NOT_FOUND, False, None)


# Changes of the KMSKey


def test_a_key_with_a_way_of_its_own_is_no_destination_before_it_is_reached_that_way() -> None:
    """Nothing may be wrapped by the operator's own credentials that others were written for."""
    assert entry().connected
    found = entry(endpoint="kms.example.com")
    found.learn(described(), 1.0)
    assert not found.connected
    assert found.description is None
    found.connected = True
    assert found.description is not None


@pytest.mark.parametrize(
    "way",
    [
        {"endpoint": "kms.example.com"},
        {"credentials": {"secretName": "keys"}},
        {"credentials": {"role": {"arn": "acs:ram::1:role/kmseal"}}},
        {"caBundle": "-----BEGIN CERTIFICATE-----"},
    ],
    ids=lambda way: next(iter(way)),
)
def test_a_new_way_is_taken_at_once(way: Json) -> None:
    """Neither the old way nor the next turn's poll is good enough; another change of the spec keeps the way."""
    before = entry()
    before.learn(described(), 5.0)
    changed = entry(**way)
    changed.carry_over(before)
    assert (changed.connected, changed.polled_at, changed.state) == (False, None, "Enabled")
    changed.connected, changed.polled_at = True, 6.0
    later = entry(pollInterval="5m", **way)
    later.carry_over(changed)
    assert (later.connected, later.polled_at) == (True, 6.0)
    own = entry()
    own.carry_over(later)
    assert (own.connected, own.polled_at) == (False, None)


def test_a_changed_spec_keeps_what_was_learned() -> None:
    """An edit of the limits costs no state; the new spec counts."""
    before = entry(ALIAS)
    for key_id in (B, A):
        before.learn(described(key_id, "v4"), 5.0)
    after = entry(ALIAS, replaces=[C])
    after.carry_over(before)
    assert (after.key_id, after.state, after.primary) == (A, "Enabled", "v4")
    assert after.former == {B, C}
    assert (after.confirmed, after.polled_at, after.versions) == (True, 5.0, before.versions)


@pytest.mark.parametrize(
    ("labels", "spec", "neutral"),
    [
        ({AUTOMATIC_LABEL: AUTOMATIC}, {}, True),
        ({AUTOMATIC_LABEL: AUTOMATIC}, {"onUnavailable": "Retain", "rewrap": "Auto"}, True),
        ({AUTOMATIC_LABEL: AUTOMATIC}, {"pollInterval": "30s"}, False),
        ({AUTOMATIC_LABEL: AUTOMATIC}, {"fromTheFuture": 1}, False),
        ({AUTOMATIC_LABEL: "by hand"}, {}, False),
        (None, {}, False),
    ],
    ids=["as made", "defaults filled in", "edited", "cannot be read", "other label", "written by people"],
)
def test_only_an_automatic_kmskey_that_nobody_edited_is_neutral(labels: Json | None, spec: Json, neutral: bool) -> None:
    """Whoever says anything in it has spoken."""
    assert entry(labels=labels, **spec).is_neutral is neutral


def test_a_version_that_an_object_names_first_is_asked_for_once() -> None:
    """It may be newer than the last poll: until the next one it is not taken for an old one."""
    found = entry()
    assert not found.meet(KeyUse(A, "v2")), "nothing is known yet: the first poll is on its way anyway"
    found.learn(described(version="v1"), 1.0)
    assert not found.meet(KeyUse(B, "v2"))
    assert not found.meet(KeyUse(A, "v1"))
    assert [found.meet(KeyUse(A, "v2")) for _ in range(2)] == [True, False]
    assert not found.is_outdated(KeyUse(A, "v2"))
    found.learn(described(version="v1"), 2.0)
    assert not found.is_outdated(KeyUse(A, "v2")), "it was met after this question was asked"
    found.learn(described(version="v1"), 3.0, frozenset({KeyUse(A, "v2")}))
    assert found.is_outdated(KeyUse(A, "v2"))
