"""What holds of every pod that can be injected, whatever else is in it."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import jsonpatch
from hypothesis import assume, given
from hypothesis import strategies as st

from kmseal.errors import Malformed
from kmseal_agent.config import read_config
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import PREFIX, parse
from kmseal_webhook.injection import inject
from kmseal_webhook.patch import make_patch
from kmseal_webhook.podspec import INIT, REFRESH, SECRETS_VOLUME, TOKEN_VOLUME, volume_of

Json = dict[str, Any]
SETTINGS = AgentSettings(
    image="agent:1",
    broker="https://broker.example:443",
    server_name="broker.example",
    ca=None,
    server_version=(1, 37),
    oldest_kubelet=(1, 37),
)
NAMES = {"db": ("password", "user"), "cache": ("url",)}

_USERS = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.sampled_from([0, 1000, 2000]),
        "runAsGroup": st.sampled_from([0, 3000]),
        "readOnlyRootFilesystem": st.booleans(),
    },
)
_POD_USERS = st.fixed_dictionaries(
    {},
    optional={
        "runAsUser": st.sampled_from([0, 1000]),
        "fsGroup": st.sampled_from([0, 2000]),
        "supplementalGroups": st.lists(st.sampled_from([4000, 65532]), max_size=2, unique=True),
    },
)
_VARIABLES = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["A", "B", "user", "C"]), "value": st.text(max_size=3)}), max_size=4
)
_MOUNTS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["data", "tmp"]),
            "mountPath": st.sampled_from(["/data", "/cache", "/run", "/run/secrets/kmseal/db", "/etc/app"]),
        }
    ),
    max_size=3,
    unique_by=lambda mount: mount["mountPath"],
)


def _containers(names: list[str], least: int, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Json]]:
    optional = {"securityContext": _USERS, "env": _VARIABLES, "volumeMounts": _MOUNTS, **more}
    body = st.fixed_dictionaries({"name": st.sampled_from(names), "image": st.just("app:1")}, optional=optional)
    return st.lists(body, min_size=least, max_size=3, unique_by=lambda item: item["name"])


_ANNOTATIONS = st.fixed_dictionaries(
    {"inject": st.sampled_from(["db", "cache", "db,cache"])},
    optional={
        "as": st.sampled_from(["files", "env", "both"]),
        "path": st.sampled_from(["/etc/app", "/srv/secrets"]),
        "mode": st.sampled_from(["0400", "0440", "0444"]),
        "containers": st.sampled_from(["app", "app,side", "first", "first,app"]),
        "refresh": st.sampled_from(["off", "5m"]),
    },
)
_SPECS = st.fixed_dictionaries(
    {"containers": _containers(["app", "side", "late"], 1)},
    optional={
        "initContainers": _containers(["first", "second"], 0, restartPolicy=st.just("Always")),
        "volumes": st.just([{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]),
        "securityContext": _POD_USERS,
        "serviceAccountName": st.sampled_from(["", "mine"]),
        "restartPolicy": st.sampled_from(["Always", "Never"]),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> Json:
    """A pod that asks for injection."""
    annotations = {PREFIX + name: text for name, text in draw(_ANNOTATIONS).items()}
    return {"metadata": {"name": "pod", "annotations": {"mine": "x", **annotations}}, "spec": draw(_SPECS)}


def injected(pod: Json) -> Json:
    """The injected pod; an example that is refused is passed over."""
    injection = parse(pod["metadata"]["annotations"])
    assert injection is not None
    try:
        return inject(pod, injection, NAMES, SETTINGS).pod
    except Malformed:
        assume(False)
        raise


def without_ours(pod: Json) -> Json:
    pod = copy.deepcopy(pod)
    spec = pod["spec"]
    spec["volumes"] = [v for v in spec.get("volumes", ()) if v["name"] not in (SECRETS_VOLUME, TOKEN_VOLUME)]
    spec["initContainers"] = [c for c in spec.get("initContainers", ()) if c["name"] not in (INIT, REFRESH)]
    spec["serviceAccountName"] = spec.get("serviceAccountName") or "default"
    for body in (*spec["containers"], *spec["initContainers"]):
        body["volumeMounts"] = [m for m in body.get("volumeMounts", ()) if m["name"] != SECRETS_VOLUME]
        body["env"] = [v for v in body.get("env", ()) if volume_of(v) != SECRETS_VOLUME]
    pod["metadata"]["annotations"].pop(f"{PREFIX}injected", None)
    return pod


@given(pods())
def test_nothing_else_changes(pod: Json) -> None:
    """Without our parts an injected pod is the pod that came."""
    assert without_ours(injected(pod)) == without_ours(pod)


@given(pods())
def test_once_is_enough(pod: Json) -> None:
    """Injecting an injected pod changes nothing, and needs no patch."""
    once = injected(pod)
    assert make_patch(once, injected(once)) == []


@given(pods())
def test_the_patch_makes_the_injected_pod(pod: Json) -> None:
    """Applied by another implementation, the patch makes exactly the pod that was meant."""
    after = injected(pod)
    patched = jsonpatch.apply_patch(copy.deepcopy(pod), make_patch(pod, after))
    assert json.dumps(patched, sort_keys=True) == json.dumps(after, sort_keys=True)


@given(pods(), _containers(["new", "newer"], 1))
def test_what_others_add_is_completed(pod: Json, added: list[Json]) -> None:
    """Containers that come after us end up as if they had been there before us."""
    late = injected(pod)
    late["spec"]["containers"] += copy.deepcopy(added)
    early = copy.deepcopy(pod)
    early["spec"]["containers"] += copy.deepcopy(added)
    completed, at_once = injected(late)["spec"], injected(early)["spec"]
    assert completed["containers"] == at_once["containers"]
    assert completed["volumes"] == at_once["volumes"]
    # Quality of service apart: whoever came first has decided the agent's resources.
    assert list(map(_without_resources, completed["initContainers"])) == list(
        map(_without_resources, at_once["initContainers"])
    )


@given(pods())
def test_chosen_containers_follow_the_agents(pod: Json) -> None:
    """No container that uses what the agents fetch starts before the first of them has ended."""
    spec = injected(pod)["spec"]
    agents = [index for index, body in enumerate(spec["initContainers"]) if body["name"] in (INIT, REFRESH)]
    using = [
        index
        for index, body in enumerate(spec["initContainers"])
        if index not in agents and SECRETS_VOLUME in json.dumps(body)
    ]
    assert all(index > max(agents) for index in using)


@given(pods())
def test_the_api_server_s_rules(pod: Json) -> None:
    """Names and mount paths stay unique, and whatever is mounted or read from exists as a volume."""
    spec = injected(pod)["spec"]
    volumes = [volume["name"] for volume in spec["volumes"]]
    everything = [*spec["containers"], *spec["initContainers"]]
    assert len(set(volumes)) == len(volumes)
    assert len({body["name"] for body in everything}) == len(everything)
    for body in everything:
        mounts = body.get("volumeMounts") or []
        assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        used = {mount["name"] for mount in mounts} | {volume_of(v) for v in body.get("env") or ()}
        assert used <= {*volumes, "", "data", "tmp"}


@given(pods())
def test_the_agent_reads_its_configuration(pod: Json) -> None:
    """Whatever was asked for, the agent's strict parser takes what it is told."""
    for agent in injected(pod)["spec"]["initContainers"]:
        if agent["name"] in (INIT, REFRESH):
            assert read_config(agent["env"][0]["value"]).root == "/kmseal"


def _without_resources(body: Mapping[str, Any]) -> Json:
    return {name: value for name, value in body.items() if name != "resources"}
