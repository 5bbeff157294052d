"""What the API server refuses by the CRD, asked of a real one with the official client as an independent observer.

The table is that of the vectors: each rejected vector is sent to the API server, and the lists below say which of them
the schema refuses and how. The parser refuses all of them (tests/unit/test_vectors.py), so that nothing that the schema
refuses could pass the command line; the accepted vectors pass both.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client
from vectors import Vector, read_vectors

from kmseal.errors import KmsealError
from kmseal.manifest import API_GROUP, PLURAL, EncryptedSecret
from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.errors import ControlPlaneError

ACCEPTED = {vector.name: vector for vector in read_vectors("accept")}
# A client has no way to send what is not an object.
REJECTED = {vector.name: vector for vector in read_vectors("reject") if isinstance(vector.manifest, dict)}

Refusal = Callable[..., str]

NOT_SEALED = (
    "password: is not an encrypted value of the form v1.<data key id>.<base64> (LineParts, UnknownFormat): encrypt"
)

# What the API server answers to a rejected vector: the path of the field, then a part of the message.
REFUSED = {
    "Algorithm-case": ("spec.dataKeys[0].wrappings[0].algorithm", "supported values"),
    "Algorithm-kms": ("spec.dataKeys[0].wrappings[0].algorithm", "(Algorithm): LOCAL_AES_256_GCM goes with local:"),
    "Algorithm-local": ("spec.dataKeys[0].wrappings[0].algorithm", "(Algorithm): LOCAL_AES_256_GCM goes with local:"),
    "Algorithm-unknown": ("spec.dataKeys[0].wrappings[0].algorithm", "supported values"),
    "Base64-wrapped": ("spec.dataKeys[0].wrappings[0].wrapped", "should match"),
    "CreationPolicy": ("spec.target.creationPolicy", "supported values"),
    "DataKeyCount-many": ("spec.dataKeys", "must have at most 64 items"),
    "DataKeyCount-none": ("spec.dataKeys", "should have at least 1 items"),
    "DataKeyId-line": ("spec.encryptedData", "password: a line names a data key"),
    "DataKeyId-long": ("spec.dataKeys[0].id", "may not be more than 16"),
    "DataKeyId-newline": ("spec.dataKeys[0].id", "should match"),
    "DataKeyId-short": ("spec.dataKeys[0].id", "should match"),
    "DeletionPolicy": ("spec.target.deletionPolicy", "supported values"),
    "Delivery": ("spec.delivery", "supported values"),
    "DuplicateDataKey": ("spec.dataKeys[2]", "Duplicate value"),
    "DuplicateWrapping": ("spec.dataKeys[0].wrappings[1]", "Duplicate value"),
    "KeyId-alias": ("spec.dataKeys[0].wrappings[0].keyId", "should match"),
    "KeyId-bare": ("spec.dataKeys[0].wrappings[0].keyId", "should match"),
    "KeyId-local": ("spec.dataKeys[0].wrappings[0].keyId", "should match"),
    "KeyId-newline": ("spec.dataKeys[0].wrappings[0].keyId", "should match"),
    "KeyVersionId-empty": ("spec.dataKeys[0].wrappings[0].keyVersionId", "should match"),
    "KeyVersionId-form": ("spec.dataKeys[0].wrappings[0].keyVersionId", "should match"),
    "LabelName": ("spec.target.labels", "(LabelName): use <DNS name>/<name>"),
    "LabelName-prefix": ("spec.target.annotations", "(LabelName): use <DNS name>/<name>"),
    "LabelValue": ("spec.target.labels.team", "should match"),
    "LineParts-empty": ("spec.encryptedData", NOT_SEALED),
    "LineParts-plain": ("spec.encryptedData", NOT_SEALED),
    "LineParts-two": ("spec.encryptedData", NOT_SEALED),
    "MergeTarget-immutable": ("spec.target.immutable", "(MergeTarget): remove it here"),
    "MergeTarget-type": ("spec.target.type", "(MergeTarget): remove it here"),
    "MissingField-dataKeys": ("spec.dataKeys", "Required value"),
    "MissingField-encryptedData": ("spec.encryptedData", "Required value"),
    "MissingField-kind": ("", "Object 'Kind' is missing"),
    "MissingField-name": ("name", "name or generateName is required"),
    "MissingField-null": ("spec.dataKeys[0].wrappings[0].wrapped", "Required value"),
    "MissingField-sealedFor": ("spec.dataKeys[0].sealedFor", "Required value"),
    "MissingField-spec": ("spec", "Required value"),
    "NameMismatch": ("spec.dataKeys", "(NameMismatch): restore metadata.name"),
    "ObjectName-case": ("metadata.name", "RFC 1123 subdomain"),
    "ObjectName-empty": ("name", "name or generateName is required"),
    "ObjectName-star": ("metadata.name", "RFC 1123 subdomain"),
    "ObjectName-target": ("spec.target.name", "should match"),
    "PayloadLength-empty": (
        "spec.encryptedData",
        "password: is too short for an encrypted value (PayloadLength): restore",
    ),
    "PlainSecret": ("", "does not match the expected"),
    "ReservedName-annotation": ("spec.target.annotations", "(ReservedName): choose another name"),
    "ReservedName-label": ("spec.target.labels", "(ReservedName): choose another name"),
    "Scope-case": ("spec.scope", "supported values"),
    "Scope-unknown": ("spec.scope", "supported values"),
    "ScopeMismatch-narrower": ("spec.dataKeys", "(ScopeMismatch): restore spec.scope"),
    "ScopeMismatch-wider": ("spec.dataKeys", "(ScopeMismatch): restore spec.scope"),
    "SealedFor-empty": ("spec.dataKeys[0].sealedFor", "should match"),
    "SealedFor-name": ("spec.dataKeys[0].sealedFor", "should match"),
    "SealedFor-parts": ("spec.dataKeys[0].sealedFor", "should match"),
    "SealedFor-star": ("spec.dataKeys[0].sealedFor", "should match"),
    "TargetLimit-annotation": ("spec.target.annotations.note", "may not be more than 262144"),
    "TargetLimit-annotations": ("spec.target.annotations", "must have at most 64 items"),
    "TargetLimit-labels": ("spec.target.labels", "must have at most 64 items"),
    "TargetLimit-template": ("spec.target.data.page", "may not be more than 1048576"),
    "TargetLimit-templates": ("spec.target.data", "must have at most 512 items"),
    "TargetType-empty": ("spec.target.type", "at least 1 chars long"),
    "TargetType-long": ("spec.target.type", "may not be more than 253"),
    "TargetType-token": ("spec.target.type", "(TargetType): mount a projected ServiceAccount token"),
    "UnknownDataKey": ("spec.encryptedData", "(UnknownDataKey): it comes from another object"),
    "UnknownField-dataKey": ("spec.dataKeys[0].note", "unknown field"),
    "UnknownField-spec": ("spec.encrypteddata", "unknown field"),
    "UnknownField-target": ("spec.target.namespace", "unknown field"),
    "UnknownField-top": ("data", "unknown field"),
    "UnknownField-wrapping": ("spec.dataKeys[0].wrappings[0].context", "unknown field"),
    "UnknownFormat": ("spec.encryptedData", NOT_SEALED),
    "UnknownFormat-case": ("spec.encryptedData", NOT_SEALED),
    "UnknownVersion": ("", "cannot be handled as a EncryptedSecret"),
    "ValueCount-many": ("spec.encryptedData", "must have at most 512 items"),
    "ValueCount-none": ("spec.encryptedData", "should have at least 1 properties"),
    "ValueName-dot": ("spec.encryptedData", "(ValueName): use letters"),
    "ValueName-dots": ("spec.encryptedData", "(ValueName): use letters"),
    "ValueName-empty": ("spec.encryptedData", "(ValueName): use letters"),
    "ValueName-long": ("spec.encryptedData", "(ValueName): use letters"),
    "ValueName-newline": ("spec.encryptedData", "(ValueName): use letters"),
    "ValueName-slash": ("spec.encryptedData", "(ValueName): use letters"),
    "ValueName-template": ("spec.target.data", "(ValueName): use letters"),
    "ValueName-unicode": ("spec.encryptedData", "(ValueName): use letters"),
    "WrappedLength-empty": ("spec.dataKeys[0].wrappings[0].wrapped", "should match"),
    "WrappedLength-long": ("spec.dataKeys[0].wrappings[0].wrapped", "(WrappedLength): restore the line from Git"),
    "WrappingCount-many": ("spec.dataKeys[0].wrappings", "must have at most 8 items"),
    "WrappingCount-none": ("spec.dataKeys[0].wrappings", "should have at least 1 items"),
    "WrongKind": ("kind", "must be EncryptedSecret"),
    "WrongType-flag": ("spec.suspend", "must be of type boolean"),
    "WrongType-list": ("spec.dataKeys.k4q7x2mz", "unknown field"),
    "WrongType-object": ("spec.encryptedData", "must be of type object"),
    "WrongType-text": ("spec.dataKeys[0].id", "must be of type string"),
    "WrongType-value": ("spec.encryptedData.password", "must be of type string"),
}

# What no schema can see: the inside of a payload, a sum over values, the namespace (CEL is not shown it).
PASSED = {
    "Base64-newline",
    "Base64-overpadded",
    "Base64-space",
    "Base64-unpadded",
    "Base64-unused-bits",
    "Base64-url",
    "DataKeyLength-long",
    "DataKeyLength-short",
    "LineParts-four",
    "LineParts-unicode",
    "NamespaceMismatch",
    "ObjectName-namespace",  # The namespace of the request is a real one here: the server has refused to create others.
    "PayloadLength-long",  # The limit of the schema is that of a line with the longest id.
    "PayloadLength-short",
    "ValueAltered-ciphertext",
    "ValueAltered-key",
    "ValueAltered-last",
    "ValueAltered-nonce",
    "ValueAltered-tag",
    "ValueMoved-check",
    "ValueMoved-name",
    "ValueMoved-namespace",
    "ValueMoved-scope",
    "ValueMoved-swapped",
    "ValueTooLarge",
}


class Server:
    """EncryptedSecrets of one namespace, through the official client; every write asks for strict field validation."""

    def __init__(self, api: client.CustomObjectsApi, namespace: str) -> None:
        self._api = api
        self._where = (API_GROUP, "v1alpha1", namespace, PLURAL)
        self.namespace = namespace

    def create(self, manifest: Any, *, keep: bool = False) -> Any:
        """Creates an object here, whatever namespace it names; without ``keep``, the server only tries."""
        body = copy.deepcopy(manifest)
        if isinstance(body, dict) and "metadata" in body:
            body["metadata"]["namespace"] = self.namespace
        dry_run = None if keep else "All"
        return self._api.create_namespaced_custom_object(*self._where, body, dry_run=dry_run, field_validation="Strict")

    def replace(self, live: Any) -> Any:
        name = live["metadata"]["name"]
        return self._api.replace_namespaced_custom_object(*self._where, name, live, field_validation="Strict")

    def replace_status(self, live: Any) -> Any:
        name = live["metadata"]["name"]
        return self._api.replace_namespaced_custom_object_status(*self._where, name, live, field_validation="Strict")

    def get(self, name: str) -> Any:
        return self._api.get_namespaced_custom_object(*self._where, name)


@pytest.fixture
def server(custom_objects: client.CustomObjectsApi, namespace: str) -> Server:
    return Server(custom_objects, namespace)


@pytest.mark.parametrize("vector", ACCEPTED.values(), ids=str)
def test_an_accepted_vector_is_accepted(server: Server, vector: Vector) -> None:
    """What the format accepts, the schema accepts; what the server gives back parses to the same object."""
    created = server.create(vector.manifest)
    created["metadata"]["namespace"] = vector.manifest["metadata"]["namespace"]
    assert EncryptedSecret.parse(created) == EncryptedSecret.parse(vector.manifest)


@pytest.mark.parametrize("name", REFUSED)
def test_a_rejected_vector_is_refused_with_its_field(server: Server, refusal: Refusal, name: str) -> None:
    """The API server's answer names the field and the reason; the parser refuses the same object."""
    field, fragment = REFUSED[name]
    message = refusal(server.create, REJECTED[name].manifest)
    assert fragment in message
    if field:
        assert re.search(rf"(^|[^.\w]){re.escape(field)}([^.\w\[]|$)", message), message
    with pytest.raises(KmsealError):
        EncryptedSecret.parse(REJECTED[name].manifest).require_place()


@pytest.mark.parametrize("name", sorted(PASSED))
def test_what_a_schema_cannot_see_is_left_to_the_operator(server: Server, name: str) -> None:
    """These pass the API server; that is known, and the reason why the operator parses again."""
    assert server.create(REJECTED[name].manifest)["kind"] == "EncryptedSecret"


def test_every_rejected_vector_is_in_one_of_the_lists() -> None:
    """A new vector must say whether the schema refuses it."""
    assert REFUSED.keys() | PASSED == REJECTED.keys()
    assert not REFUSED.keys() & PASSED


def test_a_refused_plain_value_is_not_repeated(server: Server, refusal: Refusal) -> None:
    """Somebody forgot to encrypt: neither the answer nor what the client prints of it holds the value."""
    manifest = _good()
    for spoiled in ("canary-c4b1e0", "v1.canary-c4b1e0", "v1.k4q7x2mz.canary-c4b1e0", "canary" * 240_000, 4101):
        manifest["spec"]["encryptedData"]["password"] = spoiled
        message = refusal(server.create, manifest)
        assert "spec.encryptedData" in message
        assert "canary" not in message
        assert "4101" not in message


def test_without_strict_validation_an_unknown_field_vanishes(control_plane: ControlPlane, server: Server) -> None:
    """Pruning drops a typing error in silence; kubectl's default refuses it, and says which field."""
    manifest = _good()
    manifest["metadata"]["namespace"] = server.namespace
    manifest["spec"]["suspendd"] = True
    path = f"/apis/kmseal.dev/v1alpha1/namespaces/{server.namespace}/encryptedsecrets?dryRun=All"
    answer = control_plane.request("POST", f"{path}&fieldValidation=Ignore", manifest)
    assert answer.status == 201
    assert "suspendd" not in answer.body["spec"]
    with pytest.raises(ControlPlaneError, match=r'unknown field "spec\.suspendd"'):
        control_plane.kubectl("create", "--dry-run=server", "--filename", "-", stdin=json.dumps(manifest))


def test_server_side_apply_refuses_an_unknown_field_always(control_plane: ControlPlane, server: Server) -> None:
    """Flux applies in this way: it needs no strict validation to be told of a typing error."""
    manifest = _good()
    manifest["metadata"]["namespace"] = server.namespace
    manifest["spec"]["suspendd"] = True
    with pytest.raises(ControlPlaneError, match=r"\.spec\.suspendd: field not declared in schema"):
        control_plane.kubectl("apply", "--server-side", "--validate=ignore", "-f", "-", stdin=json.dumps(manifest))


def test_a_field_given_twice_is_refused(control_plane: ControlPlane, server: Server) -> None:
    """Strict field validation refuses a member that stands twice; plain JSON would let the last one win."""
    text = json.dumps({**_good(), "metadata": {"name": "db", "namespace": server.namespace}})
    twice = text.replace('"encryptedData": {', '"encryptedData": {"password": "v1.k4q7x2mz.AAAA", ')
    path = f"/apis/kmseal.dev/v1alpha1/namespaces/{server.namespace}/encryptedsecrets?dryRun=All&fieldValidation=Strict"
    with pytest.raises(ControlPlaneError, match=r'duplicate field "spec\.encryptedData\.password"'):
        control_plane.kubectl("create", "--raw", path, "--filename", "-", stdin=twice)


def test_defaults_are_filled_in(server: Server) -> None:
    """An object that says nothing gets what the documentation says."""
    manifest = _good()
    del manifest["spec"]["scope"]
    spec = server.create(manifest)["spec"]
    assert (spec["scope"], spec["delivery"], spec["suspend"]) == ("Strict", "Secret", False)
    defaults = {"type": "Opaque", "immutable": False, "creationPolicy": "Owner", "deletionPolicy": "Delete"}
    assert spec["target"] == defaults
    manifest["spec"]["target"] = {"name": "other"}
    assert server.create(manifest)["spec"]["target"] == {"name": "other", **defaults}


def test_the_creation_policy_cannot_be_changed(server: Server, refusal: Refusal) -> None:
    """Not by naming another one, and not by leaving it out; all else can be."""
    manifest = _good()
    manifest["spec"]["target"] = {"creationPolicy": "Adopt"}
    live = server.create(manifest, keep=True)
    for target in ({"creationPolicy": "Owner"}, {}):
        live["spec"]["target"] = target
        message = refusal(server.replace, live)
        assert "spec.target.creationPolicy" in message
        assert "set deletionPolicy Retain, delete this object" in message
    live["spec"]["target"] = {"creationPolicy": "Adopt", "deletionPolicy": "Retain", "type": "x", "name": "other"}
    live["spec"]["suspend"] = True
    assert server.replace(live)["spec"]["suspend"] is True


def test_renaming_is_refused_for_strict_only(server: Server, refusal: Refusal) -> None:
    """The name is a part of the place in the scope Strict, and only there."""
    for vector_name in ("scope-namespace", "scope-cluster"):
        manifest = copy.deepcopy(ACCEPTED[vector_name].manifest)
        manifest["metadata"]["name"] = "another"
        assert server.create(manifest)["metadata"]["name"] == "another"
    strict = _good()
    strict["metadata"]["name"] = "another"
    assert "(NameMismatch)" in refusal(server.create, strict)


def test_server_side_apply_merges_data_keys_by_id(control_plane: ControlPlane, server: Server) -> None:
    """Two owners may each apply a data key and a value of their own; neither undoes the other's."""
    both = copy.deepcopy(ACCEPTED["data-keys-several"].manifest)
    both["metadata"]["namespace"] = server.namespace
    for index, values in ((0, ("password", "user")), (1, ("token",))):
        part = copy.deepcopy(both)
        part["spec"]["dataKeys"] = [both["spec"]["dataKeys"][index]]
        part["spec"]["encryptedData"] = {name: both["spec"]["encryptedData"][name] for name in values}
        manager = f"--field-manager=owner-{index}"
        control_plane.kubectl("apply", "--server-side", manager, "--filename", "-", stdin=json.dumps(part))
    spec = server.get("db")["spec"]
    assert {data_key["id"] for data_key in spec["dataKeys"]} == {"k4q7x2mz", "m3w8r5tb"}
    assert spec["encryptedData"] == both["spec"]["encryptedData"]


def test_printer_columns_show_the_state(control_plane: ControlPlane, server: Server) -> None:
    """``kubectl get esec`` answers whether it is ready, why, and as which Secret; ``-o wide`` says the rest."""
    live = server.create(_good(), keep=True)
    live["status"] = _status()
    server.replace_status(live)
    table = control_plane.kubectl("get", "esec", "--namespace", server.namespace)
    assert table.splitlines()[0].split() == ["NAME", "READY", "REASON", "TARGET", "AGE"]
    assert table.splitlines()[1].split()[:4] == ["db", "False", "KeyUnusable", "db"]
    wide = control_plane.kubectl("get", "kmseal", "--namespace", server.namespace, "--output", "wide")
    header = wide.splitlines()[0].split()
    assert header[5:] == ["SCOPE", "POLICY", "KEY", "APPLIED", "MESSAGE"]
    assert "the key is disabled; enable it" in wide


def test_the_status_is_kept_whole_and_apart(server: Server) -> None:
    """Every member that the operator writes survives; a write of the status changes no spec, and the reverse."""
    live = server.create(_good(), keep=True)
    live["status"] = _status()
    live["spec"]["suspend"] = True
    written = server.replace_status(live)
    assert written["status"] == _status()
    assert written["spec"]["suspend"] is False
    assert written["metadata"]["generation"] == 1
    written["spec"]["suspend"] = True
    del written["status"]
    again = server.replace(written)
    assert again["status"] == _status()
    assert again["metadata"]["generation"] == 2


@pytest.mark.parametrize(
    ("path", "value", "fragment"),
    [
        ("conditions/0/status", "true", "supported values"),
        ("conditions/0/reason", "two words", "should match"),
        ("conditions/0/lastTransitionTime", "yesterday", "must be of type date-time"),
        ("observedGeneration", "1", "must be of type integer"),
        ("rewrapped/0/digest", None, "Required value"),
        ("rewrapped/0/digest", "sha256:00", "should match"),
        ("rewrapped/0/digest", "0" * 63, "should match"),
        ("rewrapped/0/digest", "A" * 64, "should match"),
        ("rewrapped/0/dataKeyId", "K4Q7X2MZ", "should match"),
        ("rewrapped/0/wrapping/keyId", "acs:kms:cn-hangzhou:1:alias/a", "should match"),
        ("rewrapped/0/wrapping/keyVersionId", "", "should match"),
        ("rewrapped/0/wrapping/algorithm", "LOCAL_AES_256_GCM", "(Algorithm): LOCAL_AES_256_GCM goes with local:"),
        ("rewrapped/0/wrapping/wrapped", "AA", "should match"),
        ("keys/0/current", True, "unknown field"),
    ],
)
def test_a_status_of_the_wrong_shape_is_refused(
    server: Server, refusal: Refusal, path: str, value: object, fragment: str
) -> None:
    """What other tools read of the status has the form that they expect, whoever writes it."""
    live = server.create(_good(), keep=True)
    status: Any = _status()
    live["status"] = status
    *parents, last = path.split("/")
    for part in parents:
        status = status[int(part)] if isinstance(status, list) else status[part]
    status[last] = value
    assert fragment in refusal(server.replace_status, live)


@pytest.mark.parametrize("plural", ["encryptedsecrets", "kmskeys"])
def test_every_field_is_documented(control_plane: ControlPlane, crds: None, plural: str) -> None:
    """``kubectl explain`` has a text for each field: it is the documentation that is always at hand."""
    crd_object = json.loads(control_plane.kubectl("get", "crd", f"{plural}.kmseal.dev", "--output", "json"))
    schema = crd_object["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    undocumented = [path for path, node in _nodes(schema, "") if "description" not in node]
    assert undocumented == [".metadata"]


def test_explain_shows_the_documentation(control_plane: ControlPlane, crds: None) -> None:
    """What the schema says of a field reaches whoever asks kubectl."""
    shown = " ".join(control_plane.kubectl("explain", "esec.spec.scope").split())
    assert "It is bound into the ciphertext" in shown


def _good() -> Any:
    return copy.deepcopy(ACCEPTED["scope-strict"].manifest)


def _status() -> Any:
    wrapping = _good()["spec"]["dataKeys"][0]["wrappings"][0]
    return {
        "observedGeneration": 1,
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "KeyUnusable",
                "message": "the key is disabled; enable it",
                "lastTransitionTime": "2026-11-24T08:00:00Z",
                "observedGeneration": 1,
            }
        ],
        "target": {"name": "db", "uid": "0a1b", "resourceVersion": "17", "appliedFields": "sha256:00"},
        "keys": [{"keyId": wrapping["keyId"], "keyVersionId": wrapping["keyVersionId"]}],
        "rewrapped": [{"dataKeyId": "k4q7x2mz", "digest": "0d" * 32, "wrapping": wrapping}],
        "lastAppliedTime": "2026-11-24T08:00:00Z",
    }


def _nodes(schema: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, node in schema.get("properties", {}).items():
        yield f"{path}.{name}", node
        yield from _nodes(node, f"{path}.{name}")
    if "items" in schema:
        yield from _nodes(schema["items"], f"{path}[]")
