"""The rules of all KMSKeys: who may use a key, where wrappings move, what a shut key takes away, who is told."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.cluster.holdings import Held, KeyUse
from kmseal.cluster.keys import Keys, Listeners, Mode, Unresolved
from kmseal.cluster.names import Key
from kmseal.cluster.reasons import Reason, reason_of_opening
from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value
from kmseal.errors import AccessDenied, KeyUnusable, KmsealError, Misconfigured, Unavailable
from kmseal.kms.provider import KeyDescription, KeyState
from kmseal.kmskey import AUTOMATIC, AUTOMATIC_LABEL
from kmseal.manifest import Algorithm, DataKey, EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, digest
from kmseal.target import Target
from kmseal_operator.moves import Moves

Json = dict[str, Any]
A, B, C, D = (f"acs:kms:cn-hangzhou:1:key/{letter}" for letter in "abcd")
ALIAS = "acs:kms:cn-hangzhou:1:alias/prod"
ENABLED, DISABLED = KeyState.ENABLED, KeyState.DISABLED
AUTOMATICALLY = {AUTOMATIC_LABEL: AUTOMATIC}


class Setting:
    """Keys, what the API server would show of them, and what the listeners were told."""

    def __init__(self, mode: Mode = Mode.OPEN) -> None:
        self.policies: list[frozenset[str]] = []
        self.namespaces: list[str] = []
        self.entries: list[str] = []
        self.keys = Keys(mode, Listeners(self.policies.append, self.namespaces.append, self.entries.append))
        self.moves = Moves(self.keys)
        self.version = 0

    def show(
        self, name: str, key_id: str, *, uid: str = "", labels: Json | None = None, status: Json | None = None,
        version: int | None = None, **spec: Any,
    ) -> None:  # fmt: skip
        """The feed shows a KMSKey."""
        self.version += 1
        metadata = {
            "name": name, "uid": uid or f"u-{name}", "labels": labels,
            "resourceVersion": str(version or self.version),
        }  # fmt: skip
        kind = {"apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey"}
        self.keys.observe({**kind, "metadata": metadata, "spec": {"keyId": key_id, **spec}, "status": status})

    def poll(self, name: str, key_id: str, version: str = "v1", state: KeyState = ENABLED) -> None:
        """KMS answers the keeper."""
        entry = self.keys.get(name)
        assert entry is not None
        self.keys.learn(entry, KeyDescription(key_id, state, version), 1.0)

    def told(self) -> tuple[list[frozenset[str]], list[str], list[str]]:
        """What the listeners were told since the last time: of keys, of namespaces, of KMSKeys."""
        told = self.policies[:], self.namespaces[:], self.entries[:]
        for heard in (self.policies, self.namespaces, self.entries):
            heard.clear()
        return told

    def reason(self, key_id: str, namespace: str = "prod") -> Reason | None:
        """Why a key may not be used."""
        error = self.keys.refusal(key_id, namespace)
        return reason_of_opening(error) if error else None


@pytest.fixture
def setting() -> Setting:
    """Open mode, nothing known."""
    return Setting()


def wrapping(key_id: str, wrapped: bytes = b"w", version: str = "v1") -> Wrapping:
    return Wrapping(key_id, version, Algorithm.KMS_SYMMETRIC, wrapped)


def object_of(*key_ids: str, unused: str = "") -> EncryptedSecret:
    """An object whose one used data key is wrapped by each of these; ``unused`` wraps one that no value names."""
    place = Place.of(Scope.STRICT, "prod", "db")
    data_keys = [DataKey(DataKeyId("aaaa"), place, tuple(map(wrapping, key_ids)))]
    if unused:
        data_keys.insert(0, DataKey(DataKeyId("bbbb"), place, (wrapping(unused),)))
    value = encrypt_value(Redacted(b"k" * 32), DataKeyId("aaaa"), place, "password", Redacted(b"x"))
    return EncryptedSecret("prod", "db", Scope.STRICT, tuple(data_keys), {"password": value}, Target("db"))


# Who may use a key


def test_in_open_mode_a_key_that_nobody_speaks_of_may_be_used(setting: Setting) -> None:
    """It is registered when it has opened something."""
    assert setting.reason(A) is None


def test_in_registered_mode_it_may_not() -> None:
    """A KMSKey that names or replaces it changes that, and so does its going; an alias does once it is resolved."""
    setting = Setting(Mode.REGISTERED)
    assert setting.reason(A) is Reason.KEY_NOT_REGISTERED
    setting.show("one", A, replaces=[B])
    assert (setting.reason(A), setting.reason(B)) == (None, None)
    setting.keys.vanish(Key("", "one"))
    assert setting.reason(A) is Reason.KEY_NOT_REGISTERED
    setting.show("two", ALIAS)
    assert setting.reason(A) is Reason.KEY_NOT_REGISTERED
    setting.poll("two", A)
    assert setting.reason(A) is None


def test_a_namespace_is_allowed_by_name_or_by_label(setting: Setting) -> None:
    """Either suffices; a namespace whose labels are not known, or not any more, is allowed by name only."""
    setting.show("one", A, allowedNamespaces={"names": ["prod"], "selector": {"matchLabels": {"team": "db"}}})
    setting.keys.label("data", {"team": "db"})
    setting.keys.label("web", {"team": "web"})
    expected = {"prod": None, "data": None, "web": Reason.NAMESPACE_NOT_ALLOWED, "new": Reason.NAMESPACE_NOT_ALLOWED}
    assert {namespace: setting.reason(A, namespace) for namespace in expected} == expected
    setting.keys.label("data", None)
    assert setting.reason(A, "data") is Reason.NAMESPACE_NOT_ALLOWED


def test_a_namespace_that_was_not_seen_yet_has_not_no_labels(setting: Setting) -> None:
    """A selector that asks for the absence of a label does not let it in before its labels are known."""
    absent = {"matchExpressions": [{"key": "locked", "operator": "DoesNotExist"}]}
    setting.show("one", A, allowedNamespaces={"selector": absent, "names": ["named"]})
    told = [setting.reason(A), setting.reason(A, "named")]
    setting.keys.label("prod", {})
    told.append(setting.reason(A))
    setting.keys.label("prod", {"locked": ""})
    told.append(setting.reason(A))
    refused = Reason.NAMESPACE_NOT_ALLOWED
    assert told == [refused, None, None, refused]


def test_every_kmskey_that_speaks_of_a_key_must_allow(setting: Setting) -> None:
    """One that names it, one that replaces it and an alias that named it before: the intersection may use it."""
    setting.show("by-alias", ALIAS, allowedNamespaces={"names": ["a", "b", "c"]})
    setting.poll("by-alias", A)
    setting.poll("by-alias", D)
    setting.show("by-name", A, allowedNamespaces={"names": ["b", "c", "d"]})
    setting.show("successor", B, replaces=[A], allowedNamespaces={"names": ["c", "d", "a"]})
    assert [name for name in "abcde" if setting.reason(A, name) is None] == ["c"]


def test_a_neutral_automatic_kmskey_limits_nobody_else(setting: Setting) -> None:
    """It was there first, and says nothing against what people write later."""
    setting.show("auto", A, labels=AUTOMATICALLY)
    setting.show("strict", A, allowedNamespaces={"names": ["prod"]})
    assert (setting.reason(A, "prod"), setting.reason(A, "web")) == (None, Reason.NAMESPACE_NOT_ALLOWED)
    assert [entry.key.name for entry in setting.keys.covering(A)] == ["strict", "auto"]


@pytest.mark.parametrize("key_id", [A, B])
def test_a_kmskey_that_cannot_be_read_allows_nobody(setting: Setting, key_id: str) -> None:
    """Neither its key nor one that it replaces, even where another KMSKey is fine; its correction heals."""
    setting.show("fine", A)
    setting.show("broken", A, replaces=[B], fromTheFuture=True)
    assert isinstance(setting.keys.refusal(key_id, "prod"), Misconfigured)
    assert setting.reason(C) is None
    setting.show("broken", A, replaces=[B])
    assert setting.reason(key_id) is None


def test_an_invalid_kmskey_that_was_readable_before_is_closed_at_once(setting: Setting) -> None:
    """And those who hold its keys are looked at again."""
    setting.show("one", A, replaces=[B])
    setting.told()
    setting.show("one", A, replaces=[B], fromTheFuture=True)
    assert setting.told()[0] == [frozenset({A, B})]
    assert setting.reason(B) is Reason.MISCONFIGURED


def test_a_refusal_names_the_kmskey_and_a_remedy(setting: Setting) -> None:
    """Who reads the condition knows whom to ask."""
    setting.show("one", A, allowedNamespaces={"names": []})
    refusal = setting.keys.refusal(A, "prod")
    assert isinstance(refusal, AccessDenied)
    assert "the KMSKey one does not allow namespace prod" in str(refusal)
    assert "administrator" in refusal.remedy


@pytest.mark.parametrize("state", KeyState)
def test_a_shut_key_may_not_be_used(setting: Setting, state: KeyState) -> None:
    """Whatever way it was shut; and not those that it replaces, which have states of their own."""
    setting.show("one", A, replaces=[B])
    setting.poll("one", A, state=state)
    assert setting.reason(A) is (None if state is ENABLED else Reason.KEY_UNUSABLE)
    assert setting.reason(B) is None


def test_a_limit_is_named_before_a_state(setting: Setting) -> None:
    """Enabling the key would not help a namespace that is not allowed."""
    setting.show("one", A, allowedNamespaces={"names": ["web"]}, status={"state": "Disabled"})
    assert setting.reason(A, "prod") is Reason.NAMESPACE_NOT_ALLOWED
    assert setting.reason(A, "web") is Reason.KEY_UNUSABLE


def test_only_what_may_be_opened_is_opened(setting: Setting) -> None:
    """The order stays; where nothing is left, the first refusal is raised; nothing at all is not refused here."""
    setting.show("one", A, allowedNamespaces={"names": []})
    setting.show("two", B)
    setting.poll("two", B, state=DISABLED)
    a, b, c, d = map(wrapping, (A, B, C, D))
    assert list(setting.keys.usable([d, a, c, b], "prod")) == [d, c]
    with pytest.raises(KeyUnusable):
        setting.keys.usable([b, a], "prod")
    assert list(setting.keys.usable([], "prod")) == []


def test_an_object_is_suspect_by_any_key_that_it_holds(setting: Setting) -> None:
    """In Git or in the cluster; that another wrapping may open it is seen on the closer look."""
    setting.show("one", A, allowedNamespaces={"names": ["web"]})
    a, b = KeyUse(A, "v1"), KeyUse(B, "v1")
    for holdings, suspect in (((Held(b, b),), False), ((Held(b, b), Held(a, b)), True), ((Held(b, a),), True)):
        assert setting.keys.is_suspect(holdings, "prod") is suspect
        assert not setting.keys.is_suspect(holdings, "web")


# How a key is reached


def test_nothing_is_opened_before_its_key_is_reached_as_the_kmskey_says(setting: Setting) -> None:
    """That is no refusal and no bar: what is Ready stays so while credentials are put right."""
    setting.show("one", A, credentials={"secretName": "keys"})
    entry = setting.keys.get("one")
    assert entry is not None
    with pytest.raises(Misconfigured, match="not tried yet"):
        setting.keys.usable([wrapping(A)], "prod")
    assert list(setting.keys.usable([wrapping(A), wrapping(B)], "prod")) == [wrapping(B)]
    assert setting.keys.refusal(A, "prod") is None
    assert setting.keys.bar(object_of(A), ()) is None
    entry.fail(Misconfigured("there is no Secret keys"), 1.0)
    with pytest.raises(Misconfigured, match="there is no Secret keys"):
        setting.keys.usable([wrapping(A)], "prod")
    setting.told()
    setting.keys.connect(entry)
    assert setting.told()[0] == [frozenset({A})]
    setting.keys.connect(entry)
    assert setting.told()[0] == []
    assert list(setting.keys.usable([wrapping(A)], "prod")) == [wrapping(A)]


def test_of_several_kmskeys_the_first_that_people_wrote_says_how_a_key_is_reached(setting: Setting) -> None:
    """One that only replaces the key may be of another account; an automatic one knows nothing of its own."""
    setting.show("a-successor", B, replaces=[A])
    assert setting.keys.speaker(A) is None
    setting.show("automatic", A, labels=AUTOMATICALLY)
    setting.show("second", A)
    setting.show("third", A, endpoint="kms.example.com")
    speaker = setting.keys.speaker(A)
    assert speaker is not None
    assert speaker.key.name == "second"
    assert list(setting.keys.usable([wrapping(A)], "prod")) == [wrapping(A)]
    setting.keys.vanish(Key("", "second"))
    with pytest.raises(Misconfigured):
        setting.keys.usable([wrapping(A)], "prod")


# Bars and revocation


def shut(setting: Setting, name: str, key_id: str, on_unavailable: str = "Remove") -> None:
    setting.show(name, key_id, onUnavailable=on_unavailable)
    setting.poll(name, key_id, state=DISABLED)


def test_an_object_is_barred_only_where_none_of_its_wrappings_may_be_opened(setting: Setting) -> None:
    """Of data keys that values use; the bar names the data key."""
    shut(setting, "one", A)
    assert setting.keys.bar(object_of(A, B), ()) is None
    assert setting.keys.bar(object_of(B, unused=A), ()) is None
    bar = setting.keys.bar(object_of(A, unused=B), ())
    assert bar is not None
    assert (bar.error.field, bar.revokes) == ("spec.dataKeys[1]", True)


def test_a_newer_wrapping_keeps_an_object_open(setting: Setting) -> None:
    """After a rotation to another key the old one may be shut, whatever Git still holds."""
    shut(setting, "one", A)
    object_ = object_of(A)
    newer = Rewrapped(DataKeyId("aaaa"), digest(object_.data_keys[0].wrappings[0]), wrapping(B, b"n"))
    assert setting.keys.bar(object_, [newer]) is None
    assert setting.keys.bar(object_, []) is not None


def test_all_keys_of_a_data_key_must_say_remove(setting: Setting) -> None:
    """A second region that says Retain, or that is only not allowed, keeps the target."""
    shut(setting, "one", A)
    shut(setting, "two", B, "Retain")
    setting.show("three", C, allowedNamespaces={"names": []}, onUnavailable="Remove")
    revokes = {}
    for other in (A, B, C):
        bar = setting.keys.bar(object_of(A, other), ())
        assert bar is not None
        revokes[other] = bar.revokes
    assert revokes == {A: True, B: False, C: False}


def retain(setting: Setting) -> None:
    """The default."""
    shut(setting, "one", A, "Retain")


def remembered(setting: Setting) -> None:
    """Only the status of an earlier process says that it is shut."""
    setting.show("one", A, onUnavailable="Remove", status={"state": "Disabled"})


def not_found(setting: Setting) -> None:
    """Nobody shut what is not there."""
    setting.show("one", A, onUnavailable="Remove", status={"state": "NotFound"})
    entry = setting.keys.get("one")
    assert entry is not None
    entry.miss(KeyUnusable("no such key"), 1.0)


def fault_after_a_restart(setting: Setting) -> None:
    """KMS does not answer: nothing is confirmed."""
    setting.show("one", A, onUnavailable="Remove", status={"state": "Disabled"})
    entry = setting.keys.get("one")
    assert entry is not None
    entry.fail(Unavailable("no answer"), 1.0)


def another_says_retain(setting: Setting) -> None:
    """Two KMSKeys of one key disagree."""
    shut(setting, "one", A)
    shut(setting, "two", A, "Retain")


def another_that_says_retain_was_not_asked_yet(setting: Setting) -> None:
    """As at a start, or where its credentials are wrong."""
    shut(setting, "one", A)
    setting.show("two", A, onUnavailable="Retain")


def another_cannot_be_read(setting: Setting) -> None:
    """What it says of it is not known."""
    shut(setting, "one", A)
    setting.show("two", A, onUnavailable="Remove", fromTheFuture=True)


@pytest.mark.parametrize(
    "case",
    [
        retain,
        remembered,
        not_found,
        fault_after_a_restart,
        another_says_retain,
        another_that_says_retain_was_not_asked_yet,
        another_cannot_be_read,
    ],
    ids=lambda case: case.__name__,
)
def test_nothing_is_removed_on_less_than_everybodys_word(setting: Setting, case: Callable[[Setting], None]) -> None:
    """Shut on purpose, seen by this process, and no KMSKey of the key that says otherwise."""
    case(setting)
    setting.show("barring", A, allowedNamespaces={"names": ["web"]}, onUnavailable="Remove")
    bar = setting.keys.bar(object_of(A), ())
    assert bar is not None
    assert not bar.revokes


def test_a_neutral_automatic_kmskey_has_no_word_in_it(setting: Setting) -> None:
    """Its Retain is a default that nobody chose; once somebody edits it, it counts."""
    shut(setting, "one", A)
    setting.show("auto", A, labels=AUTOMATICALLY)
    bar = setting.keys.bar(object_of(A), ())
    assert bar is not None
    assert bar.revokes
    setting.show("auto", A, labels=AUTOMATICALLY, pollInterval="30s")
    bar = setting.keys.bar(object_of(A), ())
    assert bar is not None
    assert not bar.revokes


def test_enabling_the_key_lifts_the_bar(setting: Setting) -> None:
    """At the next poll."""
    shut(setting, "one", A)
    assert setting.keys.bar(object_of(A), ()) is not None
    setting.poll("one", A)
    assert setting.keys.bar(object_of(A), ()) is None


# Where wrappings move


def moved(setting: Setting, key_id: str, version: str = "v1", *, asked: bool | None = None) -> str:
    """Key and version where a wrapping should move; empty where it should not."""
    found = setting.moves.destination(KeyUse(key_id, version), "prod", asked=asked)
    return f"{found.key_id[-1]} {found.primary_version}" if found else ""


def test_an_older_version_moves_to_the_primary_one(setting: Setting) -> None:
    """The primary one stays, and so does a key that nobody speaks of."""
    setting.show("one", A)
    setting.poll("one", A, "v2")
    assert (moved(setting, A, "v1"), moved(setting, A, "v2"), moved(setting, B)) == ("a v2", "", "")


def test_nothing_moves_before_kms_was_asked_or_while_the_key_is_shut(setting: Setting) -> None:
    """What the status remembers may be long past."""
    setting.show("one", A, status={"state": "Enabled", "primaryVersion": "v2"})
    assert moved(setting, A, "v1") == ""
    setting.poll("one", A, "v2")
    assert moved(setting, A, "v1") == "a v2"
    setting.poll("one", A, "v2", DISABLED)
    assert moved(setting, A, "v1") == ""


@pytest.mark.parametrize(
    ("rewrap", "asked", "expected"),
    [
        ("Auto", None, "a v2"), ("Auto", True, "a v2"), ("Auto", False, ""),
        ("Manual", None, ""), ("Manual", True, "a v2"), ("Manual", False, ""),
    ],
)  # fmt: skip
def test_the_annotation_wins_over_manual_and_auto(
    setting: Setting, rewrap: str, asked: bool | None, expected: str
) -> None:
    """True also where the KMSKey says Manual, False never; without it the KMSKey decides."""
    setting.show("one", A, rewrap=rewrap)
    setting.poll("one", A, "v2")
    assert moved(setting, A, "v1", asked=asked) == expected
    assert moved(setting, A, "v2", asked=asked) == ""


def test_a_chain_of_replacements_is_followed_to_its_end(setting: Setting) -> None:
    """In one step, so that no object is wrapped three times; a current wrapping in the middle moves, too."""
    setting.show("b", B, replaces=[A])
    setting.show("c", ALIAS, replaces=[B])
    setting.poll("b", B, "v5")
    setting.poll("c", C, "v7")
    setting.poll("c", D, "v8")
    assert [moved(setting, key_id, "v5") for key_id in (A, B, C, D)] == ["d v8"] * 4
    assert moved(setting, D, "v8") == ""


def test_a_chain_waits_for_its_end(setting: Setting) -> None:
    """A stop in the middle would be wrapped again; what says Manual at the end decides."""
    setting.show("b", B, replaces=[A])
    setting.show("c", C, replaces=[B], rewrap="Manual")
    setting.poll("b", B)
    assert moved(setting, A) == ""
    setting.poll("c", C)
    assert (moved(setting, A), moved(setting, A, asked=True)) == ("", "c v1")


@pytest.mark.parametrize("length", [2, 3])
def test_a_circle_of_replacements_moves_nothing(setting: Setting, length: int) -> None:
    """Not for ever round; what leads into the circle stays as well, and the others go on."""
    circle = [A, B, C][:length]
    for index, key_id in enumerate(circle):
        setting.show(f"circle-{index}", key_id, replaces=[circle[index - 1]])
        setting.poll(f"circle-{index}", key_id, "v2")
    for key_id in circle:
        assert setting.moves.final(key_id) is None
        assert moved(setting, key_id, "v1", asked=True) == ""
    setting.show("apart", D)
    setting.poll("apart", D, "v2")
    assert moved(setting, D, "v1") == "d v2"


def test_an_alias_that_went_there_and_back_leaves_no_circle(setting: Setting) -> None:
    """After A, B, A the wrappings under B come home."""
    setting.show("one", ALIAS)
    for key_id in (A, B, A):
        setting.poll("one", key_id)
    assert (moved(setting, A), moved(setting, B)) == ("", "a v1")


def test_an_alias_that_was_never_resolved_is_no_end(setting: Setting) -> None:
    """What it replaces stays where it is, and goes on being rotated there."""
    setting.show("one", ALIAS, replaces=[A])
    assert moved(setting, A) == ""
    setting.show("two", A)
    setting.poll("two", A, "v2")
    assert moved(setting, A) == "a v2"
    setting.poll("one", B)
    assert moved(setting, A) == "b v1"


graph = st.dictionaries(st.sampled_from("abcd"), st.sets(st.sampled_from("abcd"), max_size=3), max_size=4)


@given(graph)
def test_every_move_ends(replaces: Mapping[str, set[str]]) -> None:
    """Whatever KMSKeys replace: a wrapping that has been moved once is where it should be."""
    setting = Setting()
    ids = dict(zip("abcd", (A, B, C, D), strict=True))
    for name, replaced in replaces.items():
        setting.show(name, ids[name], replaces=[ids[other] for other in sorted(replaced - {name})])
        setting.poll(name, ids[name], "v2")
    for key_id in ids.values():
        first = setting.moves.destination(KeyUse(key_id, "v1"), "prod")
        if first is not None:
            assert setting.moves.destination(KeyUse(first.key_id, first.primary_version), "prod") is None


def test_older_versions_come_first(setting: Setting) -> None:
    """In the order in which they were primary; those that were never seen as such are older than all of them."""
    setting.show("one", A)
    for version in ("v9", "v3", "v5"):
        setting.poll("one", A, version)
    uses = [KeyUse(A, version) for version in ("v5", "v9", "unheard-of", "v3")]
    ordered = sorted(((Held(use, use),) for use in uses), key=setting.moves.age)
    assert [held.newest.key_version_id for (held,) in ordered] == ["unheard-of", "v9", "v3", "v5"]


def test_aliases_that_were_swapped_do_not_chase_each_other(setting: Setting) -> None:
    """Each key is now what some alias names: what is under it stays, and no circle is told."""
    other = ALIAS.replace("prod", "test")
    setting.show("x", ALIAS)
    setting.show("y", other)
    for x, y in ((A, B), (B, A)):
        setting.poll("x", x)
        setting.poll("y", y)
    for name, key_id in (("x", A), ("y", B)):
        entry = setting.keys.get(name)
        assert entry is not None
        assert entry.former == {key_id}
        assert not setting.moves.is_stale(entry, KeyUse(key_id, "v1"))
        assert setting.moves.destination(KeyUse(key_id, "v1"), "prod") is None


def test_nothing_moves_to_a_key_that_its_namespace_may_not_use(setting: Setting) -> None:
    """Else the object would be locked out as soon as Git follows."""
    setting.show("new", B, replaces=[A], allowedNamespaces={"names": ["staging"]})
    setting.poll("new", B)
    setting.keys.label("staging", {})
    setting.keys.label("prod", {})
    assert setting.moves.destination(KeyUse(A, "v1"), "prod") is None
    moved = setting.moves.destination(KeyUse(A, "v1"), "staging")
    assert moved is not None
    assert moved.key_id == B


def test_an_alias_that_cannot_be_resolved_limits_every_key_that_it_may_mean(setting: Setting) -> None:
    """Who may decrypt and not describe gets past no limit; keys that people registered themselves are left alone."""
    setting.show("limited", ALIAS, allowedNamespaces={"names": ["staging"]})
    setting.show("met", B, labels=AUTOMATICALLY)
    setting.show("known", C)
    elsewhere = A.replace("hangzhou", "beijing")
    # A manifest may claim any account and region.
    assert [setting.reason(key) for key in (A, B, elsewhere)] == [Reason.NAMESPACE_NOT_ALLOWED] * 3
    assert setting.reason(C) is None
    assert setting.reason(A, "staging") is None
    setting.poll("limited", D)
    assert [setting.reason(key) for key in (A, B, D)] == [None, None, Reason.NAMESPACE_NOT_ALLOWED]


def test_a_false_account_or_region_gets_around_nothing(setting: Setting) -> None:
    """KMS opens by the ciphertext: what is said of a key holds whatever name a manifest gives it."""
    setting.show("one", A, allowedNamespaces={"names": ["staging"]})
    for false in (A.replace(":1:", ":2:"), A.replace("hangzhou", "beijing")):
        assert setting.reason(false) is Reason.KEY_NOT_REGISTERED
        assert setting.reason(false, "staging") is Reason.KEY_NOT_REGISTERED
    assert setting.reason(A, "staging") is None


def test_a_former_key_that_is_shut_opens_nothing(setting: Setting) -> None:
    """It is asked for as long as objects hold it; what its alias named says Remove for it, unless it has its own."""
    setting.show("prod", ALIAS, onUnavailable="Remove")
    setting.poll("prod", A)
    setting.poll("prod", B)
    entry = setting.keys.get("prod")
    assert entry is not None
    setting.told()
    setting.keys.learn_former(entry, A, DISABLED)
    assert setting.told()[0] == [frozenset({A})]
    assert setting.reason(A) is Reason.KEY_UNUSABLE
    assert setting.reason(B) is None
    assert setting.keys.is_revoked(A)
    setting.show("own", A)
    assert not setting.keys.is_revoked(A), "its own KMSKey says Retain"
    setting.keys.learn_former(entry, A, ENABLED)
    assert setting.reason(A) is None


# What the feed shows


def test_an_older_version_of_a_kmskey_changes_nothing(setting: Setting) -> None:
    """A list may bring what the watch has overtaken."""
    setting.show("one", A, version=9, allowedNamespaces={"names": []})
    for version in (8, 9):
        setting.show("one", A, version=version)
    assert setting.reason(A) is Reason.NAMESPACE_NOT_ALLOWED


def test_what_kms_said_survives_an_edit_and_an_echo(setting: Setting) -> None:
    """The status that is shown may be older than the last poll."""
    setting.show("one", ALIAS)
    setting.poll("one", A, "v2", DISABLED)
    setting.show("one", ALIAS, pollInterval="30s", status={"keyId": B, "state": "Enabled"})
    assert (setting.reason(A), setting.reason(B)) == (Reason.KEY_UNUSABLE, None)


def test_who_polls_no_key_hears_of_its_state_by_the_status(setting: Setting) -> None:
    """The broker's kill switch: what the operator writes counts, as long as nobody here has asked KMS."""
    told = []
    for state in ("Enabled", "Disabled", "Enabled"):
        setting.show("one", ALIAS, status={"keyId": A, "state": state})
        told.append(setting.reason(A))
    assert told == [None, Reason.KEY_UNUSABLE, None]
    setting.told()
    setting.show("one", ALIAS, status={"keyId": B, "state": "Disabled"})
    assert (setting.reason(A), setting.reason(B)) == (None, Reason.KEY_UNUSABLE)
    assert setting.told() == ([frozenset({A, B})], [], ["one"])


def test_a_shut_key_and_an_unknown_limit_are_told_apart_from_what_looks_like_them(setting: Setting) -> None:
    """The broker takes values back for the first, and never for the second."""
    setting.show("shut", A, status={"state": "Disabled"})
    shut = setting.keys.refusal(A, "prod")
    assert isinstance(shut, KeyUnusable)
    assert shut.reason == "KeyDisabled"
    setting.show("unknown", ALIAS, allowedNamespaces={"names": []})
    unknown = setting.keys.refusal(B, "prod")
    assert isinstance(unknown, Unresolved)
    assert unknown.reason == Reason.NAMESPACE_NOT_ALLOWED


def test_a_kmskey_that_was_made_again_has_learned_nothing(setting: Setting) -> None:
    """It is another one of that name: the keeper is told, so that it asks at once."""
    setting.show("one", A)
    setting.poll("one", A, state=DISABLED)
    setting.told()
    setting.show("one", A, uid="u-other")
    assert setting.reason(A) is None
    assert setting.told() == ([frozenset({A})], [], ["one"])


def test_present_is_what_the_feed_shows(setting: Setting) -> None:
    """By it a new list finds what is gone; cluster-scoped objects have no namespace."""
    setting.show("one", A)
    setting.show("two", B)
    setting.keys.vanish(Key("", "one"))
    assert setting.keys.present() == {Key("", "two")}
    setting.keys.label("prod", {})
    setting.keys.label("web", {})
    setting.keys.label("web", None)
    assert list(setting.keys.labelled()) == ["prod"]


# Who is told


def test_listeners_are_told_of_new_changed_and_gone_kmskeys(setting: Setting) -> None:
    """With all keys that it spoke of before or speaks of now; not of a mere echo of a status."""
    setting.show("one", A, replaces=[B])
    assert setting.told() == ([frozenset({A, B})], [], ["one"])
    setting.show("one", A, replaces=[C])
    assert setting.told() == ([frozenset({A, B, C})], [], ["one"])
    setting.show("one", A, replaces=[C], status={"state": "Enabled"}, labels={"seen": "yes"})
    assert setting.told() == ([], [], [])
    setting.keys.vanish(Key("", "one"))
    assert setting.told() == ([frozenset({A, C})], [], ["one"])
    setting.keys.vanish(Key("", "one"))
    assert setting.told() == ([], [], [])


def test_listeners_are_told_of_states_and_moves_once(setting: Setting) -> None:
    """And of the first answer, by which what was remembered is confirmed; not of a new version alone."""
    setting.show("one", ALIAS, status={"keyId": A, "state": "Disabled"})
    setting.told()
    for state, key_id, version, expected in (
        (DISABLED, A, "v1", [frozenset({A})]),
        (DISABLED, A, "v1", []),
        (ENABLED, A, "v1", [frozenset({A})]),
        (ENABLED, A, "v2", []),
        (ENABLED, B, "v1", [frozenset({A, B})]),
    ):
        setting.poll("one", key_id, version, state)
        assert setting.told() == (expected, [], [])


def test_listeners_are_told_when_a_key_answers_again(setting: Setting) -> None:
    """What waits for it is tried at once; that it still fails is no news."""
    setting.show("one", A)
    setting.poll("one", A)
    setting.told()
    entry = setting.keys.get("one")
    assert entry is not None
    entry.fail(Unavailable("no answer"), 2.0)
    entry.fail(Unavailable("no answer"), 3.0)
    assert setting.told() == ([], [], [])
    setting.poll("one", A)
    assert setting.told() == ([frozenset({A})], [], [])


def test_listeners_are_told_of_labels_only_where_a_rule_reads_labels(setting: Setting) -> None:
    """Each change once, and the end of a namespace; 10,000 namespaces without a selector are nobody's business."""
    setting.show("one", A, allowedNamespaces={"names": ["prod"]})
    setting.told()
    setting.keys.label("prod", {"a": "1"})
    assert setting.told() == ([], [], [])
    setting.show("two", B, allowedNamespaces={"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}})
    setting.told()
    for labels, told in (({"a": "1"}, []), ({"a": "2"}, ["prod"]), (None, ["prod"]), (None, [])):
        setting.keys.label("prod", labels)
        assert setting.told() == ([], told, [])


@given(
    st.lists(st.sampled_from(["prod", "web", "data"]), unique=True),
    st.lists(st.sampled_from(["prod", "web", "data"]), unique=True),
)
def test_a_bar_never_lets_through_what_a_rule_forbids(first: list[str], second: list[str]) -> None:
    """For any two rules over one key: usable, refusal and bar agree with the plain intersection."""
    setting = Setting()
    setting.show("one", A, allowedNamespaces={"names": first})
    setting.show("two", B, replaces=[A], allowedNamespaces={"names": second})
    allowed = "prod" in {*first} & {*second}
    assert (setting.keys.refusal(A, "prod") is None) is allowed
    assert (setting.keys.bar(object_of(A), ()) is None) is allowed
    try:
        opened: Any = setting.keys.usable([wrapping(A)], "prod")
    except KmsealError:
        opened = None
    assert (opened is not None) is allowed
