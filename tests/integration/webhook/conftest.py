"""Replicas of the whole webhook behind a Service, called by a real kube-apiserver of their own, under rbac.yaml."""

import asyncio
import base64
import os
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ruamel.yaml import YAML

from kmseal.kms.settings import KmsSettings
from kmseal_dev.binaries import find_binaries
from kmseal_dev.controlplane import ControlPlane
from kmseal_webhook.rollover import Terms
from kmseal_webhook.runtime import Webhook
from kmseal_webhook.settings import WebhookSettings

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
DEADLINE = 30.0
OURS, SERVICE, TLS_SECRET = "kmseal-system", "kmseal-webhook", "kmseal-webhook-tls"
NAME = f"{SERVICE}.{OURS}.svc"
# Many times what a look takes, also on a busy machine: as minutes are to the half minute of a real one.
QUICK = Terms(settle=timedelta(seconds=3), overlap=timedelta(seconds=4))


class Front:
    """What a Service is to its clients: takes connections and gives each to a replica that is ready."""

    def __init__(self) -> None:
        self.replicas: list[Webhook] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """For API servers."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    @property
    def broker_port(self) -> int:
        """For agents."""
        return int(self._servers[1].sockets[0].getsockname()[1])

    async def start(self) -> None:
        for find in (lambda replica: replica.port, lambda replica: replica.broker_port):
            self._servers.append(await asyncio.start_server(partial(self._serve, find), "127.0.0.1", 0))

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)  # In which the transports are closed.

    async def _serve(
        self, find: Callable[[Webhook], int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        writers = [writer]
        try:
            ready = [replica for replica in self.replicas if await is_ready(replica)]
            if not ready:
                return
            theirs, sink = await asyncio.open_connection("127.0.0.1", find(secrets.choice(ready)))
            writers.append(sink)
            await asyncio.gather(_pump(reader, sink), _pump(theirs, writer))
        except OSError:
            return
        except asyncio.CancelledError:
            return  # asyncio's own callback would report it.
        finally:
            self._tasks.discard(task)
            for one in writers:
                one.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await source.read(65536):
            sink.write(content)
            await sink.drain()
    with suppress(OSError, RuntimeError):
        sink.write_eof()


async def is_ready(replica: Webhook) -> bool:
    """What the kubelet would see."""
    if not replica.health_port:
        return False
    try:
        async with aiohttp.ClientSession() as session:
            address = f"http://127.0.0.1:{replica.health_port}/readyz"
            async with session.get(address, timeout=aiohttp.ClientTimeout(5)) as answer:
                return answer.status == 200
    except aiohttp.ClientError:
        return False


class Site:
    """One cluster with our configurations, and as many replicas as a test starts."""

    def __init__(self, control_plane: ControlPlane, kubeconfig: Path, stack: AsyncExitStack) -> None:
        self.control_plane = control_plane
        self.kubeconfig = kubeconfig
        self._stack = stack
        self.front = Front()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.namespace = ""
        self.environment = {"HOME": "/nonexistent", "KUBECONFIG": str(kubeconfig)}

    async def prepare(self) -> None:
        await self.front.start()
        self._stack.push_async_callback(self.front.stop)
        self.namespace = f"test-{secrets.token_hex(5)}"
        await self.send("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        # The API server goes to a Service of this type without a proxy; to it this is the Service of webhooks.yaml.
        port = {"port": self.front.port, "protocol": "TCP"}
        service = {
            "metadata": {"name": SERVICE},
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [port]},
        }
        await self.send("POST", f"/api/v1/namespaces/{OURS}/services", service)
        for document in YAML(typ="safe").load_all((ROOT / "webhook" / "webhooks.yaml").read_text()):
            for webhook in document["webhooks"]:
                webhook["clientConfig"]["service"]["port"] = self.front.port
            await self.send("POST", self.path(document["kind"].lower() + "s"), document)

    async def start(self, **settings: Any) -> Webhook:
        """Starts a replica and waits until it is ready."""
        webhook = await self.begin(**settings)
        await self.until(lambda: is_ready(webhook))
        return webhook

    async def begin(self, **settings: Any) -> Webhook:
        """Starts a replica and does not wait."""
        options = {
            "listen": "127.0.0.1:0", "broker_listen": "127.0.0.1:0", "health": "127.0.0.1:0", "agent_image": "agent:1",
            "missed": "off", "look_seconds": 0.2, "drain_seconds": 2.0, "terms": QUICK,
            "kubeconfig": str(self.kubeconfig),
        }  # fmt: skip
        webhook = Webhook(
            WebhookSettings(**{**options, **settings}), KmsSettings.from_environment(self.environment), self.environment
        )
        self._tasks[id(webhook)] = asyncio.create_task(webhook.run())
        self.front.replicas.append(webhook)
        self._stack.push_async_callback(self.kill, webhook)
        return webhook

    async def kill(self, webhook: Webhook) -> None:
        """Ends a replica at once, with all that it has under way."""
        if webhook in self.front.replicas:
            self.front.replicas.remove(webhook)
        task = self._tasks[id(webhook)]
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def drain(self, webhook: Webhook) -> None:
        """Ends a replica as SIGTERM does, and waits until its ports are closed."""
        webhook.stop()
        await self.until(lambda: not any(server.is_listening for server in webhook._servers.values()))

    # -- the API server, as somebody else sees it

    async def request(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        return await asyncio.to_thread(self.control_plane.request, method, path, body, **options)

    async def send(self, method: str, path: str, body: object = None, **options: Any) -> Json:
        """A request that has to succeed."""
        answer = await self.request(method, path, body, **options)
        assert answer.status < 300, answer.body
        return dict(answer.body)

    @staticmethod
    def path(kind: str, name: str = SERVICE) -> str:
        where = {
            "mutatingwebhookconfigurations": "/apis/admissionregistration.k8s.io/v1",
            "validatingwebhookconfigurations": "/apis/admissionregistration.k8s.io/v1",
            "clustertrustbundles": "/apis/certificates.k8s.io/v1",
            "secrets": f"/api/v1/namespaces/{OURS}",
        }
        return f"{where[kind]}/{kind}/{name}" if name != SERVICE else f"{where[kind]}/{kind}"

    async def configuration(self, kind: str = "mutatingwebhookconfigurations") -> Json:
        """One of our configurations."""
        return await self.send("GET", f"{self.path(kind)}/{SERVICE}")

    async def ca_bundle(self, kind: str = "mutatingwebhookconfigurations") -> bytes:
        """What the API server trusts."""
        client = (await self.configuration(kind))["webhooks"][0]["clientConfig"]
        return base64.b64decode(client.get("caBundle", ""))

    async def trust_bundle(self) -> bytes:
        """What the kubelet gives to pods."""
        answer = await self.send("GET", self.path("clustertrustbundles", "kmseal.dev:broker:ca"))
        return str(answer["spec"]["trustBundle"]).encode()

    async def secret(self) -> Json:
        """Type and decoded data of the Secret of the certificates."""
        raw = await self.send("GET", self.path("secrets", TLS_SECRET))
        return {**raw, "data": {name: base64.b64decode(text) for name, text in raw["data"].items()}}

    async def change_secret(self, data: dict[str, bytes | None]) -> None:
        """Changes entries of it; None removes one."""
        body = {
            "data": {
                name: base64.b64encode(content).decode() if content is not None else None
                for name, content in data.items()
            }
        }
        path = self.path("secrets", TLS_SECRET)
        await self.send("PATCH", path, body, content_type="application/merge-patch+json")

    async def create_pod(self, annotations: Json | None = None, **spec: Any) -> Any:
        """Asks for a pod; answers with what the API server says."""
        body = {
            "metadata": {"generateName": "app-", "annotations": annotations or {}},
            "spec": {"containers": [{"name": "app", "image": "app:1"}], **spec},
        }
        return await self.request("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)

    async def ask_broker(self, bundle: bytes, port: int = 0) -> int:
        """One request to the broker by a client that trusts this bundle, on a connection of its own; its status."""
        trust = ssl.create_default_context(cadata=bundle.decode())
        connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.post(
                f"https://127.0.0.1:{port or self.front.broker_port}/v1/decrypt", json={"secrets": ["db"]},
                server_hostname=NAME,
            ) as answer,
        ):  # fmt: skip
            return answer.status

    def admissions(self, webhook: Webhook, route: str = "mutate", *, allowed: bool | None = None) -> int:
        """How many reviews a replica has answered."""
        return sum(
            int(sample.value)
            for metric in webhook.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "kmseal_admissions_total"
            and sample.labels["route"] == route
            and (allowed is None or sample.labels["allowed"] == str(allowed).lower())
        )

    @staticmethod
    async def until(reached: Callable[[], bool | Awaitable[bool]], seconds: float = DEADLINE) -> None:
        """Waits for what only a test knows."""
        deadline = time.monotonic() + seconds
        while True:
            found = reached()
            if isinstance(found, Awaitable):
                found = await found
            if found:
                return
            assert time.monotonic() < deadline, "it did not come about in time"
            await asyncio.sleep(0.05)


class Traffic:
    """Admissions and grants without a pause, which must all succeed."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._over = asyncio.Event()
        self.pods = 0
        self.grants = 0
        self.failures: list[object] = []

    async def __aenter__(self) -> "Traffic":
        self._tasks = [asyncio.create_task(self._admit()) for _ in range(3)]
        self._tasks += [
            asyncio.create_task(self._grant(source)) for source in (self._site.ca_bundle, self._site.trust_bundle)
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)
        assert not self.failures, self.failures[:3]

    async def _admit(self) -> None:
        while not self._over.is_set():
            answer = await self._site.create_pod({"kmseal.dev/inject": "db"})
            self.pods += 1
            if answer.status != 201:
                self.failures.append(answer.body)

    async def _grant(self, bundle: Callable[[], Awaitable[bytes]]) -> None:
        """Without a token, which is answered with 401: what is tried is the handshake by what clients trust now."""
        while not self._over.is_set():
            try:
                status = await self._site.ask_broker(await bundle())
                self.grants += 1
                if status != 401:
                    self.failures.append(status)
            except (aiohttp.ClientError, OSError) as error:
                self.failures.append(repr(error))


@pytest.fixture
def traffic() -> type[Traffic]:
    """To be entered with a site."""
    return Traffic


@pytest.fixture(scope="session")
def webhook_control_plane(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    """An API server whose pods are all ours to admit, with our CRDs and rights."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        binaries = find_binaries()
    with ControlPlane(binaries=binaries) as running:
        running.kubectl("apply", "--server-side", "--filename", str(ROOT / "crds"))
        running.kubectl("wait", "--for=condition=Established", "--timeout=30s", "--filename", str(ROOT / "crds"))
        running.kubectl("create", "namespace", OURS)
        running.kubectl("apply", "--filename", str(ROOT / "webhook" / "rbac.yaml"))
        yield running


@pytest.fixture
async def site(webhook_control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """A cluster in which nobody has called us yet."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{OURS}", "system:authenticated")
    kubeconfig = webhook_control_plane.kubeconfig_for(f"system:serviceaccount:{OURS}:{SERVICE}", groups)
    async with AsyncExitStack() as stack:
        site = Site(webhook_control_plane, kubeconfig, stack)
        await site.prepare()
        yield site
    for path in (
        *(
            f"{Site.path(kind)}/{SERVICE}"
            for kind in ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
        ),
        Site.path("clustertrustbundles", "kmseal.dev:broker:ca"),
        Site.path("secrets", TLS_SECRET),
        f"/api/v1/namespaces/{OURS}/services/{SERVICE}",
    ):
        answer = await asyncio.to_thread(webhook_control_plane.request, "DELETE", path)
        assert answer.status in (200, 404), answer.body
