"""The injected pod: what it gets, what is refused, and that it stays as it is when it comes again."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from kmseal.errors import Malformed
from kmseal_agent.config import read_config
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import INJECTED, PREFIX, parse
from kmseal_webhook.injection import Injected, inject
from kmseal_webhook.podspec import INIT, REFRESH, SECRETS_VOLUME, TOKEN_VOLUME

Json = dict[str, Any]
SETTINGS = AgentSettings(
    image="agent:1",
    broker="https://kmseal-webhook.kmseal-system.svc:443",
    server_name="kmseal-webhook.kmseal-system.svc",
    ca=None,
    server_version=(1, 37),
)
NAMES = {"db": ("password", "user"), "cache": ("url",), "odd": ("1st", "ok"), "twin": ("password",)}


def container(name: str = "app", **fields: Any) -> Json:
    return {"name": name, "image": f"{name}:1", **fields}


def pod(spec: Json | None = None, /, **annotations: str) -> Json:
    """A pod; a double underscore in the name of an annotation stands for a full stop."""
    asked = {PREFIX + name.replace("__", "."): text for name, text in annotations.items()}
    return {
        "metadata": {"name": "pod", "annotations": asked},
        "spec": {"serviceAccountName": "default", "containers": [container()], **(spec or {})},
    }


def settings_with(**changes: Any) -> AgentSettings:
    return replace(SETTINGS, **changes)


def injected(pod: Json, settings: AgentSettings = SETTINGS) -> Injected:
    before = copy.deepcopy(pod)
    injection = parse(pod["metadata"]["annotations"])
    assert injection is not None
    result = inject(pod, injection, NAMES, settings)
    assert pod == before, "an argument was changed"
    return result


def spec_of(pod: Json, settings: AgentSettings = SETTINGS) -> Json:
    return dict(injected(pod, settings).pod["spec"])


def refusal(pod: Json, settings: AgentSettings = SETTINGS) -> Malformed:
    with pytest.raises(Malformed) as caught:
        injected(pod, settings)
    return caught.value


def config_of(pod: Json, settings: AgentSettings = SETTINGS) -> Json:
    agent = spec_of(pod, settings)["initContainers"][0]
    return dict(json.loads(agent["env"][0]["value"]))


def agents_of(spec: Json) -> list[str]:
    return [body["name"] for body in spec["initContainers"]]


# What a pod gets.


def test_files() -> None:
    """A container gets one read-only mount for each secret, of just that secret's folder."""
    body = spec_of(pod(inject="db,cache", path__cache="/cache"))["containers"][0]
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


def test_variables() -> None:
    """With env, a container gets one variable for each value, from the env file of its secret, and no mount."""
    body = spec_of(pod(inject="db", **{"as": "env"}))["containers"][0]
    assert body["env"] == [
        {
            "name": name,
            "valueFrom": {"fileKeyRef": {"volumeName": SECRETS_VOLUME, "path": "env/db.env", "key": name}},
        }
        for name in ("password", "user")
    ]
    assert "volumeMounts" not in body


def test_variables_come_before_the_user_s() -> None:
    """A variable of the user can refer to ours, for Kubernetes expands only what stands before it."""
    own = {"name": "URL", "value": "postgres://$(user):$(password)@db"}
    body = spec_of(pod({"containers": [container(env=[own])]}, inject="db", **{"as": "env"}))["containers"][0]
    assert [variable["name"] for variable in body["env"]] == ["password", "user", "URL"]


def test_renamed_variables() -> None:
    """Other names are those of the variables; values that are not listed are left out."""
    asked = pod(inject="odd", names__odd="1st=FIRST", **{"as": "env"})
    assert [variable["name"] for variable in spec_of(asked)["containers"][0]["env"]] == ["FIRST"]
    assert config_of(asked)["secrets"][0]["names"] == {"1st": "FIRST"}


def test_volumes() -> None:
    """Memory of a limited size, and a token for no audience but the broker's with the cluster's trust bundle."""
    memory, token = spec_of(pod(inject="db"))["volumes"]
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


def test_the_configuration_of_the_agent() -> None:
    """The agent is told all that it needs, and nothing that is secret."""
    asked = pod(inject="db,cache", refresh="5m", reload="http://127.0.0.1/x", mode__cache="0440", as__db="both")
    assert config_of(asked) == {
        "broker": "https://kmseal-webhook.kmseal-system.svc:443",
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


def test_the_agent_understands_its_configuration() -> None:
    """What is written here is what the agent's own strict parser reads."""
    asked = pod(inject="db,cache", refresh="5m", reload="http://127.0.0.1:1/x?y", names__db="user=U", as__db="both")
    for settings in (SETTINGS, settings_with(ca="PEM")):
        config = read_config(json.dumps(config_of(asked, settings)))
        assert [(wanted.name, wanted.names) for wanted in config.secrets] == [("db", {"user": "U"}), ("cache", None)]
        assert (config.refresh, config.root) == (300.0, "/kmseal")


def test_authorities_in_a_variable() -> None:
    """Where the cluster serves no trust bundles, the agent gets the authorities as a variable."""
    spec = spec_of(pod(inject="db", refresh="5m"), settings_with(ca="PEM"))
    assert [len(volume["projected"]["sources"]) for volume in spec["volumes"][1:]] == [1]
    for agent in spec["initContainers"]:
        assert agent["env"][1] == {"name": "KMSEAL_CA", "value": "PEM"}
        assert "ca" not in json.loads(agent["env"][0]["value"])


def test_refresh_is_a_native_sidecar() -> None:
    """With refresh a second agent follows the first; Kubernetes ends it after the containers, so that Jobs complete."""
    init, refresh = spec_of(pod(inject="db", refresh="5m"))["initContainers"]
    assert (init["name"], init["args"], init.get("restartPolicy")) == (INIT, ["init"], None)
    assert (refresh["name"], refresh["args"], refresh["restartPolicy"]) == (REFRESH, ["refresh"], "Always")


def test_the_agent_is_restricted() -> None:
    """Each agent meets the restricted pod security standard by what it says itself."""
    for agent in spec_of(pod(inject="db", refresh="5m"))["initContainers"]:
        assert agent["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }


def test_agents_come_first() -> None:
    """Init containers that are chosen start after the secrets are there, native sidecars of the user included."""
    first, proxy = container("first"), container("proxy", restartPolicy="Always")
    spec = spec_of(pod({"initContainers": [first, proxy]}, inject="db", containers="app,proxy", refresh="5m"))
    assert agents_of(spec) == [INIT, REFRESH, "first", "proxy"]
    assert "volumeMounts" not in spec["initContainers"][2]
    assert spec["initContainers"][3]["volumeMounts"][0]["subPath"] == "files/db"


def test_only_chosen_containers_get_anything() -> None:
    """All containers and no init containers are chosen, unless they are named."""
    bodies = {"containers": [container("a"), container("b")], "initContainers": [container("i")]}
    for annotations, meant in (({}, {"a", "b"}), ({"containers": "b, i"}, {"b", "i"})):
        spec = spec_of(pod(bodies, inject="db", **annotations))
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
def test_resources(spec: Json, resources: Json | None) -> None:
    """A pod that is Guaranteed stays it, and a pod with a budget of its own has the agent within it."""
    assert spec_of(pod(spec, inject="db"))["initContainers"][0].get("resources") == resources


def test_a_service_account_that_is_not_set_yet() -> None:
    """Where no plugin has set the ServiceAccount yet it is the default one, without which no token is projected."""
    assert spec_of(pod({"serviceAccountName": ""}, inject="db"))["serviceAccountName"] == "default"
    assert spec_of(pod({"serviceAccountName": "mine"}, inject="db"))["serviceAccountName"] == "mine"


# Who reads.


def context(**fields: Any) -> Json:
    return {"securityContext": fields}


@pytest.mark.parametrize(
    ("spec", "user", "group", "mode"),
    [
        ({}, 65532, 65532, "0444"),
        (context(runAsUser=1000), 1000, 65532, "0400"),
        (context(runAsUser=1000, runAsGroup=3000, fsGroup=2000), 1000, 3000, "0400"),
        (context(fsGroup=2000), 65532, 65532, "0440"),
        (context(fsGroup=0), 65532, 65532, "0440"),
        (context(runAsUser=0), 65532, 65532, "0444"),
        (context(runAsUser=0, runAsGroup=0), 65532, 0, "0444"),
        ({"containers": [container(**context(runAsUser=7))], **context(runAsUser=1000)}, 7, 65532, "0400"),
        (
            {"containers": [container("a", **context(runAsUser=7)), container("b")], **context(runAsUser=8)},
            65532,
            65532,
            "0444",
        ),
        ({"containers": [container("a", **context(runAsUser=7)), container("b")]}, 65532, 65532, "0444"),
    ],
)
def test_user_and_mode(spec: Json, user: int, group: int, mode: str) -> None:
    """Where all chosen containers are known to run as one user, the agent is that user and nobody else may read."""
    asked = pod(spec, inject="db")
    agent = spec_of(asked)["initContainers"][0]["securityContext"]
    assert (agent["runAsUser"], agent["runAsGroup"], config_of(asked)["secrets"][0]["mode"]) == (user, group, mode)
    assert injected(asked).warnings == ()


def test_users_of_containers_that_are_not_chosen_do_not_count() -> None:
    """A container that gets no secrets has no say in who the agent runs as."""
    bodies = [container("app", **context(runAsUser=7)), container("mesh", **context(runAsUser=1337))]
    assert config_of(pod({"containers": bodies}, inject="db", containers="app"))["secrets"][0]["mode"] == "0400"


def test_a_mode_that_surely_shuts_out() -> None:
    """A mode under which a container of a known user could not read is refused with the user and a remedy."""
    bodies = [container("a", **context(runAsUser=7)), container("b", **context(runAsUser=8))]
    error = refusal(pod({"containers": bodies}, inject="db", mode__db="0400"))
    assert error.field == "metadata.annotations[kmseal.dev/mode.db]"
    assert '"0400" lets the user 65532 read, and the container "a" runs as 7' in error.message
    assert "fsGroup" in error.remedy


@pytest.mark.parametrize(
    "more",
    [{"fsGroup": 2000}, {"runAsGroup": 3000}, {"supplementalGroups": [65532]}],
    ids=lambda more: next(iter(more)),
)
def test_a_mode_for_the_group(more: Json) -> None:
    """Reading as the group is enough where the agent's files belong to a group of the containers."""
    bodies = [container("a", **context(runAsUser=7)), container("b", **context(runAsUser=8))]
    asked = pod({"containers": bodies, **context(**more)}, inject="db", mode="0440")
    assert config_of(asked)["secrets"][0]["mode"] == "0440"
    assert injected(asked).warnings == ()


def test_a_mode_that_perhaps_shuts_out() -> None:
    """Where the image decides the user, a tight mode is a warning."""
    (warning,) = injected(pod(inject="db", mode="0440")).warnings
    assert warning.startswith('metadata.annotations[kmseal.dev/mode]: "app" may be unable to read db; set runAsUser')


def test_a_mode_without_files_does_not_matter() -> None:
    """What becomes variables only is read by the kubelet."""
    assert injected(pod(inject="db", mode="0400", **{"as": "env"})).warnings == ()


SHARED = {"shareProcessNamespace": True}


def signalled(spec: Json) -> Json:
    return pod(spec, inject="db", refresh="5m", reload="signal:HUP:nginx")


def test_a_signal() -> None:
    """A signal is possible within a shared process namespace, from and to one user."""
    assert injected(signalled({**SHARED, **context(runAsUser=101)})).warnings == ()
    (warning,) = injected(signalled(SHARED)).warnings
    assert "set runAsUser" in warning


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (context(runAsUser=101), "cannot reach a process of another container"),
        ({**SHARED, **context(runAsUser=0)}, "run as root or as several users"),
        (
            {**SHARED, "containers": [container("a", **context(runAsUser=1)), container("b", **context(runAsUser=2))]},
            "run as root or as several users",
        ),
    ],
)
def test_a_signal_that_cannot_be_sent(spec: Json, message: str) -> None:
    """What the kernel would refuse later is refused now."""
    error = refusal(signalled(spec))
    assert error.field == "metadata.annotations[kmseal.dev/reload]"
    assert message in error.message


# What is refused.

MOUNTED: Json = {"volumeMounts": [{"name": "v", "mountPath": "/run/secrets/kmseal/db"}]}


@pytest.mark.parametrize(
    ("annotations", "spec", "field", "message", "remedy"),
    [
        ({}, {"os": {"name": "windows"}}, "metadata.annotations[kmseal.dev/inject]", "Windows", "native Secret"),
        (
            {},
            {"nodeSelector": {"kubernetes.io/os": "windows"}},
            "metadata.annotations[kmseal.dev/inject]",
            "Windows",
            "native Secret",
        ),
        ({}, {"dnsPolicy": "Default"}, "spec.dnsPolicy", "does not know kmseal-webhook", "write ClusterFirst,"),
        ({}, {"hostNetwork": True}, "spec.dnsPolicy", "on the host's network", "write ClusterFirstWithHostNet,"),
        (
            {"containers": "apq"},
            {},
            "metadata.annotations[kmseal.dev/containers]",
            '"apq" is not a container',
            'did you mean "app"?',
        ),
        (
            {"containers": INIT},
            {},
            "metadata.annotations[kmseal.dev/containers]",
            "is not a container of this pod",
            'name one of "app"',
        ),
        ({}, {"containers": [container("kmseal-init")]}, "spec.containers[0].name", "reserved", "rename it"),
        ({}, {"initContainers": [container(INIT)]}, "spec.initContainers[0].name", "reserved", "rename it"),
        ({}, {"containers": [container("kmseal-x")]}, "spec.containers[0].name", "reserved", "rename it"),
        ({}, {"volumes": [{"name": SECRETS_VOLUME, "emptyDir": {}}]}, "spec.volumes[0].name", "reserved", "rename"),
        (
            {},
            {"containers": [container(volumeMounts=[{"name": TOKEN_VOLUME, "mountPath": "/t"}])]},
            "spec.containers[0].volumeMounts[0].name",
            "reserved",
            "rename it",
        ),
        (
            {},
            {
                "containers": [
                    container(env=[{"name": "X", "valueFrom": {"fileKeyRef": {"volumeName": SECRETS_VOLUME}}}])
                ]
            },
            "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName",
            "reserved",
            "rename it",
        ),
        (
            {},
            {"containers": [container(**MOUNTED)]},
            "spec.containers[0].volumeMounts[0].mountPath",
            "the files of the secret db, get into each other's way",
            "kmseal.dev/path",
        ),
        (
            {"path.db": "/x/y"},
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/x/"}])]},
            "spec.containers[0].volumeMounts[0].mountPath",
            '"/x/" of the container "app" and /x/y',
            "kmseal.dev/path.db",
        ),
        (
            {"path.db": "/x"},
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/x/y"}])]},
            "spec.containers[0].volumeMounts[0].mountPath",
            "each other's way",
            "kmseal.dev/path.db",
        ),
        (
            {},
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/var/run/secrets"}])]},
            "spec.containers[0].volumeMounts[0].mountPath",
            "each other's way",
            "kmseal.dev/path",
        ),
        (
            {"path.db": "/x"},
            {"containers": [container(volumeDevices=[{"name": "v", "devicePath": "/x"}])]},
            "spec.containers[0].volumeDevices[0].devicePath",
            "each other's way",
            "kmseal.dev/path.db",
        ),
        (
            {"as": "env"},
            {"containers": [container(env=[{"name": "user", "value": "x"}])]},
            "spec.containers[0].env[0].name",
            '"user" is also a variable that the secret db gives to the container "app"',
            "kmseal.dev/names.db",
        ),
        (
            {"inject": "odd", "as": "env"},
            {},
            "metadata.annotations[kmseal.dev/inject]",
            'the value "1st" of the EncryptedSecret odd cannot be an environment variable',
            "kmseal.dev/names.odd: 1st=NAME (values that are not listed there are left out), or take files",
        ),
        (
            {"inject": "db,twin", "as": "env"},
            {},
            "metadata.annotations[kmseal.dev/inject]",
            'the secrets db and twin both give the variable "password"',
            "kmseal.dev/names.twin",
        ),
        (
            {"names.db": "pasword=P"},
            {},
            "metadata.annotations[kmseal.dev/names.db]",
            'the EncryptedSecret db has no value "pasword"',
            'did you mean "password"?',
        ),
    ],
)
def test_refusals(annotations: dict[str, str], spec: Json, field: str, message: str, remedy: str) -> None:
    """A pod that could not work is refused with the field, what is wrong and what to do."""
    asked = pod(spec)
    asked["metadata"]["annotations"] = {PREFIX + k: v for k, v in {"inject": "db", **annotations}.items()}
    error = refusal(asked)
    assert error.field == field
    assert message in error.message
    assert remedy in error.remedy


def test_a_static_pod() -> None:
    """The mirror of a static pod runs on its node already: it cannot get anything any more."""
    asked = pod(inject="db")
    asked["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x"
    assert "static pod" in refusal(asked).message


def test_neighbours_are_not_in_the_way() -> None:
    """Paths that only begin alike, or belong to a container that is not chosen, are no conflict."""
    bodies = [
        container(volumeMounts=[{"name": "v", "mountPath": "/run/secrets/kmseal/db2"}]),
        container("other", **MOUNTED),
    ]
    assert spec_of(pod({"containers": bodies}, inject="db", containers="app"))
    assert spec_of(pod({"containers": [container(env=[{"name": "USER", "value": "x"}])]}, inject="db", as__db="env"))


def test_a_broker_that_any_dns_finds() -> None:
    """Where the broker has a name outside the cluster, the pod's DNS policy does not matter."""
    outside = settings_with(broker="https://secrets.example.com:443")
    assert spec_of(pod({"hostNetwork": True}, inject="db"), outside)


@pytest.mark.parametrize(
    ("annotations", "version", "field", "remedy"),
    [
        ({"as.db": "both"}, (1, 34), "as.db", "take files"),
        ({"as": "env"}, (1, 34), "as", "take files"),
        ({"refresh": "5m"}, (1, 28), "refresh", '"off"'),
    ],
)
def test_older_servers(annotations: dict[str, str], version: tuple[int, int], field: str, remedy: str) -> None:
    """What an older Kubernetes cannot do is refused with both versions and what can be done instead."""
    asked = pod()
    asked["metadata"]["annotations"] = {PREFIX + k: v for k, v in {"inject": "db", **annotations}.items()}
    error = refusal(asked, settings_with(server_version=version))
    assert error.field == f"metadata.annotations[kmseal.dev/{field}]"
    assert f"this is {version[0]}.{version[1]}" in error.message
    assert remedy in error.remedy
    assert spec_of(asked)


# A pod that comes again.


def again(pod: Json, settings: AgentSettings = SETTINGS) -> Json:
    return injected(pod, settings).pod


@pytest.mark.parametrize("annotations", [{}, {"as": "both"}, {"refresh": "5m"}, {"containers": "app"}])
def test_reinvocation(annotations: dict[str, str]) -> None:
    """A pod that is as it should be is left alone."""
    once = again(pod(inject="db,cache", **annotations))
    assert again(once) == once


def test_what_others_changed_stays() -> None:
    """Defaults, mounts, variables, and images that other plugins wrote into our parts do not cost a second patch."""
    once = again(pod(inject="db", refresh="5m", **{"as": "both"}))
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
    assert again(once) == once


def test_a_container_that_was_added_is_completed() -> None:
    """A container that came after us gets what the others have; nothing else changes."""
    once = again(pod(inject="db", **{"as": "both"}))
    first = copy.deepcopy(once["spec"]["containers"][0])
    once["spec"]["containers"].append(container("late"))
    twice = again(once)
    assert twice["spec"]["containers"][0] == first
    assert twice["spec"]["containers"][1] == {**first, "name": "late", "image": "late:1"}
    assert again(twice) == twice


def test_a_container_that_was_added_may_change_the_mode() -> None:
    """The agent's configuration follows what the pod has become, and its image stays what others made of it."""
    once = again(pod({**context(runAsUser=7)}, inject="db"))
    once["spec"]["containers"].append(container("late", **context(runAsUser=8)))
    once["spec"]["initContainers"][0]["image"] = "mirror.example/agent:1"
    agent = again(once)["spec"]["initContainers"][0]
    assert (agent["image"], agent["securityContext"]["runAsUser"]) == ("mirror.example/agent:1", 65532)
    assert json.loads(agent["env"][0]["value"])["secrets"][0]["mode"] == "0444"


def test_a_chosen_init_container_in_front_of_us() -> None:
    """Where one that needs the secrets was put before our agents, they go first again."""
    asked = pod({"initContainers": [container("warm-up")]}, inject="db", containers="warm-up")
    once = again(asked)
    once["spec"]["initContainers"].reverse()
    assert agents_of(again(once)["spec"]) == [INIT, "warm-up"]


def test_another_request_is_carried_out_anew() -> None:
    """A stored pod whose annotations were edited, or that another release injected, gets what is right now."""
    once = again(pod(inject="db,cache", refresh="5m", **{"as": "both"}))
    once["spec"]["initContainers"][0]["image"] = "agent:0"
    once["metadata"]["annotations"] = {f"{PREFIX}inject": "db", f"{PREFIX}path": "/x", INJECTED: "0" * 16}
    fresh = again(pod(inject="db", path="/x"))
    assert again(once)["spec"]["containers"][0]["volumeMounts"] == fresh["spec"]["containers"][0]["volumeMounts"]
    assert again(once)["spec"]["containers"][0]["env"] == []
    assert again(once)["spec"]["initContainers"] == fresh["spec"]["initContainers"]
    assert again(once)["metadata"] == fresh["metadata"]


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
def test_pretending_to_be_injected(spec: Json) -> None:
    """The annotation alone does not make a user's own container or volume one of ours."""
    asked = pod(spec, inject="db")
    asked["metadata"]["annotations"][INJECTED] = "0" * 16
    assert "is not what kmseal injects" in refusal(asked).message
