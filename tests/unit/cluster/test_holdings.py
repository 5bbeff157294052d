"""Which key versions objects need: read from anything that may stand in the cluster, and counted without a slip."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kmseal.cluster.holdings import Held, Holdings, Inventory, KeyUse, read_holdings
from kmseal.cluster.names import Key
from kmseal.envelope import DataKeyId
from kmseal.manifest import Algorithm, Wrapping
from kmseal.rewrapped import Rewrapped, digest

Json = dict[str, Any]
K1, K2 = "acs:kms:cn-hangzhou:1:key/one", "acs:kms:cn-hangzhou:1:key/two"


def wrapping(key_id: str = K1, version: str = "v1", wrapped: bytes = b"w") -> Wrapping:
    return Wrapping(key_id, version, Algorithm.KMS_SYMMETRIC, wrapped)


def instead(replaced: Wrapping, newer: Wrapping, data_key_id: str = "aaaa") -> Json:
    return Rewrapped(DataKeyId(data_key_id), digest(replaced), newer).to_dict()


def raw(*wrappings: Wrapping, rewrapped: tuple[Json, ...] = (), data_key_id: str = "aaaa") -> Json:
    spec = {"dataKeys": [{"id": data_key_id, "wrappings": [item.to_dict() for item in wrappings]}]}
    return {"spec": spec, "status": {"rewrapped": list(rewrapped)}}


def held(spec: KeyUse, newest: KeyUse | None = None) -> Held:
    return Held(spec, newest or spec)


OLD, NEW = wrapping(), wrapping(K2, "v9", b"n")


def test_every_wrapping_of_every_data_key_is_held_once() -> None:
    """Those of data keys that no value uses, and of several data keys under one version."""
    object_ = raw(OLD, NEW)
    object_["spec"]["dataKeys"].append({"id": "bbbb", "wrappings": [OLD.to_dict(), wrapping(K2, "v3").to_dict()]})
    assert read_holdings(object_) == (held(KeyUse(K1, "v1")), held(KeyUse(K2, "v9")), held(KeyUse(K2, "v3")))


def test_a_stand_in_is_the_newest_while_its_digest_stands() -> None:
    """What Git holds is still told apart from what the cluster opens by."""
    assert read_holdings(raw(OLD, rewrapped=(instead(OLD, NEW),))) == (held(KeyUse(K1, "v1"), KeyUse(K2, "v9")),)


def test_of_several_stand_ins_the_last_counts() -> None:
    """As the reader prefers them (docs/format.md, R3)."""
    later = wrapping(K2, "v10", b"m")
    object_ = raw(OLD, rewrapped=(instead(OLD, NEW), instead(OLD, later)))
    assert read_holdings(object_) == (held(KeyUse(K1, "v1"), KeyUse(K2, "v10")),)


def test_a_stand_in_for_what_is_gone_or_of_another_data_key_is_not_counted() -> None:
    """A new spec discards it; so it needs no key any more."""
    changed = wrapping(wrapped=b"other bytes")
    for dead in (instead(changed, NEW), instead(OLD, NEW, "bbbb")):
        assert read_holdings(raw(OLD, rewrapped=(dead,))) == (held(KeyUse(K1, "v1")),)


def test_an_object_that_is_wrong_in_other_ways_still_needs_its_keys() -> None:
    """Else a key would be called safe that a corrected object cannot open without."""
    broken = {**OLD.to_dict(), "algorithm": "ROT13", "wrapped": "?", "more": 1}
    object_ = {"spec": {"dataKeys": [{"id": 7, "wrappings": [broken]}], "encryptedData": "nonsense"}}
    assert read_holdings(object_) == (held(KeyUse(K1, "v1")),)


names = st.sampled_from(
    ["id", "dataKeys", "wrappings", "keyId", "keyVersionId", "rewrapped", "dataKeyId", "digest", "wrapping", "wrapped"]
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from([K1, "v1", "aaaa", digest(OLD)])
)
garbage = st.recursive(
    leaves | st.just(OLD.to_dict()) | st.just(instead(OLD, NEW)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
data_keys = st.fixed_dictionaries({"id": garbage, "wrappings": garbage | st.lists(st.just(OLD.to_dict()) | garbage)})
specs = garbage | st.fixed_dictionaries({"dataKeys": st.lists(data_keys, max_size=3)})
statuses = garbage | st.fixed_dictionaries({"rewrapped": st.lists(st.just(instead(OLD, NEW)) | garbage, max_size=3)})


@given(specs, statuses)
def test_nothing_that_stands_in_an_object_can_stop_the_reader(spec: object, status: object) -> None:
    """The feed meets what was written before the schema forbade it; one such object must not end the operator."""
    for holding in read_holdings({"spec": spec, "status": status}):
        assert all(isinstance(part, str) for use in holding for part in use)


@given(data_key_id=garbage)
def test_no_form_of_a_data_keys_id_can_stop_the_reader_beside_a_stand_in(data_key_id: object) -> None:
    """It is looked up among the stand-ins, where not every value can be looked up."""
    object_ = raw(OLD, rewrapped=(instead(OLD, NEW),))
    object_["spec"]["dataKeys"][0]["id"] = data_key_id
    newest = KeyUse(K2, "v9") if data_key_id == "aaaa" else None
    assert read_holdings(object_) == (held(KeyUse(K1, "v1"), newest),)


@given(status=statuses)
def test_no_status_hides_what_the_spec_needs(status: object) -> None:
    """Whatever the status says, the keys of the spec count as held in Git."""
    found = read_holdings({**raw(OLD, NEW), "status": status})
    assert {item.spec for item in found} == {KeyUse(K1, "v1"), KeyUse(K2, "v9")}


KEYS = [Key("prod", name) for name in "abcd"]
USES = [KeyUse(key_id, version) for key_id in ("k1", "k2", "k3") for version in ("v1", "v2")]
holdings = st.lists(st.builds(Held, st.sampled_from(USES), st.sampled_from(USES)), max_size=3, unique=True).map(tuple)


class AsADictionary(RuleBasedStateMachine):
    """Compares the inventory with a plain dictionary from object to holdings."""

    def __init__(self) -> None:
        super().__init__()
        self.inventory = Inventory()
        self.plain: dict[Key, Holdings] = {}

    @rule(key=st.sampled_from(KEYS), after=holdings)
    def put(self, key: Key, after: Holdings) -> None:
        """Says whether anything is new; an object that holds nothing is an object, too."""
        assert self.inventory.put(key, after) is (self.plain.get(key) != after)
        self.plain[key] = after

    @rule(key=st.sampled_from(KEYS))
    def drop(self, key: Key) -> None:
        """Answers with what was held; an unknown object held nothing."""
        assert self.inventory.drop(key) == self.plain.pop(key, ())

    @rule(wanted=st.sets(st.sampled_from(["k1", "k2", "k3", "k4"])))
    def holders(self, wanted: set[str]) -> None:
        """Each object that names one of the keys, in Git or in the cluster, exactly once."""
        expected = [
            key for key, held in self.plain.items() if any(use.key_id in wanted for item in held for use in item)
        ]
        assert sorted(self.inventory.holders(wanted)) == sorted(expected)

    @invariant()
    def agrees(self) -> None:
        """Each distinct holdings is one group that is never empty, and each object is in the one of its holdings."""
        groups = [(held, list(keys)) for held, keys in self.inventory.groups()]
        assert len({held for held, _ in groups}) == len(groups)
        assert all(keys for _, keys in groups)
        assert sorted((key, held) for held, keys in groups for key in keys) == sorted(self.plain.items())
        assert {key: self.inventory.of(key) for key in self.plain} == self.plain


TestAsADictionary = AsADictionary.TestCase


def test_objects_of_equal_holdings_share_one_tuple() -> None:
    """10,000 objects under one key must not cost 10,000 tuples."""
    inventory = Inventory()
    for key in KEYS:
        inventory.put(key, (held(KeyUse("k1", "v1")),))
    assert len({id(inventory.of(key)) for key in KEYS}) == 1
