"""EncryptedSecret from JSON: strict, complete, and silent about values."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from vectors import read_vectors

from kmseal.envelope import DataKeyId, Place, Scope, encrypt_value
from kmseal.errors import KmsealError, Malformed, WrongBinding
from kmseal.manifest import (
    Algorithm,
    CreationPolicy,
    DataKey,
    DeletionPolicy,
    Delivery,
    EncryptedSecret,
    Target,
    Wrapping,
    require_key_id,
)
from kmseal.redacted import Redacted

ACCEPTED = {vector.name: vector for vector in read_vectors("accept")}
KEY_ID = "acs:kms:cn-hangzhou:1234567890123456:key/key-hzz62f1cb66fa42qo1234"
NAMES = ["a", "b.c", "tls.crt", "_d", "E"]

scopes = st.sampled_from(Scope)
places = st.tuples(scopes, st.sampled_from(["prod", "test"]), st.sampled_from(["db", "db.eu", "cache"]))
contents = st.dictionaries(st.sampled_from(NAMES), st.binary(max_size=40), min_size=1)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def good(name: str = "data-keys-several") -> Any:
    return copy.deepcopy(ACCEPTED[name].manifest)


def seal(
    scope: Scope, namespace: str, name: str, values: dict[str, bytes], split: Callable[[str], str]
) -> tuple[Any, dict[DataKeyId, Redacted]]:
    """An object whose values are encrypted under the data keys that ``split`` gives them, and these data keys."""
    place = Place.of(scope, namespace, name)
    used = {value_name: DataKeyId(split(value_name)) for value_name in values}
    keys = {key_id: Redacted(key_id.encode() * 8) for key_id in sorted(set(used.values()))}
    wrapping = Wrapping(KEY_ID, "v-1", Algorithm.KMS_SYMMETRIC, b"wrapped")
    manifest = {
        "apiVersion": "kmseal.dev/v1alpha1",
        "kind": "EncryptedSecret",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "scope": scope.value,
            "dataKeys": [DataKey(key_id, place, (wrapping,)).to_dict() for key_id in keys],
            "encryptedData": {
                value_name: encrypt_value(keys[key_id], key_id, place, value_name, Redacted(values[value_name])).line()
                for value_name, key_id in used.items()
            },
        },
    }
    return json.loads(json.dumps(manifest)), keys


def nodes(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all members and items."""
    items: list[tuple[Any, Any]] = []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list):
        items = list(enumerate(node))
    return [found for key, inner in items for found in ((*path, key), *nodes(inner, (*path, key)))]


def refusal(manifest: Any) -> KmsealError | None:
    """How the parser refuses it, if it does; any other exception fails the test."""
    try:
        EncryptedSecret.parse(manifest).require_place()
    except KmsealError as error:
        return error
    return None


def put(manifest: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        manifest = manifest[key]
    manifest[path[-1]] = value


@given(places, contents, st.data())
def test_any_split_over_data_keys_round_trips(
    where: tuple[Scope, str, str], values: dict[str, bytes], data: st.DataObject
) -> None:
    """Any values, any scope, any assignment of values to data keys: all values come back, and nothing else."""
    split = data.draw(st.fixed_dictionaries({name: st.sampled_from(["key0", "key1", "key2"]) for name in NAMES}))
    manifest, keys = seal(*where, values, split.__getitem__)
    secret = EncryptedSecret.parse(manifest)
    assert {data_key.id for data_key in secret.used_data_keys} == set(keys)
    assert {name: value.reveal() for name, value in secret.decrypt(keys).items()} == values


@given(places, places, contents)
def test_an_object_in_another_place_says_what_differs(
    where: tuple[Scope, str, str], other: tuple[Scope, str, str], values: dict[str, bytes]
) -> None:
    """A renamed, copied or rescoped object is refused without any key; what the scope leaves open may change."""
    manifest, keys = seal(*where, values, lambda _: "key0")
    scope, namespace, name = other
    manifest["spec"]["scope"] = scope.value
    manifest["metadata"] = {"namespace": namespace, "name": name}
    secret = EncryptedSecret.parse(manifest)
    if Place.of(*where) == Place.of(*other):
        assert set(secret.decrypt(keys)) == set(values)
        return
    with pytest.raises(WrongBinding) as caught:
        secret.require_place()
    assert caught.value.field == "spec.dataKeys[0].sealedFor"
    if scope is not where[0]:
        assert caught.value.reason == "ScopeMismatch"
    elif namespace != where[1]:
        assert caught.value.reason == "NamespaceMismatch"
    else:
        assert caught.value.reason == "NameMismatch"


@given(places, places)
def test_an_edited_statement_of_the_place_does_not_help(
    where: tuple[Scope, str, str], other: tuple[Scope, str, str]
) -> None:
    """Who edits ``sealedFor`` to fit meets the associated data: ValueMoved, with and without the data key."""
    assume(Place.of(*where) != Place.of(*other))
    manifest, keys = seal(*where, {"a": b"value"}, lambda _: "key0")
    manifest["spec"]["scope"] = other[0].value
    manifest["metadata"] = {"namespace": other[1], "name": other[2]}
    manifest["spec"]["dataKeys"][0]["sealedFor"] = Place.of(*other).sealed_for
    secret = EncryptedSecret.parse(manifest)
    for refuse in (secret.require_place, lambda: secret.decrypt(keys)):
        with pytest.raises(WrongBinding) as caught:
            refuse()
        assert (caught.value.reason, caught.value.field) == ("ValueMoved", "spec.encryptedData.a")


@given(st.data())
def test_a_moved_line_is_refused(data: st.DataObject) -> None:
    """Any exchange of two lines names the first value that is not in its place."""
    manifest, _ = seal(Scope.STRICT, "prod", "db", dict.fromkeys(NAMES, b"same"), lambda _: "key0")
    lines = manifest["spec"]["encryptedData"]
    one, other = data.draw(st.permutations(NAMES))[:2]
    lines[one], lines[other] = lines[other], lines[one]
    with pytest.raises(WrongBinding) as caught:
        EncryptedSecret.parse(manifest).require_place()
    assert caught.value.reason == "ValueMoved"
    assert any(name in caught.value.field for name in (one, other))


@given(st.data())
def test_a_flipped_bit_of_a_line_is_refused_by_the_object(data: st.DataObject) -> None:
    """No bit of a line can be changed without a refusal that names the value; nothing at all is opened then."""
    vector = ACCEPTED["data-keys-several"]
    keys = {DataKeyId(key_id): Redacted(key) for key_id, key in vector.data_keys.items()}
    manifest = good()
    name = data.draw(st.sampled_from(sorted(manifest["spec"]["encryptedData"])))
    line = manifest["spec"]["encryptedData"][name]
    position = data.draw(st.integers(0, len(line) - 1))
    changed = chr(ord(line[position]) ^ 1 << data.draw(st.integers(0, 7)))
    manifest["spec"]["encryptedData"][name] = line[:position] + changed + line[position + 1 :]
    with pytest.raises(KmsealError) as caught:
        EncryptedSecret.parse(manifest).decrypt(keys)
    assert caught.value.field == f"spec.encryptedData.{name}"
    part = "label" if position < 2 else "id" if position < line.rindex(".") else "payload"
    if not changed.isascii() or "." in (changed, line[position]):
        part = "stop"
    assert (
        caught.value.reason
        in {
            "stop": {"LineParts"},
            "label": {"UnknownFormat"},
            "id": {"DataKeyId", "UnknownDataKey"},
            "payload": {"Base64", "ValueMoved", "ValueAltered"},
        }[part]
    )


@given(st.data())
def test_a_flipped_bit_of_what_binds_is_refused(data: st.DataObject) -> None:
    """Scope, ``sealedFor``, ids and names: every bit of what stands outside the wrappings matters."""
    vector = ACCEPTED["data-keys-several"]
    keys = {DataKeyId(key_id): Redacted(key) for key_id, key in vector.data_keys.items()}
    manifest = good()
    paths: list[tuple[Any, ...]] = [
        ("apiVersion",),
        ("kind",),
        ("metadata", "name"),
        ("metadata", "namespace"),
        ("spec", "scope"),
        ("spec", "dataKeys", 0, "id"),
        ("spec", "dataKeys", 0, "sealedFor"),
    ]
    path = data.draw(st.sampled_from(paths))
    text = manifest
    for key in path:
        text = text[key]
    position = data.draw(st.integers(0, len(text) - 1))
    changed = chr(ord(text[position]) ^ 1 << data.draw(st.integers(0, 6)))
    put(manifest, path, text[:position] + changed + text[position + 1 :])
    expected = {
        ("apiVersion",): {"UnknownVersion"},
        ("kind",): {"WrongKind"},
        ("metadata", "name"): {"ObjectName", "NameMismatch"},
        ("metadata", "namespace"): {"ObjectName", "NamespaceMismatch"},
        ("spec", "scope"): {"Scope"},
        ("spec", "dataKeys", 0, "id"): {"DataKeyId", "UnknownDataKey"},
        ("spec", "dataKeys", 0, "sealedFor"): {"SealedFor", "NamespaceMismatch", "NameMismatch", "ScopeMismatch"},
    }[path]
    with pytest.raises(KmsealError) as caught:
        EncryptedSecret.parse(manifest).decrypt(keys)
    assert caught.value.reason in expected


@given(json_values)
def test_arbitrary_json_is_malformed(raw: Any) -> None:
    """Whatever it is given, the parser raises Malformed and nothing else."""
    with pytest.raises(Malformed):
        EncryptedSecret.parse(raw)


@given(st.data(), json_values)
def test_a_good_manifest_with_one_wrong_part_raises_nothing_unexpected(data: st.DataObject, value: Any) -> None:
    """Any part replaced by anything: it parses, or is refused with a path and in one printable line."""
    manifest = good("target-everything")
    put(manifest, data.draw(st.sampled_from(nodes(manifest))), value)
    error = refusal(manifest)
    if error is not None:
        assert type(error) in (Malformed, WrongBinding)
        assert error.field
        assert str(error).isprintable()


@given(st.data(), st.from_regex(r"[a-z0-9]{4}", fullmatch=True))
def test_no_error_repeats_what_stands_in_a_value_place(data: st.DataObject, salt: str) -> None:
    """A canary in the place of any text, as it is or inside what else was there, is in no error."""
    canary = f"Canary {salt}-{salt}"
    manifest = good("target-everything")
    paths = [path for path in nodes(manifest) if path[0] != "metadata"]
    path = data.draw(st.sampled_from(paths))
    text = manifest
    for key in path:
        text = text[key]
    wrong = [canary, [canary], {"a": canary}]
    if isinstance(text, str):
        wrong += [text + canary, f"v1.k4q7x2mz.{canary}", f"v1.{canary}", f"{canary}.{canary}.{canary}"]
    put(manifest, path, data.draw(st.sampled_from(wrong)))
    error = refusal(manifest)
    if error is not None:
        assert canary not in f"{error} {error!r} {error.args} {error.field} {error.remedy}"
        assert error.__cause__ is None
        assert error.__suppress_context__ or error.__context__ is None


def test_defaults() -> None:
    """An object that says only what it must."""
    secret = EncryptedSecret.parse(good("scope-default"))
    assert (secret.scope, secret.delivery, secret.suspend) == (Scope.STRICT, Delivery.SECRET, False)
    assert secret.target == Target(name="db")


def test_everything_that_can_be_said_is_read() -> None:
    """Each member of the target arrives."""
    secret = EncryptedSecret.parse(good("target-everything"))
    assert secret.suspend is True
    assert secret.target == Target(
        name="db-credentials",
        type="kubernetes.io/basic-auth",
        labels={"app.kubernetes.io/part-of": "shop", "tier": ""},
        annotations={"example.com/owner": "team shop, on call 24/7"},
        immutable=True,
        data={"username": "{{ user }}", "url": "postgres://{{ user }}:{{ password }}@db/shop"},
        creation_policy=CreationPolicy.ADOPT,
        deletion_policy=DeletionPolicy.RETAIN,
    )


@pytest.mark.parametrize("vector", ACCEPTED.values(), ids=str)
def test_data_keys_are_written_as_they_were_read(vector: Any) -> None:
    """So that a change of one line in a file is a change of one line."""
    secret = EncryptedSecret.parse(vector.manifest)
    assert [data_key.to_dict() for data_key in secret.data_keys] == vector.manifest["spec"]["dataKeys"]


def test_what_the_api_server_adds_is_accepted() -> None:
    """Status and the server's own metadata do not concern the parser."""
    manifest = good()
    manifest["metadata"] |= {"uid": "1", "generation": 3, "managedFields": [{}], "labels": {"a": "b"}}
    manifest["status"] = {"anything": [1, 2, {"x": None}]}
    assert EncryptedSecret.parse(manifest) == EncryptedSecret.parse(good())


def test_a_manifest_without_a_namespace_takes_the_given_one() -> None:
    """As kubectl's --namespace; without either, the missing field is named; one that is written wins."""
    manifest = good()
    del manifest["metadata"]["namespace"]
    assert EncryptedSecret.parse(manifest, namespace="prod").namespace == "prod"
    with pytest.raises(Malformed) as caught:
        EncryptedSecret.parse(manifest)
    assert (caught.value.field, caught.value.reason) == ("metadata.namespace", "MissingField")
    assert EncryptedSecret.parse(good(), namespace="other").namespace == "prod"


def test_unused_data_keys_are_told_apart() -> None:
    """O4: nobody spends a KMS call on a data key that no value names, nor needs it to open the object."""
    vector = ACCEPTED["data-key-unused"]
    secret = EncryptedSecret.parse(vector.manifest)
    assert [data_key.id for data_key in secret.data_keys] == ["k4q7x2mz", "m3w8r5tb"]
    assert [data_key.id for data_key in secret.used_data_keys] == ["k4q7x2mz"]
    used = DataKeyId("k4q7x2mz")
    assert secret.decrypt({used: Redacted(vector.data_keys[used])})


def test_a_data_key_of_the_wrong_length_is_named() -> None:
    """K8: the error has the path of the data key, although no value was tried."""
    secret = EncryptedSecret.parse(good("scope-strict"))
    with pytest.raises(Malformed) as caught:
        secret.decrypt({DataKeyId("k4q7x2mz"): Redacted(bytes(16))})
    assert (caught.value.field, caught.value.reason) == ("spec.dataKeys[0]", "DataKeyLength")


@pytest.mark.parametrize("name", ["kmseal.dev/x", "operator.kmseal.dev/x"])
def test_names_of_the_operator_are_reserved(name: str) -> None:
    """For labels and for annotations."""
    for kind in ("labels", "annotations"):
        manifest = good()
        manifest["spec"]["target"] = {kind: {name: "x"}}
        with pytest.raises(Malformed) as caught:
            EncryptedSecret.parse(manifest)
        assert caught.value.reason == "ReservedName"
        assert caught.value.field == f'spec.target.{kind}["{name}"]'


@pytest.mark.parametrize(
    "name", ["notkmseal.dev/x", "kmseal.dev", "kmseal.dev.example.com/x", "example.com/kmseal.dev"]
)
def test_names_that_only_look_like_the_operators_are_free(name: str) -> None:
    """The prefix counts, whole."""
    manifest = good()
    manifest["spec"]["target"] = {"labels": {name: "x"}, "annotations": {name: "x"}}
    assert EncryptedSecret.parse(manifest).target.labels == {name: "x"}


@pytest.mark.parametrize(
    "text",
    [
        "acs:kms:cn-hangzhou:1:alias/prod",
        "acs:kms:cn-hangzhou:1:key/",
        "acs:kms:cn hangzhou:1:key/a",
        "acs:kms:c:1:key/a",
        "acs:ram::1:key/a",
        "acs:kms:cn-hangzhou:a:key/a",
        f"acs:kms:cn-hangzhou:1:key/{'a' * 65}",
        "local:",
        "local:-a",
        "local:a.b",
        f"local:{'a' * 64}",
        "alias/prod",
        "",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    """K4: an alias above all."""
    with pytest.raises(Malformed) as caught:
        require_key_id(text, "--key")
    assert (caught.value.field, caught.value.reason) == ("--key", "KeyId")
