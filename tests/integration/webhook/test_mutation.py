"""Injection judged by the real API server: it calls the webhook over TLS, and then validates what came of the pod.

What is admitted is admitted by PodSecurity too: most pods go into a namespace that enforces the restricted standard.
Everything is a dry run, for no kubelet is there to run pods.
"""

import asyncio
import copy
import json
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web
from ruamel.yaml import YAML

from kmseal.envelope import Place, Scope, encode_base64, encrypt_value, new_data_key_id
from kmseal.kube import KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal.manifest import API_VERSION, KIND
from kmseal.redacted import Redacted
from kmseal_dev.certificates import Authority, KeyPair
from kmseal_dev.controlplane import ControlPlane
from kmseal_webhook.admission import AdmissionRequest, Answer, Reviewer, make_handler
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.annotations import INJECTED, PREFIX
from kmseal_webhook.mutation import Mutation
from kmseal_webhook.podspec import INIT, REFRESH, SECRETS_VOLUME, TOKEN_VOLUME, volume_of

Json = dict[str, Any]
T = TypeVar("T")
DEADLINE = 30.0
WEBHOOKS = Path(__file__).parents[3] / "webhook" / "webhooks.yaml"
SETTINGS = AgentSettings(
    image="registry.example/kmseal-agent:1",
    broker="https://kmseal-webhook.kmseal-system.svc:8444",
    server_name="kmseal-webhook.kmseal-system.svc",
    ca="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    server_version=(1, 37),
    oldest_kubelet=(1, 37),
)
RESTRICTED: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD_CONTEXT: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


class Loop:
    """An event loop in a thread, so that tests that block can be answered by a server of their own process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()


class Cluster:
    """Two namespaces of a control plane, of which one is restricted, and a webhook that serves both."""

    def __init__(self, control_plane: ControlPlane, namespace: str, mutation: Mutation, loop: Loop) -> None:
        self.control_plane = control_plane
        self.restricted = namespace
        self.free = f"{namespace}-free"
        self._mutation = mutation
        self._loop = loop
        self.reviewed = 0
        """How often the API server has called us."""

    async def review(self, request: AdmissionRequest) -> Answer:
        self.reviewed += 1
        return await self._mutation.review(request)

    def post(self, pod: Json, *, free: bool = False) -> tuple[int, Json]:
        namespace = self.free if free else self.restricted
        path = f"/api/v1/namespaces/{namespace}/pods?dryRun=All"
        answer = self.control_plane.request("POST", path, {"apiVersion": "v1", "kind": "Pod", **pod})
        return answer.status, answer.body

    def admitted(self, pod: Json, *, free: bool = False) -> Json:
        status, body = self.post(pod, free=free)
        assert status == 201, body["message"]
        return body

    def refused(self, pod: Json, *, free: bool = False) -> str:
        status, body = self.post(pod, free=free)
        assert status == 403, body
        return str(body["message"])

    def patch_of(self, pod: Json, *, free: bool = False) -> list[Json] | None:
        namespace = self.free if free else self.restricted
        request = AdmissionRequest("u", "CREATE", "Pod", namespace, "", pod, None, "somebody", dry_run=True)
        return self._loop.run(self._mutation.review(request)).patch


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """The API server learns of a webhook through a watch of its own."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


@contextmanager
def serving(loop: Loop, reviewers: dict[str, Reviewer], pair: KeyPair, folder: Path) -> Iterator[int]:
    """The port of a TLS server on loopback with one route for each reviewer."""
    certificate = folder / "serving.pem"
    certificate.write_bytes(pair.public + pair.private)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    app = web.Application(client_max_size=3 << 20)
    for name, reviewer in reviewers.items():
        app.router.add_post(
            f"/{name}",
            make_handler(reviewer, name=name, clock=time.monotonic, observer=lambda *_: None),
        )
    transports: set[asyncio.Transport] = set()

    async def note(request: web.Request, response: web.StreamResponse) -> None:
        if request.transport:
            transports.add(request.transport)

    app.on_response_prepare.append(note)
    runner = web.AppRunner(app, access_log=None)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        return int(runner.addresses[0][1])

    async def stop() -> None:
        # The API server keeps its connections, and a polite end of TLS would take longer than this loop lives.
        for transport in transports:
            transport.abort()
        await runner.cleanup()

    port = loop.run(start())
    try:
        yield port
    finally:
        loop.run(stop())


def webhook(name: str, namespace: str, url: str, authority: bytes, *, conditions: list[Json]) -> Json:
    return {
        "name": f"{name}.kmseal.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 5,
        "reinvocationPolicy": "IfNeeded",
        "matchConditions": conditions,
        "namespaceSelector": {"matchLabels": {"test": namespace}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
        "clientConfig": {"url": url, "caBundle": b64encode(authority).decode()},
    }


async def add_sidecar(request: AdmissionRequest) -> Answer:
    """Another webhook, as of a service mesh: a container, an init container before all others, a variable for all."""
    spec = request.object["spec"]
    if "sidecar" not in request.object["metadata"].get("labels", {}):
        return Answer(allowed=True)
    patch: list[Json] = []
    if all(body["name"] != "mesh" for body in spec["containers"]):
        patch += [
            {"op": "add", "path": f"/spec/containers/{index}/env/-", "value": {"name": "MESH", "value": "on"}}
            for index, body in enumerate(spec["containers"])
            if body.get("env")
        ]
        mesh = container("mesh", securityContext={**RESTRICTED, "runAsUser": 1337})
        patch.append({"op": "add", "path": "/spec/containers/-", "value": mesh})
    if all(body["name"] != "mesh-init" for body in spec.get("initContainers", ())):
        first = [container("mesh-init")]
        patch.append({"op": "add", "path": "/spec/initContainers", "value": first + spec.get("initContainers", [])})
    return Answer(allowed=True, patch=patch)


def sealed(namespace: str, name: str, *values: str) -> Json:
    """An EncryptedSecret as the CRD wants it. Nobody here opens it: admission reads names."""
    place, id_, key = Place.of(Scope.STRICT, namespace, name), new_data_key_id(), Redacted(bytes(32))
    wrapping = {
        "keyId": "local:test",
        "keyVersionId": "1",
        "algorithm": "LOCAL_AES_256_GCM",
        "wrapped": encode_base64(bytes(60)),
    }
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "dataKeys": [{"id": id_, "sealedFor": place.sealed_for, "wrappings": [wrapping]}],
            "encryptedData": {v: encrypt_value(key, id_, place, v, Redacted(b"x")).line() for v in values},
        },
    }


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane, crds: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The webhook is registered for two namespaces of this module and nothing else."""
    name = f"mutation-{time.time_ns():x}"
    for namespace, labels in (
        (name, {"test": name, "pod-security.kubernetes.io/enforce": "restricted"}),
        (f"{name}-free", {"test": name}),
    ):
        body = {"metadata": {"name": namespace, "labels": labels}}
        assert control_plane.request("POST", "/api/v1/namespaces", body).status == 201
        for secret in (
            sealed(namespace, "db", "user", "password"),
            sealed(namespace, "cache", "url"),
            sealed(namespace, "odd", "1st", "2nd"),
        ):
            path = f"/apis/kmseal.dev/v1alpha1/namespaces/{namespace}/encryptedsecrets"
            created = control_plane.request("POST", path, secret)
            assert created.status == 201, created.body
    authority, loop = Authority(), Loop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        kube_stack = AsyncExitStack()
        client = KubeClient(load_kubeconfig(control_plane.kubeconfig), user_agent="mutation-test")
        kube = loop.run(kube_stack.enter_async_context(client))
        stack.callback(lambda: loop.run(kube_stack.aclose()))
        cluster = Cluster(control_plane, name, Mutation(kube, lambda: SETTINGS), loop)
        reviewers: dict[str, Reviewer] = {"mutate": cluster.review, "sidecar": add_sidecar}
        folder = tmp_path_factory.mktemp("serving")
        port = stack.enter_context(serving(loop, reviewers, authority.serving("127.0.0.1"), folder))
        # The very conditions that are shipped.
        (shipped,) = next(YAML(typ="safe").load_all(WEBHOOKS.read_text()))["webhooks"]
        conditions = shipped["matchConditions"]
        hooks = [
            webhook("inject", name, f"https://127.0.0.1:{port}/mutate", authority.certificate, conditions=conditions),
            webhook("sidecar", name, f"https://127.0.0.1:{port}/sidecar", authority.certificate, conditions=[]),
        ]
        path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        created = control_plane.request("POST", path, {"metadata": {"name": name}, "webhooks": hooks})
        assert created.status == 201, created.body
        stack.callback(control_plane.request, "DELETE", f"{path}/{name}")
        probe = pod(inject="db")
        wait_until(lambda: INIT in json.dumps(cluster.admitted(probe)), "the webhook is called")
        yield cluster


def container(name: str = "app", **fields: Any) -> Json:
    return {"name": name, "image": "registry.example/app:1", "securityContext": RESTRICTED, **fields}


def pod(spec: Json | None = None, metadata: Json | None = None, /, **annotations: str) -> Json:
    """A pod of the restricted kind; a double underscore in the name of an annotation stands for a full stop."""
    asked = {PREFIX + name.replace("__", "."): text for name, text in annotations.items()}
    return {
        "metadata": {"name": "pod", "annotations": {"example.com/mine": "stays", **asked}, **(metadata or {})},
        "spec": {"containers": [container()], "securityContext": POD_CONTEXT, **(spec or {})},
    }


@dataclass(frozen=True)
class Row:
    """One pod that the API server accepts without injection, and must accept with it."""

    id: str
    annotations: dict[str, str]
    spec: Json = field(default_factory=dict)
    metadata: Json = field(default_factory=dict)
    free: bool = False
    """Whether it goes into the namespace without a standard."""


BARE: Json = {"name": "bare", "image": "registry.example/bare:1"}
GUARANTEED = {"limits": {"cpu": "1", "memory": "1Gi"}}
ROWS = [
    Row("files", {"inject": "db"}),
    Row("two-secrets", {"inject": "db, cache"}),
    Row("variables", {"inject": "db,cache", "as": "env"}),
    Row("both", {"inject": "db", "as": "both"}),
    Row("renamed", {"inject": "odd", "as": "env", "names__odd": "1st=FIRST"}),
    Row("template", {"inject": "db", "template__db": "{{ values.user }}:{{ values.password }}", "file__db": "pgpass"}),
    Row("refresh", {"inject": "db", "refresh": "5m"}),
    Row("refresh-and-reload", {"inject": "db", "refresh": "5m", "reload": "http://127.0.0.1:8080/reload"}),
    Row(
        "signal",
        {"inject": "db", "refresh": "5m", "reload": "signal:HUP:nginx"},
        {"shareProcessNamespace": True, "securityContext": {**POD_CONTEXT, "runAsUser": 1000}},
    ),
    Row("own-directories", {"inject": "db,cache", "path": "/etc/app", "path__cache": "/cache", "mode__db": "0440"}),
    Row("generate-name", {"inject": "db"}, metadata={"name": None, "generateName": "web-"}),
    Row("several-containers", {"inject": "db"}, {"containers": [container("a"), container("b")]}),
    Row(
        "chosen-containers",
        {"inject": "db", "containers": "b, warm-up", "as": "both"},
        {"containers": [container("a"), container("b")], "initContainers": [container("warm-up")]},
    ),
    Row(
        "native-sidecar-of-the-user",
        {"inject": "db", "containers": "app,proxy", "refresh": "30s"},
        {"initContainers": [container("first"), container("proxy", restartPolicy="Always")]},
    ),
    Row("job", {"inject": "db", "refresh": "1h"}, {"restartPolicy": "Never", "activeDeadlineSeconds": 600}),
    Row("run-as-user", {"inject": "db"}, {"securityContext": {**POD_CONTEXT, "runAsUser": 1000, "runAsGroup": 3000}}),
    Row(
        "fs-group",
        {"inject": "db"},
        {"securityContext": {**POD_CONTEXT, "fsGroup": 2000, "supplementalGroups": [4000]}},
    ),
    Row(
        "users-of-containers",
        {"inject": "db"},
        {
            "containers": [
                container("a", securityContext={**RESTRICTED, "runAsUser": 1}),
                container("b", securityContext={**RESTRICTED, "runAsUser": 2}),
            ]
        },
    ),
    Row(
        "read-only-root",
        {"inject": "db", "as": "both"},
        {"containers": [container(securityContext={**RESTRICTED, "readOnlyRootFilesystem": True})]},
    ),
    Row(
        "volumes-and-variables-of-the-user",
        {"inject": "db", "as": "both"},
        {
            "containers": [
                container(
                    env=[{"name": "URL", "value": "postgres://$(user):$(password)@db"}, {"name": "URL", "value": "x"}],
                    envFrom=[{"configMapRef": {"name": "settings"}}],
                    volumeMounts=[{"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/run/x"}],
                )
            ],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    ),
    Row("guaranteed", {"inject": "db", "refresh": "5m"}, {"containers": [container(resources=GUARANTEED)]}),
    Row("pod-resources", {"inject": "db", "refresh": "5m"}, {"resources": GUARANTEED}),
    Row("without-token", {"inject": "db"}, {"automountServiceAccountToken": False, "serviceAccountName": "app"}),
    Row("user-namespace", {"inject": "db"}, {"hostUsers": False}),
    Row("own-dns", {"inject": "db"}, {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.10"]}}),
    Row(
        "host-network",
        {"inject": "db"},
        {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
        free=True,
    ),
    Row("root", {"inject": "db"}, {"securityContext": {"runAsUser": 0}, "containers": [BARE]}, free=True),
    Row("nothing-said", {"inject": "db", "refresh": "24h"}, {"securityContext": {}, "containers": [BARE]}, free=True),
]


def without_ours(pod: Json) -> Json:
    """What is left of a pod when everything that was injected, and all that differs by chance, is taken out."""
    pod = copy.deepcopy(pod)
    metadata, spec = pod["metadata"], pod["spec"]
    for name in ("uid", "creationTimestamp", "managedFields"):
        metadata.pop(name, None)
    if spec.get("serviceAccountName") == "default":
        # The plugin for ServiceAccounts, which would set it in any pod, is off in this control plane.
        del spec["serviceAccountName"], spec["serviceAccount"]
    if "generateName" in metadata:
        metadata.pop("name")
    metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if not k.startswith(PREFIX)}
    spec["volumes"] = [v for v in spec.get("volumes", ()) if v["name"] not in (SECRETS_VOLUME, TOKEN_VOLUME)]
    spec["initContainers"] = [c for c in spec.get("initContainers", ()) if c["name"] not in (INIT, REFRESH)]
    for body in (*spec["containers"], *spec["initContainers"]):
        body["volumeMounts"] = [m for m in body.get("volumeMounts", ()) if m["name"] != SECRETS_VOLUME]
        body["env"] = [v for v in body.get("env", ()) if volume_of(v) != SECRETS_VOLUME]
    return {"metadata": metadata, "spec": spec}


def made(row: Row, *, annotated: bool) -> Json:
    metadata = {k: v for k, v in {"name": "pod", **row.metadata}.items() if v is not None}
    whole = pod(row.spec, metadata, **(row.annotations if annotated else {}))
    return {**whole, "metadata": {k: v for k, v in whole["metadata"].items() if k != "name" or "name" in metadata}}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_injected_pods_are_valid(cluster: Cluster, row: Row) -> None:
    """The API server, and the restricted standard, take every pod with injection that they take without."""
    plain = cluster.admitted(made(row, annotated=False), free=row.free)
    injected = cluster.admitted(made(row, annotated=True), free=row.free)
    assert injected["spec"]["initContainers"][0]["name"] == INIT
    assert (REFRESH in json.dumps(injected)) == ("refresh" in row.annotations)
    assert without_ours(injected) == without_ours(plain)
    # The quality of service stays, but for pods that ask for nothing: with an agent that asks for a little, there is
    # something.
    kinds = plain["status"]["qosClass"], injected["status"]["qosClass"]
    assert kinds[0] == kinds[1] or kinds == ("BestEffort", "Burstable")
    # As the API server stores it, with its defaults, it is admitted again as it is.
    assert cluster.patch_of(injected, free=row.free) == []


def test_the_standard_is_enforced(cluster: Cluster) -> None:
    """The namespace of this module refuses what is not restricted: otherwise the table would show nothing."""
    assert 'violates PodSecurity "restricted' in cluster.refused(pod({"containers": [{"name": "a", "image": "a"}]}))


def test_another_webhook_s_additions_are_completed(cluster: Cluster) -> None:
    """Containers that a later webhook adds get what the others got, for ours is called again; what it did stays."""
    injected = cluster.admitted(pod({}, {"labels": {"sidecar": "yes"}}, inject="db", **{"as": "both"}))
    spec = injected["spec"]
    assert [body["name"] for body in spec["containers"]] == ["app", "mesh"]
    for body in spec["containers"]:
        assert [mount["mountPath"] for mount in body["volumeMounts"]] == ["/run/secrets/kmseal/db"]
        assert [v["name"] for v in body["env"] if volume_of(v) == SECRETS_VOLUME] == ["password", "user"]
    assert {"name": "MESH", "value": "on"} in spec["containers"][0]["env"]
    # The mesh's own init container, which is not chosen, may stay in front.
    assert [body["name"] for body in spec["initContainers"]] == ["mesh-init", INIT]
    # One of the containers has a known user now and the other has not: all may read.
    config = json.loads(spec["initContainers"][1]["env"][0]["value"])
    assert config["secrets"][0]["mode"] == "0444"
    assert cluster.patch_of(injected) == []


def test_a_pod_that_is_not_annotated_is_not_seen(cluster: Cluster) -> None:
    """The API server does not call us for it, so that it never waits for us."""
    before = cluster.reviewed
    plain = pod()
    del plain["metadata"]["annotations"]
    # Our own mark, which asks for nothing; what only looks like ours; and so much that looking itself costs the most.
    foreign = {f"{index:x}": "" for index in range(50_000)}
    for annotations in ({INJECTED: "0" * 16}, {"kmseal.dev.example.com/inject": "db"}, {}, foreign):
        cluster.admitted(pod({}, {"annotations": annotations}))
    assert "kmseal" not in json.dumps(cluster.admitted(plain)["spec"])
    assert cluster.reviewed == before
    cluster.admitted(pod(inject="db"))
    assert cluster.reviewed == before + 1


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        (
            {"inject": "db", "path": "relative"},
            '[kmseal.dev/path]: "relative" is not an absolute path; write it as /run',
        ),
        ({"inject": "db", "pth": "/x"}, "[kmseal.dev/pth]: is not an annotation that kmseal knows"),
        ({"injcet": "db"}, 'or correct its name; did you mean "inject"?'),
        ({"as": "env"}, "[kmseal.dev/as]: has no effect without kmseal.dev/inject"),
        ({"inject": "none", "as": "env"}, "there is no EncryptedSecret none in the namespace"),
        ({"inject": "odd", "as": "env"}, 'value "1st" of the EncryptedSecret odd cannot be an environment variable'),
        ({"inject": "db", "names__db": "passwort=P"}, 'the EncryptedSecret db has no value "passwort"'),
        ({"inject": "db", "template__db": "{% for x in y %}{% endfor %}"}, "[kmseal.dev/template.db]: For is"),
    ],
)
def test_a_mistake_reaches_the_user(cluster: Cluster, annotations: dict[str, str], message: str) -> None:
    """Whoever creates the pod reads which annotation is wrong, and nothing is created."""
    assert message in cluster.refused(pod(**annotations))
