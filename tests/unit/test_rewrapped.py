"""Which wrappings count beside those of spec: for honest statuses, and for those of somebody who may write any."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmseal.envelope import DataKeyId, Place, Scope
from kmseal.errors import KmsealError
from kmseal.manifest import Algorithm, DataKey, EncryptedSecret, Wrapping
from kmseal.rewrapped import Rewrapped, brought_up_to_date, digest, live, openers, read_rewrapped

Json = dict[str, Any]
PLACE = Place.of(Scope.STRICT, "prod", "db")
IDS = [DataKeyId("aaaa"), DataKeyId("bbbb")]
KEYS = [f"acs:kms:cn-hangzhou:1:key/{letter}" for letter in "abc"] + ["local:dev"]


def wrapping(key_id: str, version: str, wrapped: bytes) -> Wrapping:
    local = key_id.startswith("local:")
    return Wrapping(key_id, version, Algorithm.LOCAL_AES_256_GCM if local else Algorithm.KMS_SYMMETRIC, wrapped)


def wrappings(*wrapped: bytes) -> st.SearchStrategy[Wrapping]:
    return st.builds(wrapping, st.sampled_from(KEYS), st.sampled_from(("v1", "v2")), st.sampled_from(wrapped))


# Few bytes and few keys, so that things collide. Those of spec begin with s, those that the status adds with n.
IN_SPEC = wrappings(b"s1", b"s2", b"s3")
ADDED = wrappings(b"n1", b"n2", b"n3")


def data_keys(id_: DataKeyId) -> st.SearchStrategy[DataKey]:
    items = st.lists(IN_SPEC, min_size=1, max_size=4, unique_by=lambda item: item.key_id)
    return st.builds(lambda found: DataKey(id_, PLACE, tuple(found)), items)


def items(added: st.SearchStrategy[Wrapping]) -> st.SearchStrategy[list[Rewrapped]]:
    """Items of any id, for any wrapping of spec or of none, several for one, in any order."""
    digests = IN_SPEC.map(digest) | ADDED.map(digest) | st.just("0" * 64)
    return st.lists(st.builds(Rewrapped, st.sampled_from([*IDS, DataKeyId("zzzz")]), digests, added), max_size=12)


def object_of(*found: DataKey) -> EncryptedSecret:
    line = "v1.aaaa." + "A" * 44
    return EncryptedSecret.parse(
        {
            "apiVersion": "kmseal.dev/v1alpha1",
            "kind": "EncryptedSecret",
            "metadata": {"namespace": "prod", "name": "db"},
            "spec": {"dataKeys": [data_key.to_dict() for data_key in found], "encryptedData": {"password": line}},
        }
    )


OLD = wrapping(KEYS[0], "v1", b"s1")
NEW = wrapping(KEYS[0], "v2", b"n1")
ITEM = Rewrapped(IDS[0], digest(OLD), NEW)
GOOD = ITEM.to_dict()


@given(data_keys(IDS[0]), items(IN_SPEC | ADDED))
def test_no_wrapping_of_spec_is_ever_lost(data_key: DataKey, status: list[Rewrapped]) -> None:
    """Whatever the status says, all of spec are tried, nothing is tried twice, and at most one more for each."""
    tried = openers(data_key, status)
    assert set(data_key.wrappings) <= set(tried)
    assert len(tried) == len(set(tried)) <= 2 * len(data_key.wrappings)


@given(data_keys(IDS[0]), items(ADDED))
def test_replaced_wrappings_are_tried_last(data_key: DataKey, status: list[Rewrapped]) -> None:
    """The stand-in takes the place of what it replaces; those that nothing replaces keep theirs."""
    tried = openers(data_key, status)
    standing = {item.digest: item.wrapping for item in live(object_of(data_key), status)}
    expected = [standing.get(digest(item), item) for item in data_key.wrappings]
    replaced = [item for item in data_key.wrappings if digest(item) in standing]
    assert list(tried) == list(dict.fromkeys(expected + replaced))


@given(data_keys(IDS[0]), items(IN_SPEC | ADDED), st.data())
def test_a_changed_wrapping_discards_its_stand_in(
    data_key: DataKey, status: list[Rewrapped], data: st.DataObject
) -> None:
    """As soon as any part of a wrapping in spec differs, what stood in for it is not tried any more."""
    old = data.draw(st.sampled_from(data_key.wrappings))
    stand_in = wrapping(old.key_id, "v9", b"stand-in")
    status = [*status, Rewrapped(data_key.id, digest(old), stand_in)]
    assert stand_in in openers(data_key, status)
    changed = data.draw(
        st.sampled_from(
            [
                wrapping(old.key_id, "v3", old.wrapped),
                wrapping(old.key_id, old.key_version_id, old.wrapped + b"x"),
                wrapping("local:another", old.key_version_id, old.wrapped),
            ]
        )
    )
    written = DataKey(data_key.id, PLACE, tuple(changed if item is old else item for item in data_key.wrappings))
    assert stand_in not in openers(written, status)
    assert stand_in not in [item.wrapping for item in live(object_of(written), status)]


@given(st.tuples(*map(data_keys, IDS)), items(IN_SPEC | ADDED))
def test_live_items_are_those_of_spec_one_for_each(found: tuple[DataKey, ...], status: list[Rewrapped]) -> None:
    """An item under another data key, or for a wrapping that is not there, is not live; of several, the last is."""
    places = {(key.id, digest(item)) for key in found for item in key.wrappings}
    alive = live(object_of(*found), status)
    assert all((item.data_key_id, item.digest) in places for item in alive)
    assert len({(item.data_key_id, item.digest) for item in alive}) == len(alive)
    for item in alive:
        assert item == [one for one in status if (one.data_key_id, one.digest) == (item.data_key_id, item.digest)][-1]
    for data_key in found:
        assert openers(data_key, alive) == openers(data_key, status)
        assert brought_up_to_date(data_key, alive) == brought_up_to_date(data_key, status)


@given(data_keys(IDS[0]), items(IN_SPEC | ADDED))
def test_what_is_brought_up_to_date_is_a_good_data_key(data_key: DataKey, status: list[Rewrapped]) -> None:
    """Whatever the status says, Git gets a data key that parses: no two wrappings by one key, at least one."""
    current = brought_up_to_date(data_key, status)
    assert DataKey.parse(current.to_dict()) == current
    assert (current.id, current.sealed_for) == (data_key.id, data_key.sealed_for)
    assert set(current.wrappings) <= set(openers(data_key, status))


@given(data_keys(IDS[0]), items(ADDED))
def test_bringing_up_to_date_twice_changes_nothing_more(data_key: DataKey, status: list[Rewrapped]) -> None:
    """The operator writes items for wrappings of spec only: with the newer ones in place, none of them is live."""
    written = live(object_of(data_key), status)
    current = brought_up_to_date(data_key, written)
    assert brought_up_to_date(current, written) == current
    assert live(object_of(current), written) == ()


@given(data_keys(IDS[0]), items(ADDED))
def test_what_nothing_stands_in_for_stays_in_git(data_key: DataKey, status: list[Rewrapped]) -> None:
    """A stand-in never pushes out another wrapping of spec, not even one by the same key."""
    replaced = {item.digest for item in status if item.data_key_id == data_key.id}
    current = brought_up_to_date(data_key, status)
    assert {item for item in data_key.wrappings if digest(item) not in replaced} <= set(current.wrappings)


@given(data_keys(IDS[0]))
def test_without_newer_wrappings_nothing_changes(data_key: DataKey) -> None:
    """No status, no difference."""
    assert openers(data_key, ()) == data_key.wrappings
    assert brought_up_to_date(data_key, ()) == data_key
    assert live(object_of(data_key), ()) == ()


@given(IN_SPEC | ADDED, IN_SPEC | ADDED)
def test_two_wrappings_have_one_digest_only_if_they_are_one(first: Wrapping, second: Wrapping) -> None:
    """Everything that a wrapping says is in its digest."""
    assert (digest(first) == digest(second)) == (first == second)


def test_the_lengths_keep_fields_apart() -> None:
    """A character that moves from one field to the next changes the digest; so does the algorithm alone."""
    rsa = Wrapping(OLD.key_id, OLD.key_version_id, Algorithm.RSAES_OAEP_SHA_256, OLD.wrapped)
    assert digest(OLD) != digest(rsa)
    assert digest(wrapping("local:ab", "c", b"s")) != digest(wrapping("local:a", "bc", b"s"))


def test_a_stand_in_under_a_foreign_key_is_only_tried_first() -> None:
    """Somebody who may write the status can make a reader ask another key first; what spec says is still tried."""
    foreign = wrapping("acs:kms:cn-hangzhou:666:key/theirs", "v1", b"theirs")
    data_key = DataKey(IDS[0], PLACE, (OLD,))
    assert openers(data_key, [Rewrapped(IDS[0], digest(OLD), foreign)]) == (foreign, OLD)


def test_an_item_is_read_as_it_is_written() -> None:
    """What the operator writes it reads again."""
    assert Rewrapped.parse(GOOD) == ITEM
    assert read_rewrapped({"rewrapped": [GOOD], "observedGeneration": 1}) == (ITEM,)


@pytest.mark.parametrize(
    ("path", "value", "field", "reason"),
    [
        ("dataKeyId", "AAAA", "dataKeyId", "DataKeyId"),
        ("dataKeyId", 7, "dataKeyId", "WrongType"),
        ("dataKeyId", None, "dataKeyId", "MissingField"),
        ("digest", GOOD["digest"].upper(), "digest", "Digest"),
        ("digest", GOOD["digest"] + "\n", "digest", "Digest"),
        ("digest", GOOD["digest"][1:], "digest", "Digest"),
        ("digest", f"sha256:{GOOD['digest']}", "digest", "Digest"),
        ("wrapping", None, "wrapping", "MissingField"),
        ("wrapping", [], "wrapping", "WrongType"),
        ("wrapping/keyId", "acs:kms:cn-hangzhou:1:alias/a", "wrapping.keyId", "KeyId"),
        ("wrapping/wrapped", "AA", "wrapping.wrapped", "Base64"),
        ("wrapping/algorithm", "LOCAL_AES_256_GCM", "wrapping.algorithm", "Algorithm"),
        ("wrapping/note", "x", "wrapping.note", "UnknownField"),
        ("note", "x", "note", "UnknownField"),
    ],
)
def test_a_wrong_item_is_refused_and_ignored(path: str, value: object, field: str, reason: str) -> None:
    """Read alone, it is refused with the path of its field; in a status it is as if it were not there."""
    raw: Any = copy.deepcopy(GOOD)
    *parents, last = path.split("/")
    for part in parents:
        raw = raw[part]
    raw[last] = value
    item = raw if not parents else {**GOOD, "wrapping": raw}
    with pytest.raises(KmsealError) as caught:
        Rewrapped.parse(item, "status.rewrapped[3]")
    assert (caught.value.field, caught.value.reason) == (f"status.rewrapped[3].{field}", reason)
    assert read_rewrapped({"rewrapped": [item, GOOD]}) == (ITEM,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5) | st.sampled_from([*GOOD]), inner),
    max_leaves=10,
)


@given(JSON, st.lists(JSON | st.just(GOOD), max_size=5))
def test_no_status_is_in_the_way(status: Any, listed: list[Any]) -> None:
    """Whatever stands in a status, reading it raises nothing and finds what is good in it."""
    assert isinstance(read_rewrapped(status), tuple)
    assert read_rewrapped({"rewrapped": listed}) == (ITEM,) * listed.count(GOOD)
