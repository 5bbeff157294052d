"""What the API server and the parser refuse of a KMSKey: the same, case by case, asked of a real API server.

The cases are those of tests/vectors/kmskeys.py. The API server must name the field and the fragment, the parser the
field and the reason; an accepted spec is accepted by both, and means the same with the API server's defaults.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from kmskeys import ACCEPTED, ALIAS, CASES, KEY, OTHER, Case, Json, everything, manifest, put
from kubernetes import client

from kmseal.errors import KmsealError
from kmseal.kmskey import PLURAL, KMSKey
from kmseal.manifest import API_GROUP
from kmseal_dev.controlplane import ControlPlane
from kmseal_dev.errors import ControlPlaneError

Refusal = Callable[..., str]


class Server:
    """KMSKeys through the official client; every write asks for strict field validation."""

    def __init__(self, api: client.CustomObjectsApi) -> None:
        self._api = api
        self._where = (API_GROUP, "v1alpha1", PLURAL)

    def create(self, body: object, *, keep: bool = False) -> Any:
        """Without ``keep``, the server only tries."""
        dry_run = None if keep else "All"
        return self._api.create_cluster_custom_object(*self._where, body, dry_run=dry_run, field_validation="Strict")

    def replace(self, live: Any) -> Any:
        name = live["metadata"]["name"]
        return self._api.replace_cluster_custom_object(*self._where, name, live, field_validation="Strict")

    def replace_status(self, live: Any) -> Any:
        name = live["metadata"]["name"]
        return self._api.replace_cluster_custom_object_status(*self._where, name, live, field_validation="Strict")


@pytest.fixture
def server(custom_objects: client.CustomObjectsApi) -> Server:
    return Server(custom_objects)


@pytest.mark.parametrize("spec", ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_parser_accepts_the_api_server_accepts(server: Server, spec: Json) -> None:
    """What comes back, with its defaults, means the same as what was sent."""
    sent = manifest(spec)
    assert KMSKey.parse(server.create(sent)) == KMSKey.parse(sent)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_field_is_refused_by_both(server: Server, refusal: Refusal, case: Case) -> None:
    """The API server names the field and what to do about it; the parser refuses the same field with its reason."""
    sent = case.manifest()
    message = refusal(server.create, sent)
    assert case.fragment in message
    assert case.spoiled in message
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse(sent)
    assert (caught.value.field, caught.value.reason) == (case.field or case.spoiled, case.reason)


@pytest.mark.parametrize("member", ["endpoint", "caBundle", "credentials"])
def test_a_local_key_has_no_service(server: Server, refusal: Refusal, member: str) -> None:
    """How a key service is reached would do nothing for a key file, and is refused rather than ignored."""
    sent = manifest({"keyId": "local:dev", member: everything()[member]})
    assert "(LocalKey): remove endpoint, caBundle and credentials" in refusal(server.create, sent)
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse(sent)
    assert (caught.value.field, caught.value.reason) == (f"spec.{member}", "LocalKey")


def test_what_was_pasted_in_the_wrong_place_is_not_repeated(server: Server, refusal: Refusal) -> None:
    """Neither answer holds a piece of a private key, or of a URL with a password."""
    pasted = [("caBundle", text) for text in ("canary", "-----BEGIN PRIVATE KEY-----\ncanary\n", "canary" * 11_000)]
    for member, text in (*pasted, ("endpoint", "https://user:canary@proxy"), ("endpoint", "canary" * 50 + "/")):
        sent = manifest({"keyId": KEY, member: text})
        assert "canary" not in refusal(server.create, sent)
        with pytest.raises(KmsealError) as caught:
            KMSKey.parse(sent)
        assert "canary" not in str(caught.value)


def test_one_mistake_gives_one_message(server: Server, refusal: Refusal) -> None:
    """A rule does not complain again about what a pattern has refused."""
    for path, value in (("pollInterval", "1d"), ("endpoint", "https://a"), ("credentials", {})):
        sent = manifest(everything())
        put(sent["spec"], path, value)
        assert refusal(server.create, sent).count("Invalid value") == 1


def test_a_spec_is_demanded(server: Server, refusal: Refusal) -> None:
    """Without one, the object would say nothing."""
    sent = manifest({"keyId": KEY})
    del sent["spec"]
    assert "spec: Required value" in refusal(server.create, sent)
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse(sent)
    assert (caught.value.field, caught.value.reason) == ("spec", "MissingField")


def test_another_name_than_kubernetes_gives_is_refused(server: Server, refusal: Refusal) -> None:
    """The name of the object has the form of every name."""
    sent = manifest({"keyId": KEY})
    sent["metadata"]["name"] = "Prod"
    assert "metadata.name" in refusal(server.create, sent)
    with pytest.raises(KmsealError) as caught:
        KMSKey.parse(sent)
    assert (caught.value.field, caught.value.reason) == ("metadata.name", "ObjectName")


def test_defaults_are_filled_in(server: Server) -> None:
    """A KMSKey that names only its key shows what that means."""
    spec = server.create(manifest({"keyId": KEY}))["spec"]
    assert spec == {"keyId": KEY, "rewrap": "Auto", "onUnavailable": "Retain", "pollInterval": "60s"}


def test_the_key_cannot_be_changed(server: Server, refusal: Refusal) -> None:
    """Neither to another key nor from an alias to what it stands for; all else can be, and can be left out."""
    live = server.create(manifest({**everything(), "keyId": ALIAS}), keep=True)
    for key_id in (KEY, OTHER + "0"):
        changed = copy.deepcopy(live)
        changed["spec"]["keyId"] = key_id
        message = refusal(server.replace, changed)
        assert "spec.keyId" in message
        assert "create another KMSKey for the other key" in message
    live["spec"] = {"keyId": ALIAS, "rewrap": "Auto"}
    assert server.replace(live)["spec"]["onUnavailable"] == "Retain"


def test_server_side_apply_merges_sets(control_plane: ControlPlane, crds: None) -> None:
    """Two owners may each allow a namespace of their own; neither takes the other's away."""
    sent = manifest({"keyId": KEY})
    for owner in ("prod", "test"):
        sent["spec"]["allowedNamespaces"] = {"names": [owner]}
        arguments = ("apply", "--server-side", f"--field-manager={owner}", "--output=json", "--filename=-")
        applied = json.loads(control_plane.kubectl(*arguments, stdin=json.dumps(sent)))
    assert sorted(applied["spec"]["allowedNamespaces"]["names"]) == ["prod", "test"]


def test_kubectl_refuses_a_typing_error(control_plane: ControlPlane, crds: None) -> None:
    """kubectl asks for strict validation without being told."""
    text = json.dumps(manifest({"keyId": KEY, "allowedNamespace": {"names": ["prod"]}}))
    with pytest.raises(ControlPlaneError, match=r'unknown field "spec\.allowedNamespace"'):
        control_plane.kubectl("create", "--dry-run=server", "--filename", "-", stdin=text)


def test_printer_columns_show_the_rotation(control_plane: ControlPlane, server: Server) -> None:
    """``kubectl get kk`` says which key, whether it works, and what is left to do in the cluster and in Git."""
    live = server.create(manifest({"keyId": KEY}), keep=True)
    live["status"] = status()
    server.replace_status(live)
    name = live["metadata"]["name"]
    header, row = control_plane.kubectl("get", "kk", name).splitlines()
    assert header.split() == ["NAME", "KEY", "STATE", "OBJECTS", "STALE", "STALEINGIT", "AVAILABLE", "AGE"]
    assert row.split()[:-1] == [name, KEY, "Enabled", "200", "3", "17", "True"]
    assert "UPTODATE" in control_plane.kubectl("get", "kmseal", "--output", "wide")


def test_the_status_is_kept_whole_and_apart(server: Server) -> None:
    """Every member that the operator writes survives, and a write of the status changes no spec."""
    live = server.create(manifest({"keyId": KEY}), keep=True)
    live["status"] = status()
    live["spec"]["rewrap"] = "Manual"
    written = server.replace_status(live)
    assert written["status"] == status()
    assert written["spec"]["rewrap"] == "Auto"
    assert written["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    ("path", "value", "fragment"),
    [
        ("state", "enabled", "supported values"),
        ("objects", -1, "greater than or equal to 0"),
        ("versions/0/id", None, "Required value"),
        ("stale/objects/0/where", "git", "supported values"),
        ("stale/objects", [{"namespace": "a", "name": "b", "where": "Git"}] * 21, "at most 20 items"),
        ("rewrap/pending", "3", "must be of type integer"),
        ("safeToDisable/0/keyId", None, "Required value"),
        ("conditions/0/status", "true", "supported values"),
        ("secret", "x", "unknown field"),
    ],
)
def test_a_status_of_the_wrong_shape_is_refused(
    server: Server, refusal: Refusal, path: str, value: object, fragment: str
) -> None:
    """What people and programs read before they disable a key has the form that they expect."""
    live = server.create(manifest({"keyId": KEY}), keep=True)
    live["status"] = status()
    put(live["status"], path, value)
    assert fragment in refusal(server.replace_status, live)


def status() -> Json:
    """A status with every member."""
    moment = {"lastTransitionTime": "2026-11-24T08:00:00Z", "observedGeneration": 1}
    return {
        "observedGeneration": 1,
        "keyId": KEY,
        "state": "Enabled",
        "primaryVersion": "v2",
        "previousKeys": [OTHER],
        "versions": [
            {"keyId": KEY, "id": "v2", "primary": True, "inGit": 183, "inCluster": 14},
            {"keyId": KEY, "id": "v1", "primary": False, "inGit": 17, "inCluster": 0},
        ],
        "objects": 200,
        "stale": {"inCluster": 3, "inGit": 17, "objects": [{"namespace": "prod", "name": "db", "where": "Cluster"}]},
        "rewrap": {"pending": 2, "done": 14, "failed": 1},
        "safeToDisable": [{"keyId": OTHER}, {"keyId": KEY, "keyVersionId": "v0"}],
        "conditions": [
            {"type": "Available", "status": "True", "reason": "Enabled", "message": "", **moment},
            {"type": "UpToDate", "status": "False", "reason": "Rewrapping", "message": "3 of 200 are left", **moment},
        ],
    }
