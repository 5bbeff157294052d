"""The whole webhook in one asyncio loop: feeds, certificates, reviews, broker, missed pods; started and stopped as one.

``main`` runs it; tests run it against a real API server. Any number of replicas run at once: what they share is in
Secrets and other objects, and none of them leads. It owns no process-wide state.
"""

import asyncio
import logging
import random
import socket
import sys
import time
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from kmseal.cluster.connections import Connections
from kmseal.cluster.events import Announcer
from kmseal.cluster.feed import Feed
from kmseal.cluster.health import Health
from kmseal.cluster.keys import Keys, Listeners, Mode, NamespaceSink
from kmseal.cluster.names import Backoff
from kmseal.cluster.opening import GuardedKeyring
from kmseal.errors import KmsealError, Misconfigured
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import KMS_KEYS, NAMESPACES, KubeClient
from kmseal.kubeconfig import find_access
from kmseal_webhook.admission import Handler, make_handler
from kmseal_webhook.agentspec import AgentSettings
from kmseal_webhook.audit import Audit
from kmseal_webhook.broker import Broker
from kmseal_webhook.certificates import Certificates
from kmseal_webhook.connecting import Connecting
from kmseal_webhook.eviction import Evictor
from kmseal_webhook.material import Source
from kmseal_webhook.metrics import Metrics
from kmseal_webhook.missed import MissedPods
from kmseal_webhook.mounted import MountedSource
from kmseal_webhook.mutation import Mutation
from kmseal_webhook.nodes import OldestKubelet
from kmseal_webhook.own import OwnSource
from kmseal_webhook.registration import Registration
from kmseal_webhook.server import TlsServer
from kmseal_webhook.settings import BROKER_SERVICE_PORT, WebhookSettings, read_resources
from kmseal_webhook.tls import ServingTls, read_client_ca
from kmseal_webhook.tlssecret import TlsSecret
from kmseal_webhook.trial import Trial
from kmseal_webhook.validation import Validation

USER_AGENT: Final = "kmseal-webhook"
NEVER_INJECTED: Final = ("kube-system",)
"""With our own, the namespaces that webhooks.yaml leaves out."""
_API_SECONDS: Final = 4.0
"""For one call: the API server waits 5 seconds for a review, and agents try again."""
_CREDENTIALS_SECONDS: Final = 300.0
_VERSION_SECONDS: Final = 300.0
_UNKNOWN: Final = (0, 0)
_ADMISSION: Final = "admission"
_BROKER: Final = "broker"
_PORTS: Final = (_ADMISSION, _BROKER)
_log = logging.getLogger(__name__)


class Webhook:
    """One replica; :meth:`run` returns when it was told to stop, or raises."""

    def __init__(self, settings: WebhookSettings, kms: KmsSettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._kms = kms
        self._environment = environment
        self._stopping = asyncio.Event()
        self._connecting: Connecting | None = None
        self._servers: dict[str, TlsServer] = {}
        self._certificates: Certificates | None = None
        self.metrics = Metrics()
        self.keys = Keys(Mode(settings.keys), Listeners(_ignore, _ignore, self._on_entry))
        self.health_port = 0
        """Where health and metrics are served, once running."""
        self.port = 0
        """The port for API servers, once running."""
        self.broker_port = 0
        """The port for agents, once running."""
        self.ready = asyncio.Event()
        self._server_version = _UNKNOWN
        self._kubelets: OldestKubelet | None = None
        self._agent_requests = read_resources(settings.agent_requests, "--agent-requests")
        self._agent_limits = read_resources(settings.agent_limits, "--agent-limits")
        client_ca = settings.admission_client_ca
        self._client_ca = read_client_ca(client_ca, "--admission-client-ca") if client_ca else None
        self.metrics.read_from({name: partial(self._count_connections, name) for name in _PORTS}, self._expiry)

    def stop(self) -> None:
        """Begins the graceful end."""
        self._stopping.set()

    async def run(self) -> None:
        """Serves until :meth:`stop`, then drains. Waits for an API server that is away for as long as it takes."""
        async with AsyncExitStack() as stack:
            access = find_access(self._environment, self._settings.kubeconfig)
            kube = await stack.enter_async_context(
                KubeClient(access, user_agent=USER_AGENT, timeout=_API_SECONDS, observer=self.metrics.api_write)
            )
            keyring = await stack.enter_async_context(
                Keyring(self._kms, self._environment, observer=self.metrics.kms_request)
            )
            rules = self._rule_feeds(kube)
            missed = MissedPods({*NEVER_INJECTED, self._settings.namespace_of_service})
            found = [missed.feed(kube, **_pacing())] if self._settings.missed != "off" else []
            health = Health(
                rules, self.metrics.render, clock=time.monotonic, silence=self._settings.silence,
                is_serving=self._is_serving, reporting=found,
            )  # fmt: skip
            runner = await health.start(self._settings.health, "--health")
            stack.push_async_callback(runner.cleanup)
            self.health_port = runner.addresses[0][1]
            main = asyncio.create_task(self._serve(kube, keyring, rules, missed, found))
            stop = asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait({main, stop}, return_when=asyncio.FIRST_COMPLETED)
                if not main.done() and self._servers:
                    seconds = self._settings.drain_seconds
                    _log.info("ending: no new connections in %g s", seconds)
                    await asyncio.gather(*(server.drain(seconds) for server in self._servers.values()))
            finally:
                stop.cancel()
                main.cancel()
                (outcome,) = await asyncio.gather(main, return_exceptions=True)
            if isinstance(outcome, Exception):
                raise outcome

    async def _serve(
        self, kube: KubeClient, keyring: Keyring, rules: list[Feed], missed: MissedPods, found: list[Feed]
    ) -> None:
        settings = self._settings
        ports = {_ADMISSION: ServingTls(self._client_ca), _BROKER: ServingTls()}
        certificates = self._certificates = self._make_certificates(kube, list(ports.values()))
        connecting = self._connecting = Connecting(
            Connections(kube, keyring, self.keys, settings.namespace_of_service), self.keys,
            backoff=Backoff(1.0, 60.0, random.random), clock=time.monotonic, again=_CREDENTIALS_SECONDS,
        )  # fmt: skip
        guarded = GuardedKeyring(keyring, self.keys, _ignore, _ignore)
        servers = self._make_servers(kube, guarded, certificates, ports)
        async with asyncio.TaskGroup() as tasks:
            for task in (*(feed.run() for feed in (*rules, *found)), certificates.run()):
                tasks.create_task(task)
            # Where there is a local key file, KMS may never be used.
            warm = None if self._kms.local_key_file else tasks.create_task(keyring.warm("acs:kms:"))
            # Nothing may be opened before the rules about keys are known, and no pod be judged by half of them.
            for feed in rules:
                await feed.synced.wait()
            await connecting.connect_all()
            tasks.create_task(connecting.run())
            await self._find_version(kube)
            tasks.create_task(self._follow_version(kube))
            kubelets = self._kubelets = OldestKubelet(kube, **_pacing())
            tasks.create_task(kubelets.run())
            await kubelets.tried.wait()
            await certificates.loaded.wait()
            if warm:
                await warm
            try:
                await servers[_ADMISSION].start(settings.listen, "--listen")
                await servers[_BROKER].start(settings.broker_listen, "--broker-listen")
                self._servers = servers
                self.port, self.broker_port = servers[_ADMISSION].port, servers[_BROKER].port
                for task in self._watch_pods(kube, missed, found):
                    tasks.create_task(task)
                _log.info("ready")
                self.ready.set()
                await asyncio.Event().wait()
            finally:
                for server in servers.values():
                    await server.stop()

    def _make_servers(
        self, kube: KubeClient, keyring: GuardedKeyring, certificates: Certificates, ports: Mapping[str, ServingTls]
    ) -> dict[str, TlsServer]:
        observe = self.metrics.unwrap_seconds.observe
        trial = Trial(keyring, clock=time.monotonic, on_unwrap=observe) if self._settings.dry_run_unwrap else None
        broker = Broker(
            kube, keyring, self._settings.limits, audit=Audit(sys.stdout, now=_now), clock=time.monotonic,
            observe=self.metrics.granted, on_unwrap=observe,
        )  # fmt: skip
        reviewers = {
            "mutate": Mutation(kube, lambda: self._agent_settings(certificates)).review,
            "validate": Validation(self.keys, reader=kube, trial=trial).review,
        }
        routes: dict[str, Handler] = {
            f"/{name}": make_handler(reviewer, name=name, clock=time.monotonic, observer=self.metrics.admitted)
            for name, reviewer in reviewers.items()
        }
        refused = self.metrics.refused
        return {
            _ADMISSION: TlsServer(
                routes, ports[_ADMISSION], self._settings.patience, on_refused=partial(refused, _ADMISSION)
            ),
            _BROKER: TlsServer(
                {"/v1/decrypt": broker.decrypt}, ports[_BROKER], self._settings.broker_patience,
                on_refused=partial(refused, _BROKER),
            ),
        }  # fmt: skip

    def _agent_settings(self, certificates: Certificates) -> AgentSettings:
        """What the process knows of itself that goes into a pod."""
        settings = self._settings
        if not settings.agent_image:
            raise Misconfigured(
                "kmseal-webhook was started without an image for the agent", field="--agent-image",
                remedy="an administrator sets it to the image of kmseal-agent",
            )  # fmt: skip
        host = settings.names[0]
        return AgentSettings(
            image=settings.agent_image,
            broker=f"https://{host}:{BROKER_SERVICE_PORT}",
            server_name=host,
            ca=None if certificates.serves_trust_bundle else certificates.ca_pem(),
            server_version=self._server_version,
            oldest_kubelet=self._kubelets.version if self._kubelets else None,
            requests=self._agent_requests,
            limits=self._agent_limits,
        )

    async def _follow_version(self, kube: KubeClient) -> None:
        """Looks now and then which version the API server has: it is upgraded while we run."""
        while True:
            await asyncio.sleep(_VERSION_SECONDS)
            with suppress(KmsealError):
                self._server_version = await kube.version()

    async def _find_version(self, kube: KubeClient) -> None:
        """Asks until there is an answer: what a pod can be made of depends on it."""
        backoff, failures = Backoff(0.5, 15.0, random.random), 0
        while self._server_version is _UNKNOWN:
            try:
                self._server_version = await kube.version()
            except KmsealError as error:
                failures += 1
                _log.warning("the API server's version is not known yet: %s", error)
                await asyncio.sleep(backoff.delay(failures))

    def _watch_pods(self, kube: KubeClient, missed: MissedPods, found: list[Feed]) -> list[Coroutine[Any, Any, None]]:
        """What is done about missed pods."""
        if self._settings.missed == "off":
            return []
        self.metrics.collect_from(missed)
        announcer = Announcer(kube, now=_now, controller="kmseal.dev/webhook", instance=socket.gethostname())
        tasks = [missed.announce(announcer)]
        if self._settings.missed == "evict":
            evictor = Evictor(
                kube, missed, configuration=self._settings.service, backoff=Backoff(10.0, 600.0, random.random),
                clock=time.monotonic, choose=random.choice,
            )  # fmt: skip
            self.metrics.collect_from(evictor)
            tasks.append(_once_synced(found, evictor))
        return tasks

    def _make_certificates(self, kube: KubeClient, ports: list[ServingTls]) -> Certificates:
        settings = self._settings
        source: Source = MountedSource(settings.tls_cert, settings.tls_key, settings.tls_ca)
        if settings.certificates == "own":
            secret = TlsSecret(kube, settings.namespace_of_service, settings.tls_secret)
            chance = random.random()  # noqa: S311  # It only spreads renewals.
            source = OwnSource(secret, settings.names, terms=settings.terms, now=_now, chance=chance)
        registration = Registration(
            kube, settings.service, patches_configurations=settings.certificates != "cert-manager"
        )
        return Certificates(
            source, registration, ports, settle=settings.terms.settle, pause=settings.look_seconds, now=_now,
            backoff=Backoff(0.5, 15.0, random.random),
        )  # fmt: skip

    def _rule_feeds(self, kube: KubeClient) -> list[Feed]:
        """What says who may use which key: KMSKeys, and the labels of namespaces."""
        if self.keys.mode is Mode.OFF:
            return []
        labels: dict[str, Any] = {"namespace": None, "metadata": True, **_pacing()}
        return [
            Feed(kube, KMS_KEYS, self.keys, namespace=None, **_pacing()),
            Feed(kube, NAMESPACES, NamespaceSink(self.keys), **labels),
        ]

    def _is_serving(self) -> bool:
        is_certified = self._certificates is not None and self._certificates.is_valid
        is_listening = bool(self._servers) and all(server.is_listening for server in self._servers.values())
        return is_listening and is_certified and not self._stopping.is_set()

    def _on_entry(self, name: str) -> None:
        if self._connecting:
            self._connecting.touch(name)

    def _count_connections(self, port: str) -> float:
        return self._servers[port].connections if self._servers else 0

    def _expiry(self) -> float:
        expires_at = self._certificates.expires_at if self._certificates else None
        return expires_at.timestamp() if expires_at else 0.0


async def _once_synced(feeds: list[Feed], evictor: Evictor) -> None:
    """Evicts once all pods are known: only then are old ones told from new ones."""
    for feed in feeds:
        await feed.synced.wait()
    await evictor.run()


def _ignore(told: object) -> None:
    """The listener of those who need not know: objects are judged when they are asked for."""


def _pacing() -> dict[str, Any]:
    return {"backoff": Backoff(0.5, 15.0, random.random), "clock": time.monotonic}


def _now() -> datetime:
    return datetime.now(UTC)
