"""What the admission of a pod costs, beside a webhook that does nothing.

    python bench/admission.py [--reviews 3000] [--pods 500] [--out FILE]

First the webhook alone: the same AdmissionReview of a typical Deployment's pod, over kept connections of the same TLS,
to an aiohttp program that parses it and says yes, and to kmseal-webhook; one client at a time for the latency, many for
the throughput. Then pods created through a real API server: without the annotation, which asks nobody; with it, but
with no webhook; and with it and each of the two webhooks. The API server and the clients share the machine's cores:
compare rows, not machines. What the agent adds to the start of a pod is not part of this. Nothing here is a test.
"""

import argparse
import asyncio
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from stage import BIN, ROOT, describe_machine

from kmseal.kms.local import create_key_file
from kmseal.kube import PODS, KubeClient
from kmseal.kubeconfig import load_kubeconfig
from kmseal_dev.certificates import Authority
from kmseal_dev.controlplane import ControlPlane

Json = dict[str, Any]
NAMESPACE = "admission"
NAME = "kmseal-webhook"
CLIENTS = 16
PORTS = {"empty": 18443, "kmseal": 18444}
HEALTH, BROKER = 18445, 18446
TURNS = 5


@dataclass(frozen=True)
class Times:
    """Seconds of each call, and of all together."""

    each: list[float]
    total: float

    def __add__(self, other: "Times") -> "Times":
        return Times([*self.each, *other.each], self.total + other.total)

    def row(self, *labels: str) -> str:
        """A row of a table in Markdown."""
        cuts = statistics.quantiles(self.each, n=100)
        cells = (f"{len(self.each) / self.total:.0f}", f"{cuts[49] * 1000:.2f}", f"{cuts[98] * 1000:.2f}")
        return f"| {' | '.join((*labels, *cells))} |"


@dataclass(frozen=True)
class Tls:
    """One serving certificate for both webhooks."""

    folder: Path
    bundle: bytes

    @classmethod
    def make(cls, folder: Path) -> "Tls":
        """Writes ``tls.crt``, ``tls.key`` and ``ca.crt``."""
        authority = Authority()
        pair = authority.serving("127.0.0.1")
        for name, content in (("tls.crt", pair.public), ("tls.key", pair.private), ("ca.crt", authority.certificate)):
            (folder / name).write_bytes(content)
        return cls(folder, authority.certificate)

    def client(self) -> ssl.SSLContext:
        """What a client trusts."""
        return ssl.create_default_context(cadata=self.bundle.decode())


# The two webhooks


def serve_empty(port: int, folder: Path) -> None:
    """The least that an aiohttp webhook can do."""

    async def admit(request: web.Request) -> web.Response:
        review = await request.json()
        response = {"uid": review["request"]["uid"], "allowed": True}
        return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})

    app = web.Application(client_max_size=3 * 1024 * 1024)
    app.router.add_post("/mutate", admit)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    web.run_app(app, host="127.0.0.1", port=port, ssl_context=tls, access_log=None, print=None)


@contextmanager
def webhooks(control_plane: ControlPlane, tls: Tls) -> Iterator[dict[str, int]]:
    """Both as processes that answer; their process ids by name."""
    keys = tls.folder / "keys.json"
    create_key_file(keys, ("bench",))
    files = [f"--tls-{name}={tls.folder / file}" for name, file in
             (("cert", "tls.crt"), ("key", "tls.key"), ("ca", "ca.crt"))]  # fmt: skip
    ours: list[str | Path] = [
        BIN / "kmseal-webhook", "--kubeconfig", control_plane.kubeconfig, "--certificates", "files", *files,
        "--listen", f"127.0.0.1:{PORTS['kmseal']}", "--health", f"127.0.0.1:{HEALTH}",
        "--broker-listen", f"127.0.0.1:{BROKER}",
        "--agent-image", "registry.example/kmseal-agent:1", "--missed", "off", "--drain-seconds", "0",
    ]  # fmt: skip
    empty: list[str | Path] = [sys.executable, __file__, "--serve-empty", str(tls.folder)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "KMSEAL_LOCAL_KEY_FILE": str(keys),
    }
    with (tls.folder / "webhook.log").open("wb") as log:
        processes = [subprocess.Popen(command, env=environment, stdout=log, stderr=log) for command in (ours, empty)]
        try:
            while not _is_ready():
                if any(process.poll() is not None for process in processes):
                    raise SystemExit((tls.folder / "webhook.log").read_text())
                time.sleep(0.05)
            yield {"kmseal": processes[0].pid, "empty": processes[1].pid}
        finally:
            for process in processes:
                process.terminate()
                process.wait(30)


def _is_ready() -> bool:
    try:
        socket.create_connection(("127.0.0.1", PORTS["empty"]), timeout=5).close()
    except OSError:
        return False
    return _read("/readyz") == "ok\n"


def count_reviews() -> float:
    """How many kmseal-webhook has answered."""
    lines = [line for line in _read("/metrics").splitlines() if line.startswith("kmseal_admissions_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _read(path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{HEALTH}{path}", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


# What is admitted


def pod(name: str, *, annotated: bool) -> Json:
    """A pod as a Deployment makes it: an application with probes and resources, and a sidecar."""
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    app: Json = {
        "name": "app",
        "image": "registry.example/team/app:1.2.3",
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": f"SETTING_{index}", "value": "x" * 24} for index in range(16)],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "readinessProbe": probe,
        "livenessProbe": probe,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108  # A path in a container.
        "securityContext": security,
    }
    sidecar = {**app, "name": "metrics", "image": "registry.example/metrics:4", "ports": [], "env": []}
    asked = {"kmseal.dev/inject": "db, cache", "kmseal.dev/refresh": "5m"} if annotated else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/name": "app", "pod-template-hash": "7d9c5b8f6d"},
            "annotations": {"prometheus.io/scrape": "true", **asked},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-7d9c5b8f6d", "uid": "11-22",
                 "controller": True, "blockOwnerDeletion": True}
            ],
        },
        "spec": {
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [app, sidecar],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }  # fmt: skip


def make_review(control_plane: ControlPlane) -> bytes:
    """The AdmissionReview of such a pod, with all that the API server itself adds to one before it asks."""
    path = f"{PODS.path(NAMESPACE)}?dryRun=All"
    answer = control_plane.request("POST", path, pod("app-7d9c5b8f6d-x2x4z", annotated=True))
    if answer.status != 201:
        raise SystemExit(str(answer.body))
    request = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "app-7d9c5b8f6d-x2x4z",
        "namespace": NAMESPACE,
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": answer.body,
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
    return json.dumps(review, separators=(",", ":")).encode()


# Measuring


async def run(work: Callable[[int], Awaitable[None]], count: int, clients: int) -> Times:
    """The times of work(0) … work(count - 1), so many at a time."""
    indexes, each = iter(range(count)), []

    async def client() -> None:
        for index in indexes:
            started = time.perf_counter()
            await work(index)
            each.append(time.perf_counter() - started)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(client())
    return Times(each, time.perf_counter() - started)


async def measure_reviews(tls: Tls, review: bytes, count: int, pids: dict[str, int]) -> list[str]:
    """The webhooks alone, by turns, so that what else the machine does meets both."""
    rows = []
    connector = aiohttp.TCPConnector(ssl=tls.client(), limit=CLIENTS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def post(name: str, index: int) -> None:
            url = f"https://127.0.0.1:{PORTS[name]}/mutate"
            async with session.post(url, data=review, headers={"Content-Type": "application/json"}) as answer:
                response = (await answer.json())["response"]
            if not response["allowed"] or ("patch" in response) != (name == "kmseal"):
                raise SystemExit(f"an unexpected answer: {response}")

        for clients in (1, CLIENTS):
            times = {name: Times([], 0.0) for name in PORTS}
            cpu = dict.fromkeys(PORTS, 0.0)
            for turn in range(TURNS + 1):
                for name in PORTS:
                    used = cpu_seconds(pids[name])
                    taken = await run(partial(post, name), count // TURNS, clients)
                    if turn:  # The first one warms up.
                        times[name] += taken
                        cpu[name] += cpu_seconds(pids[name]) - used
            for name in PORTS:
                milliseconds = cpu[name] / len(times[name].each) * 1000
                rows.append(f"{times[name].row(name, str(clients))} {milliseconds:.2f} |")
    return rows


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure_pods(control_plane: ControlPlane, tls: Tls, count: int) -> list[str]:
    """Through the API server, of which every pod is a write to etcd."""
    rows, asked = [], 0.0
    cases = (("no annotation", "kmseal", False), ("annotation, no webhook", "", True),
             ("annotation, empty", "empty", True), ("annotation, kmseal", "kmseal", True))  # fmt: skip
    async with KubeClient(load_kubeconfig(control_plane.kubeconfig), user_agent="bench", connections=CLIENTS) as kube:
        for number, (label, webhook, annotated) in enumerate(cases):
            configure(control_plane, tls, webhook)
            await settle(kube, webhook, number)

            async def create(index: int, number: int = number, annotated: bool = annotated) -> None:
                await kube.create(PODS, NAMESPACE, pod(f"app-{number}-{index}", annotated=annotated), manager="bench")

            before = count_reviews()
            for clients in (1, CLIENTS):
                offset = 1_000_000 * clients

                async def numbered(index: int, offset: int = offset, create: Any = create) -> None:
                    await create(offset + index)

                rows.append((await run(numbered, count, clients)).row(label, str(clients)))
            asked = (count_reviews() - before) / (2 * count)
    # More than one: the server's own plugins changed the pod after us, so that it asked again.
    return [*rows, "", f"kmseal-webhook was asked {asked:.2f} times for each of its pods."]


def configure(control_plane: ControlPlane, tls: Tls, webhook: str) -> None:
    """Has the API server ask this webhook about annotated pods, and no other; none where it is empty."""
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
    control_plane.request("DELETE", f"{path}/{NAME}")
    if not webhook:
        return
    body = {
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": "inject.kmseal.dev",
                "clientConfig": {
                    "url": f"https://127.0.0.1:{PORTS[webhook]}/mutate", "caBundle": b64encode(tls.bundle).decode(),
                },
                "rules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ],
                "matchConditions": [
                    {
                        "name": "asks-for-injection",
                        "expression": "has(object.metadata.annotations) && "
                        "'kmseal.dev/inject' in object.metadata.annotations",
                    }
                ],
                "failurePolicy": "Fail", "timeoutSeconds": 5, "sideEffects": "None",
                "reinvocationPolicy": "IfNeeded", "admissionReviewVersions": ["v1"],
            }
        ],
    }  # fmt: skip
    answer = control_plane.request("POST", path, body)
    if answer.status != 201:
        raise SystemExit(str(answer.body))


async def settle(kube: KubeClient, webhook: str, number: int) -> None:
    """Waits until the API server does as configured, and has opened its connections."""
    for attempt in range(1000):
        name = f"warm-up-{number}-{attempt}"
        await kube.create(PODS, NAMESPACE, pod(name, annotated=True), manager="bench")
        found = await kube.get(PODS, NAMESPACE, name, metadata=True)
        annotations = (found or {})["metadata"]["annotations"]
        if attempt >= 50 and ("kmseal.dev/injected" in annotations) == (webhook == "kmseal"):
            return
    raise SystemExit("the API server does not ask as configured")


def main() -> None:
    """Starts everything, measures, prints two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reviews", type=int, default=3000)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve-empty", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_empty:
        serve_empty(PORTS["empty"], options.serve_empty)
        return
    with tempfile.TemporaryDirectory() as text, ControlPlane(audited=False) as control_plane:
        tls = Tls.make(Path(text))
        control_plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(ROOT / "crds"))
        control_plane.kubectl("create", "namespace", NAMESPACE)
        control_plane.kubectl("create", "serviceaccount", "default", "--namespace", NAMESPACE)
        review = make_review(control_plane)
        with webhooks(control_plane, tls) as pids:
            reviews = asyncio.run(measure_reviews(tls, review, options.reviews, pids))
            pods = asyncio.run(measure_pods(control_plane, tls, options.pods))
    header = ["clients | per second | p50, ms | p99, ms |", "--- | --- | --- | --- | --- |"]
    rows = [
        describe_machine().partition(";")[0] + ".",
        "",
        f"Reviews of {len(review) / 1024:.1f} KiB, straight to the webhook:",
        "",
        f"| webhook | {header[0]} CPU, ms |",
        f"| {header[1]} --- |",
        *reviews,
        "",
        "Pods created through the API server:",
        "",
        f"| pods | {header[0]}",
        f"| {header[1]}",
        *pods,
    ]
    print("\n".join(rows))
    if options.out:
        options.out.write_text("\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
