"""What is refused or warned of before a pod is injected: what could not work, or would clash."""

from typing import Any

import pytest

from kmseal_webhook.annotations import PREFIX
from kmseal_webhook.podspec import INIT, SECRETS_VOLUME, TOKEN_VOLUME

Json = dict[str, Any]


def container(name: str = "app", **fields: Any) -> Json:
    return {"name": name, "image": f"{name}:1", **fields}


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
def test_refusals(bench: Any, annotations: dict[str, str], spec: Json, field: str, message: str, remedy: str) -> None:
    """A pod that could not work is refused with the field, what is wrong and what to do."""
    asked = bench.pod(spec)
    asked["metadata"]["annotations"] = {PREFIX + k: v for k, v in {"inject": "db", **annotations}.items()}
    error = bench.refusal(asked)
    assert error.field == field
    assert message in error.message
    assert remedy in error.remedy


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"containers": [container(f"c{number}") for number in range(257)]}, "257 containers"),
        (
            {"containers": [container(volumeMounts=[{"name": "v", "mountPath": "/x"}] * 10_001)]},
            "10001 mounts and variables",
        ),
    ],
    ids=["containers", "mounts"],
)
def test_a_pod_that_no_node_could_run(bench: Any, spec: Json, message: str) -> None:
    """Going through all of it would hold up the admission of other pods for seconds."""
    error = bench.refusal(bench.pod(spec, inject="db"))
    assert error.field == "spec"
    assert message in error.message


def test_a_static_pod(bench: Any) -> None:
    """The mirror of a static pod runs on its node already: it cannot get anything any more."""
    asked = bench.pod(inject="db")
    asked["metadata"]["annotations"]["kubernetes.io/config.mirror"] = "x"
    assert "static pod" in bench.refusal(asked).message


def test_neighbours_are_not_in_the_way(bench: Any) -> None:
    """Paths that only begin alike, or belong to a container that is not chosen, are no conflict."""
    bodies = [
        container(volumeMounts=[{"name": "v", "mountPath": "/run/secrets/kmseal/db2"}]),
        container("other", **MOUNTED),
    ]
    assert bench.spec_of(bench.pod({"containers": bodies}, inject="db", containers="app"))
    assert bench.spec_of(
        bench.pod({"containers": [container(env=[{"name": "USER", "value": "x"}])]}, inject="db", as__db="env")
    )


def test_a_broker_that_any_dns_finds(bench: Any) -> None:
    """Where the broker has a name outside the cluster, the pod's DNS policy does not matter."""
    outside = bench.settings_with(broker="https://secrets.example.com:443")
    assert bench.spec_of(bench.pod({"hostNetwork": True}, inject="db"), outside)


def test_a_dns_of_the_pod_s_own(bench: Any) -> None:
    """Nobody here knows whether the name server that the pod brings knows the broker: its author is told."""
    (warning,) = bench.injected(bench.pod({"dnsPolicy": "None"}, inject="db")).warnings
    assert warning.startswith("spec.dnsPolicy: None: the pod finds kmseal-webhook.kmseal-system.svc only if")
    assert (
        bench.injected(
            bench.pod({"dnsPolicy": "None"}, inject="db"), bench.settings_with(broker="https://secrets.example.com")
        ).warnings
        == ()
    )


@pytest.mark.parametrize(
    ("annotations", "version", "field", "remedy"),
    [
        ({"as.db": "both"}, (1, 34), "as.db", "take files"),
        ({"as": "env"}, (1, 34), "as", "take files"),
        ({"refresh": "5m"}, (1, 28), "refresh", '"off"'),
    ],
)
def test_older_servers(
    bench: Any, annotations: dict[str, str], version: tuple[int, int], field: str, remedy: str
) -> None:
    """What an older Kubernetes cannot do is refused with both versions and what can be done instead."""
    asked = bench.pod()
    asked["metadata"]["annotations"] = {PREFIX + k: v for k, v in {"inject": "db", **annotations}.items()}
    error = bench.refusal(asked, bench.settings_with(server_version=version))
    assert error.field == f"metadata.annotations[kmseal.dev/{field}]"
    assert f"this is {version[0]}.{version[1]}" in error.message
    assert remedy in error.remedy
    assert bench.spec_of(asked)


@pytest.mark.parametrize(
    ("annotations", "oldest", "message"),
    [
        ({"as.db": "both"}, (1, 34), "variables need Kubernetes 1.35 or newer, and the oldest node has 1.34"),
        ({"as": "env"}, (0, 0), "variables need Kubernetes 1.35 or newer, and one node does not tell its version"),
        ({"refresh": "5m"}, (1, 28), "a refresh needs Kubernetes 1.29 or newer, and the oldest node has 1.28"),
    ],
)
def test_older_nodes(bench: Any, annotations: dict[str, str], oldest: tuple[int, int], message: str) -> None:
    """What a kubelet would ignore, and start the pod without it, is refused whatever the API server can do."""
    asked = bench.pod()
    asked["metadata"]["annotations"] = {PREFIX + k: v for k, v in {"inject": "db", **annotations}.items()}
    assert bench.refusal(asked, bench.settings_with(oldest_kubelet=oldest)).message == message
    assert bench.spec_of(asked)


def test_files_on_older_nodes(bench: Any) -> None:
    """Files need nothing that an old kubelet does not know."""
    assert bench.spec_of(bench.pod(inject="db"), bench.settings_with(oldest_kubelet=(1, 20)))
