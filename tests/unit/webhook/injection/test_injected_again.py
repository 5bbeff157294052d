"""A pod that comes again: what is right stays as it is, and what is not is made right."""

import copy
import json
from typing import Any

import pytest

from kmseal_webhook.annotations import INJECTED, PREFIX
from kmseal_webhook.podspec import INIT, SECRETS_VOLUME

Json = dict[str, Any]


def container(name: str = "app", **fields: Any) -> Json:
    return {"name": name, "image": f"{name}:1", **fields}


def context(**fields: Any) -> Json:
    return {"securityContext": fields}


@pytest.mark.parametrize("annotations", [{}, {"as": "both"}, {"refresh": "5m"}, {"containers": "app"}])
def test_reinvocation(bench: Any, annotations: dict[str, str]) -> None:
    """A pod that is as it should be is left alone."""
    once = bench.again(bench.pod(inject="db,cache", **annotations))
    assert bench.again(once) == once


def test_what_others_changed_stays(bench: Any) -> None:
    """Defaults, mounts, variables, and images that other plugins wrote into our parts do not cost a second patch."""
    once = bench.again(bench.pod(inject="db", refresh="5m", **{"as": "both"}))
    agent = once["spec"]["initContainers"][0]
    agent["image"] = "mirror.example/agent:1"
    agent["resources"] = {"limits": {"cpu": "1"}}
    agent["terminationMessagePath"] = "/dev/termination-log"
    agent["securityContext"]["seLinuxOptions"] = {"level": "s0"}
    agent["volumeMounts"].insert(0, {"name": "api", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"})
    agent["env"].append({"name": "PROXY", "value": "x"})
    app = once["spec"]["containers"][0]
    app["env"][0]["valueFrom"]["fileKeyRef"]["optional"] = False
    app["env"].insert(0, {"name": "MESH", "value": "on"})
    once["spec"]["volumes"][1]["projected"]["defaultMode"] = 420
    once["spec"]["initContainers"].insert(0, container("network"))
    assert bench.again(once) == once


def test_a_container_that_was_added_is_completed(bench: Any) -> None:
    """A container that came after us gets what the others have; nothing else changes."""
    once = bench.again(bench.pod(inject="db", **{"as": "both"}))
    first = copy.deepcopy(once["spec"]["containers"][0])
    once["spec"]["containers"].append(container("late"))
    twice = bench.again(once)
    assert twice["spec"]["containers"][0] == first
    assert twice["spec"]["containers"][1] == {**first, "name": "late", "image": "late:1"}
    assert bench.again(twice) == twice


def test_a_container_that_was_added_may_change_the_mode(bench: Any) -> None:
    """The agent's configuration follows what the pod has become, and its image stays what others made of it."""
    once = bench.again(bench.pod({**context(runAsUser=7)}, inject="db"))
    once["spec"]["containers"].append(container("late", **context(runAsUser=8)))
    once["spec"]["initContainers"][0]["image"] = "mirror.example/agent:1"
    agent = bench.again(once)["spec"]["initContainers"][0]
    assert (agent["image"], agent["securityContext"]["runAsUser"]) == ("mirror.example/agent:1", 65532)
    assert json.loads(agent["env"][0]["value"])["secrets"][0]["mode"] == "0444"


def test_a_chosen_init_container_in_front_of_us(bench: Any) -> None:
    """Where one that needs the secrets was put before our agents, they go first again."""
    asked = bench.pod({"initContainers": [container("warm-up")]}, inject="db", containers="warm-up")
    once = bench.again(asked)
    once["spec"]["initContainers"].reverse()
    assert bench.agents_of(bench.again(once)["spec"]) == [INIT, "warm-up"]


def test_another_request_is_carried_out_anew(bench: Any) -> None:
    """A stored pod whose annotations were edited, or that another release injected, gets what is right now."""
    once = bench.again(bench.pod(inject="db,cache", refresh="5m", **{"as": "both"}))
    once["spec"]["initContainers"][0]["image"] = "agent:0"
    once["metadata"]["annotations"] = {f"{PREFIX}inject": "db", f"{PREFIX}path": "/x", INJECTED: "0" * 16}
    fresh = bench.again(bench.pod(inject="db", path="/x"))
    assert bench.again(once)["spec"]["containers"][0]["volumeMounts"] == fresh["spec"]["containers"][0]["volumeMounts"]
    assert bench.again(once)["spec"]["containers"][0]["env"] == []
    assert bench.again(once)["spec"]["initContainers"] == fresh["spec"]["initContainers"]
    assert bench.again(once)["metadata"] == fresh["metadata"]


@pytest.mark.parametrize(
    "spec",
    [
        {"initContainers": [container(INIT, args=["sh"])]},
        {"initContainers": [container(INIT, args=["init"])]},
        {"containers": [container(INIT, args=["init"], env=[{"name": "KMSEAL_CONFIG"}])]},
        {"initContainers": [container("kmseal-other", args=None)]},
        {"volumes": [{"name": SECRETS_VOLUME, "hostPath": {"path": "/"}}]},
        {"volumes": [{"name": "kmseal-other", "emptyDir": {}}]},
    ],
)
def test_pretending_to_be_injected(bench: Any, spec: Json) -> None:
    """The annotation alone does not make a user's own container or volume one of ours."""
    asked = bench.pod(spec, inject="db")
    asked["metadata"]["annotations"][INJECTED] = "0" * 16
    assert "is not what kmseal injects" in bench.refusal(asked).message
