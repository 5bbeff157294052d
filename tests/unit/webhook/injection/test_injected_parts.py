"""What a pod gets: volumes, mounts, variables, agents and what they are told."""

import json
import re
from typing import Any

import pytest

from kmseal_agent.config import read_config
from kmseal_webhook.podspec import INIT, REFRESH, SECRETS_VOLUME, TOKEN_VOLUME

Json = dict[str, Any]


def container(name: str = "app", **fields: Any) -> Json:
    return {"name": name, "image": f"{name}:1", **fields}


def test_files(bench: Any) -> None:
    """A container gets one read-only mount for each secret, of just that secret's folder."""
    body = bench.spec_of(bench.pod(inject="db,cache", path__cache="/cache"))["containers"][0]
    assert body["volumeMounts"] == [
        {
            "name": SECRETS_VOLUME,
            "mountPath": "/run/secrets/kmseal/db",
            "subPath": "files/db",
            "readOnly": True,
        },
        {"name": SECRETS_VOLUME, "mountPath": "/cache", "subPath": "files/cache", "readOnly": True},
    ]
    assert "env" not in body


def test_variables(bench: Any) -> None:
    """With env, a container gets one variable for each value, from the env file of its secret, and no mount."""
    body = bench.spec_of(bench.pod(inject="db", **{"as": "env"}))["containers"][0]
    assert body["env"] == [
        {
            "name": name,
            "valueFrom": {"fileKeyRef": {"volumeName": SECRETS_VOLUME, "path": "env/db.env", "key": name}},
        }
        for name in ("password", "user")
    ]
    assert "volumeMounts" not in body


def test_variables_come_before_the_user_s(bench: Any) -> None:
    """A variable of the user can refer to ours, for Kubernetes expands only what stands before it."""
    own = {"name": "URL", "value": "postgres://$(user):$(password)@db"}
    body = bench.spec_of(bench.pod({"containers": [container(env=[own])]}, inject="db", **{"as": "env"}))["containers"][
        0
    ]
    assert [variable["name"] for variable in body["env"]] == ["password", "user", "URL"]


def test_renamed_variables(bench: Any) -> None:
    """Other names are those of the variables; values that are not listed are left out."""
    asked = bench.pod(inject="odd", names__odd="1st=FIRST", **{"as": "env"})
    assert [variable["name"] for variable in bench.spec_of(asked)["containers"][0]["env"]] == ["FIRST"]
    assert bench.config_of(asked)["secrets"][0]["names"] == {"1st": "FIRST"}


def test_volumes(bench: Any) -> None:
    """Memory of a limited size, and a token for no audience but the broker's with the cluster's trust bundle."""
    memory, token = bench.spec_of(bench.pod(inject="db"))["volumes"]
    assert memory == {"name": SECRETS_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}}
    assert token == {
        "name": TOKEN_VOLUME,
        "projected": {
            "sources": [
                {
                    "serviceAccountToken": {
                        "audience": "kmseal.dev/broker",
                        "expirationSeconds": 600,
                        "path": "token",
                    }
                },
                {"clusterTrustBundle": {"signerName": "kmseal.dev/broker", "labelSelector": {}, "path": "ca.crt"}},
            ]
        },
    }


def test_the_configuration_of_the_agent(bench: Any) -> None:
    """The agent is told all that it needs, and nothing that is secret."""
    asked = bench.pod(inject="db,cache", refresh="5m", reload="http://127.0.0.1/x", mode__cache="0440", as__db="both")
    assert bench.config_of(asked) == {
        "broker": "https://kmseal-webhook.kmseal-system.svc:8444",
        "serverName": "kmseal-webhook.kmseal-system.svc",
        "token": "/var/run/kmseal/token",
        "ca": "/var/run/kmseal/ca.crt",
        "root": "/kmseal",
        "deadlineSeconds": 120,
        "refreshSeconds": 300,
        "reload": "http://127.0.0.1/x",
        "secrets": [
            {"name": "db", "files": True, "env": True, "mode": "0444"},
            {"name": "cache", "files": True, "env": False, "mode": "0440"},
        ],
    }


def test_the_agent_understands_its_configuration(bench: Any) -> None:
    """What is written here is what the agent's own strict parser reads."""
    asked = bench.pod(
        inject="db,cache", refresh="5m", reload="http://127.0.0.1:1/x?y", names__db="user=U", as__db="both"
    )
    for settings in (bench.settings_with(), bench.settings_with(ca="PEM")):
        config = read_config(json.dumps(bench.config_of(asked, settings)))
        assert [(wanted.name, wanted.names) for wanted in config.secrets] == [("db", {"user": "U"}), ("cache", None)]
        assert (config.refresh, config.root) == (300.0, "/kmseal")


def test_authorities_in_a_variable(bench: Any) -> None:
    """Where the cluster serves no trust bundles, the agent gets the authorities as a variable."""
    spec = bench.spec_of(bench.pod(inject="db", refresh="5m"), bench.settings_with(ca="PEM"))
    assert [len(volume["projected"]["sources"]) for volume in spec["volumes"][1:]] == [1]
    for agent in spec["initContainers"]:
        assert agent["env"][1] == {"name": "KMSEAL_CA", "value": "PEM"}
        assert "ca" not in json.loads(agent["env"][0]["value"])


def test_the_configuration_comes_as_it_was_written(bench: Any) -> None:
    """Kubernetes expands $(NAME) in variables, and makes one $ of two: the agent is to see what the user wrote."""
    asked = bench.pod(inject="db", refresh="5m", reload="http://127.0.0.1:1/$(KMSEAL_CA)?a=$$b")
    text = bench.spec_of(asked, bench.settings_with(ca="$(PEM)"))["initContainers"][1]["env"]
    expanded = [re.sub(r"\$(\$|\([^)]*\))", lambda m: "$" if m[1] == "$" else "EXPANDED", v["value"]) for v in text]
    assert json.loads(expanded[0])["reload"] == "http://127.0.0.1:1/$(KMSEAL_CA)?a=$$b"
    assert expanded[1] == "$(PEM)"


def test_refresh_is_a_native_sidecar(bench: Any) -> None:
    """With refresh a second agent follows the first; Kubernetes ends it after the containers, so that Jobs complete."""
    init, refresh = bench.spec_of(bench.pod(inject="db", refresh="5m"))["initContainers"]
    assert (init["name"], init["args"], init.get("restartPolicy")) == (INIT, ["init"], None)
    assert (refresh["name"], refresh["args"], refresh["restartPolicy"]) == (REFRESH, ["refresh"], "Always")


def test_the_agent_is_restricted(bench: Any) -> None:
    """Each agent meets the restricted pod security standard by what it says itself."""
    for agent in bench.spec_of(bench.pod(inject="db", refresh="5m"))["initContainers"]:
        assert agent["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_agents_come_first(bench: Any) -> None:
    """Init containers that are chosen start after the secrets are there, native sidecars of the user included."""
    first, proxy = container("first"), container("proxy", restartPolicy="Always")
    spec = bench.spec_of(
        bench.pod({"initContainers": [first, proxy]}, inject="db", containers="app,proxy", refresh="5m")
    )
    assert bench.agents_of(spec) == [INIT, REFRESH, "first", "proxy"]
    assert "volumeMounts" not in spec["initContainers"][2]
    assert spec["initContainers"][3]["volumeMounts"][0]["subPath"] == "files/db"


def test_only_chosen_containers_get_anything(bench: Any) -> None:
    """All containers and no init containers are chosen, unless they are named."""
    bodies = {"containers": [container("a"), container("b")], "initContainers": [container("i")]}
    for annotations, meant in (({}, {"a", "b"}), ({"containers": "b, i"}, {"b", "i"})):
        spec = bench.spec_of(bench.pod(bodies, inject="db", **annotations))
        everything = (*spec["containers"], *spec["initContainers"][1:])
        assert {body["name"] for body in everything if "volumeMounts" in body} == meant


@pytest.mark.parametrize(
    ("spec", "resources"),
    [
        ({}, {"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "64Mi"}}),
        (
            {"containers": [container(resources={"limits": {"cpu": "1", "memory": "1Gi"}})]},
            {"requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}},
        ),
        ({"resources": {"limits": {"cpu": "1"}}}, None),
    ],
)
def test_resources(bench: Any, spec: Json, resources: Json | None) -> None:
    """A pod that is Guaranteed stays it, and a pod with a budget of its own has the agent within it."""
    assert bench.spec_of(bench.pod(spec, inject="db"))["initContainers"][0].get("resources") == resources


def test_a_service_account_that_is_not_set_yet(bench: Any) -> None:
    """Where no plugin has set the ServiceAccount yet it is the default one, without which no token is projected."""
    assert bench.spec_of(bench.pod({"serviceAccountName": ""}, inject="db"))["serviceAccountName"] == "default"
    assert bench.spec_of(bench.pod({"serviceAccountName": "mine"}, inject="db"))["serviceAccountName"] == "mine"
