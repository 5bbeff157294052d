"""The parser of KMSKeys against the table that the CRD is held to as well, and selectors against a naive model."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kmskeys import ACCEPTED, ALIAS, CASES, CERTIFICATE, KEY, OTHER, ROLE, Case, Json, everything, manifest

from kmseal.errors import KmsealError
from kmseal.kmskey import KMSKey, OnUnavailable, Rewrap, Role
from kmseal.selectors import AllowedNamespaces, Operator, Requirement
from kmseal.structure import Fields

REFERENCE = Path(__file__).parents[2] / "docs" / "reference-kmskey.md"
FEW = ("a", "b", "c")
LABELS = st.dictionaries(st.sampled_from(FEW), st.sampled_from(("", "1", "2")), max_size=3)


def selectors() -> st.SearchStrategy[Json]:
    """Selectors over few labels, so that they often match."""
    values = st.lists(st.sampled_from(("", "1", "2")), min_size=1, max_size=2)
    sets = st.fixed_dictionaries(
        {"key": st.sampled_from(FEW), "operator": st.sampled_from(("In", "NotIn")), "values": values}
    )
    presence = st.fixed_dictionaries(
        {"key": st.sampled_from(FEW), "operator": st.sampled_from(("Exists", "DoesNotExist"))}
    )
    return st.fixed_dictionaries(
        {}, optional={"matchLabels": LABELS, "matchExpressions": st.lists(sets | presence, max_size=3)}
    )


def naive(selector: Json, labels: Mapping[str, str]) -> bool:
    """What the documentation of Kubernetes says about selectors, word by word."""
    for key, value in selector.get("matchLabels", {}).items():
        if key not in labels or labels[key] != value:
            return False
    for demand in selector.get("matchExpressions", []):
        there = demand["key"] in labels
        match demand["operator"]:
            case "In":
                met = there and labels[demand["key"]] in demand["values"]
            case "NotIn":
                met = not there or labels[demand["key"]] not in demand["values"]
            case "Exists":
                met = there
            case _:
                met = not there
        if not met:
            return False
    return True


def test_every_member_is_read() -> None:
    """A spec with everything becomes a value with everything."""
    raw = manifest(everything())
    raw["status"] = {"state": "Enabled", "of": "no interest here"}
    key = KMSKey.parse(raw)
    assert key == KMSKey(
        name=raw["metadata"]["name"],
        key_id=KEY,
        replaces=(OTHER, "local:dev"),
        endpoint="kst-hzz62.cryptoservice.kms.aliyuncs.com:8443",
        ca_bundle=CERTIFICATE,
        role=Role(ROLE["arn"], "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1", "kmseal@prod"),
        allowed_namespaces=AllowedNamespaces(
            frozenset({"prod", "prod-eu"}),
            (
                Requirement("example.com/tier", Operator.IN, ("",)),
                Requirement("team", Operator.IN, ("shop",)),
                Requirement("kubernetes.io/metadata.name", Operator.NOT_IN, ("kube-system", "default")),
                Requirement("example.com/retired", Operator.DOES_NOT_EXIST),
                Requirement("env", Operator.EXISTS),
            ),
        ),
        rewrap=Rewrap.MANUAL,
        on_unavailable=OnUnavailable.REMOVE,
        poll_seconds=300.0,
    )
    assert not key.is_alias


def test_a_key_alone_has_the_documented_defaults() -> None:
    """Every namespace, automatic re-wrap, nothing removed, one poll a minute, the operator's own credentials."""
    key = KMSKey.parse(manifest({"keyId": ALIAS}))
    assert key == KMSKey(name=key.name, key_id=ALIAS)
    assert (key.rewrap, key.on_unavailable, key.poll_seconds) == (Rewrap.AUTO, OnUnavailable.RETAIN, 60.0)
    assert key.is_alias
    assert key.allows("anything", {})


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_an_accepted_spec_is_read(spec: Json) -> None:
    """What the table calls accepted parses, and names its key."""
    assert KMSKey.parse(manifest(spec)).key_id == spec["keyId"]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_field_is_refused_with_its_path(case: Case) -> None:
    """The refusal names the field, the reason and a remedy, in one line."""
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse(case.manifest())
    assert (caught.value.field, caught.value.reason) == (case.field or case.spoiled, case.reason)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [None, [], "KMSKey", {}, {"apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey"}])
def test_what_is_no_object_is_refused(raw: object) -> None:
    """Whatever arrives, the answer is an error of ours."""
    with pytest.raises(KmsealError):
        KMSKey.parse(raw)


@pytest.mark.parametrize(("member", "value"), [("apiVersion", "kmseal.dev/v1"), ("kind", "EncryptedSecret")])
def test_another_kind_is_refused(member: str, value: str) -> None:
    """A KMSKey of a later version is not read as one of this."""
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse({**manifest({"keyId": KEY}), member: value})
    assert (caught.value.field, caught.value.reason) == (member, "WrongKind")


@pytest.mark.parametrize("member", ["spec", "data"])
def test_a_member_too_many_or_too_few_is_refused(member: str) -> None:
    """Spec is demanded, and nothing beside it and the status is known."""
    raw: Json = manifest({"keyId": KEY})
    if member in raw:
        del raw[member]
    else:
        raw[member] = {}
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse(raw)
    assert caught.value.field == member


@pytest.mark.parametrize("member", ["endpoint", "caBundle", "credentials"])
def test_a_local_key_has_no_service(member: str) -> None:
    """How a service is reached would be ignored for a key file, so it is refused."""
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse(manifest({"keyId": "local:dev", member: everything()[member]}))
    assert (caught.value.field, caught.value.reason) == (f"spec.{member}", "LocalKey")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("90s", 90), ("1m", 60), ("5m", 300), ("2h", 7_200), ("24h", 86_400)]
)
def test_an_interval_is_in_seconds(text: str, seconds: float) -> None:
    """Seconds, minutes and hours are understood."""
    assert KMSKey.parse(manifest({"keyId": KEY, "pollInterval": text})).poll_seconds == seconds


@given(st.from_regex(r"[0-9]{0,6}[smhd]?") | st.text(max_size=8))
def test_an_interval_is_never_out_of_range(text: str) -> None:
    """No text whatever gives an interval that would flood KMS or never ask it."""
    with suppress(KmsealError):
        assert 1 <= KMSKey.parse(manifest({"keyId": KEY, "pollInterval": text})).poll_seconds <= 86_400


@given(selectors(), LABELS)
def test_a_selector_compares_as_kubernetes_does(selector: Json, labels: dict[str, str]) -> None:
    """For every selector and all labels, the answer is that of the documentation."""
    key = KMSKey.parse(manifest({"keyId": KEY, "allowedNamespaces": {"selector": selector}}))
    assert key.allows("prod", labels) == naive(selector, labels)


@given(selectors(), LABELS, st.lists(st.sampled_from(("prod", "test")), unique=True))
def test_a_name_or_a_label_suffices(selector: Json, labels: dict[str, str], names: list[str]) -> None:
    """Names and selector widen each other; neither takes away."""
    key = KMSKey.parse(manifest({"keyId": KEY, "allowedNamespaces": {"names": names, "selector": selector}}))
    assert key.allows("prod", labels) == ("prod" in names or naive(selector, labels))


def test_an_empty_list_of_names_allows_nobody() -> None:
    """No names and no selector is every namespace only where allowedNamespaces is absent."""
    assert not AllowedNamespaces.parse(Fields({"names": []}, "")).allows("prod", {"a": "1"})
    assert AllowedNamespaces.parse(Fields({"selector": {}}, "")).allows("prod", {})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*everything(), "names", "role"]), inner),
        max_leaves=12,
    )
)
def test_nothing_but_our_own_errors_comes_out(spec: Any) -> None:
    """Whatever stands in spec, the parser answers with a value or with an error of ours."""
    with suppress(KmsealError):
        assert KMSKey.parse(manifest(spec)).key_id


def test_the_reference_names_every_reason_and_member() -> None:
    """Who gets a refusal finds its reason in the reference, and every member of spec."""
    text = REFERENCE.read_text()
    for reason in {case.reason for case in CASES} | {"LocalKey", "WrongKind"}:
        assert f"| `{reason}` |" in text
    for member in everything():
        assert f"`{member}`" in text
