"""The whole operator in one asyncio loop: feeds, ledger, queue, workers, health; started and stopped as one.

``main`` runs it beside kopf; tests run it alone against a real API server. It owns no process-wide state.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final

from kmseal.cluster.connections import Connections
from kmseal.cluster.events import Announcer
from kmseal.cluster.feed import Feed
from kmseal.cluster.health import Health
from kmseal.cluster.holdings import Holdings
from kmseal.cluster.keys import Keys, Listeners, Mode, NamespaceSink
from kmseal.cluster.names import Backoff, Key
from kmseal.cluster.opening import GuardedKeyring
from kmseal.cluster.reasons import HEALS_WITH_KMS
from kmseal.errors import KmsealError
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import ENCRYPTED_SECRETS, KMS_KEYS, NAMESPACES, SECRETS, KubeClient
from kmseal.kubeconfig import find_access
from kmseal_operator.backlog import Backlog
from kmseal_operator.gauges import Gauges
from kmseal_operator.keeper import Keeper
from kmseal_operator.ledger import TARGET_LABEL, Ledger
from kmseal_operator.metrics import Metrics
from kmseal_operator.queue import KeyedQueue
from kmseal_operator.reconcile import Reconciler
from kmseal_operator.registrar import Registrar
from kmseal_operator.rewrapping import Rewrapper
from kmseal_operator.settings import OperatorSettings
from kmseal_operator.sinks import ObjectSink, SecretSink

USER_AGENT: Final = "kmseal-operator"
_KEY_WORKERS: Final = 4
_OUT_OF_VIEW_SECONDS: Final = 30.0
_FIRST_POLL_SECONDS: Final = 10.0
"""How long the start waits for keys to be asked: with a key service that is down, what the status says is believed."""
_log = logging.getLogger(__name__)


class Operator:
    """One operator; :meth:`run` returns only by an error or by being cancelled."""

    def __init__(self, settings: OperatorSettings, kms: KmsSettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._kms = kms
        self._environment = environment
        self.metrics = Metrics()
        self.queue = self._queue(self.metrics.queue_seconds.observe)
        self._key_queue, self._rewrap_queue, self._registrar_queue = self._queue(), self._queue(), self._queue()
        self.ledger = Ledger(self.queue, self._on_holdings)
        self.keys = Keys(Mode(settings.keys), Listeners(self._on_policy, self._on_namespace, self._on_entry))
        self._keeper: Keeper | None = None
        self._rewrapper: Rewrapper | None = None
        self._planning = False
        self._object_feeds: list[Feed] = []
        self._gauges = Gauges(
            self.ledger, self.keys,
            {"objects": self.queue, "keys": self._key_queue, "rewrap": self._rewrap_queue},
        )  # fmt: skip
        self.port = 0
        """Where health and metrics are served, once running."""
        self.ready = asyncio.Event()
        self.metrics.collect_from(self._gauges)

    async def run(self) -> None:
        """Serves until cancelled."""
        access = find_access(self._environment, self._settings.kubeconfig)
        async with AsyncExitStack() as stack:
            kube = await stack.enter_async_context(
                KubeClient(
                    access,
                    user_agent=USER_AGENT,
                    observer=self.metrics.api_write,
                    connections=self._settings.workers + self._settings.rewrap_workers + 8,
                )
            )
            keyring = await stack.enter_async_context(
                Keyring(
                    self._kms, self._environment, observer=self.metrics.kms_request, on_recovered=self._on_recovered
                )
            )
            self._gauges.keyring = keyring
            rules, secrets, objects = self._rule_feeds(kube), *self._feeds(kube)
            self._object_feeds = objects
            health = Health(
                [*rules, *secrets, *objects], self.metrics.render, clock=time.monotonic, silence=self._settings.silence
            )
            runner = await health.start(self._settings.listen)
            stack.push_async_callback(runner.cleanup)
            self.port = runner.addresses[0][1]
            announcer = Announcer(kube, now=_now, controller="kmseal.dev/operator", instance=socket.gethostname())
            registrar = Registrar(kube, keyring, self.keys, self._registrar_queue)
            # An operator of a few namespaces has no right to register what is the cluster's.
            on_opened = _ignore if self._settings.namespaces else registrar.met
            rewrapper = self._rewrapper = Rewrapper(
                kube,
                keyring,
                self.keys,
                self.ledger,
                self._rewrap_queue,
                metrics=self.metrics,
                touch=self._on_holdings_of,
            )
            keeper = self._keeper = self._make_keeper(kube, keyring, announcer, rewrapper)
            reconciler = Reconciler(
                kube=kube, keyring=GuardedKeyring(keyring, self.keys, on_opened, keeper.ask_soon), keys=self.keys,
                ledger=self.ledger, queue=self.queue, announcer=announcer, metrics=self.metrics, now=_now,
                clock=time.monotonic,
            )  # fmt: skip
            async with asyncio.TaskGroup() as tasks:
                # Where there is a local key file, KMS may never be used.
                warm = None if self._kms.local_key_file else tasks.create_task(keyring.warm("acs:kms:"))
                for feed in (*rules, *secrets):
                    tasks.create_task(feed.run())
                # Nothing may be opened before the rules about keys are known.
                await _synced(rules)
                for _ in range(_KEY_WORKERS):
                    tasks.create_task(keeper.work())
                await keeper.polled_once(_FIRST_POLL_SECONDS)
                # Targets must be known before objects are judged by them, else all would look as if they had vanished.
                await _synced(secrets)
                for feed in objects:
                    tasks.create_task(feed.run())
                await _synced(objects)
                if warm:
                    await warm
                # An earlier process may have ended between what it learned of a key and what it did about it.
                self._recheck(self.ledger.keys())
                tasks.create_task(self._release_orphans(reconciler))
                for _ in range(self._settings.workers):
                    tasks.create_task(reconciler.work())
                rewrapper.plan()
                for _ in range(self._settings.rewrap_workers):
                    tasks.create_task(rewrapper.work())
                tasks.create_task(registrar.work())
                _log.info("ready: %d objects", len(list(self.ledger.keys())))
                self.ready.set()
                for entry in self.keys.entries():
                    keeper.touch(entry.key.name)

    async def _release_orphans(self, reconciler: Reconciler) -> None:
        """Removes what merging objects that were deleted while nobody looked had set in other people's Secrets."""
        backoff, failures = Backoff(1.0, 300.0, random.random), 0
        waiting = [(secret, manager) for secret, manager, _ in self.ledger.orphans()]
        while waiting:
            failed = []
            for secret, manager in waiting:
                try:
                    await reconciler.release(secret, manager)
                except KmsealError as error:
                    _log.warning("an orphan could not be released: %s", error, extra={"object": str(secret)})
                    failed.append((secret, manager))
            waiting, failures = failed, failures + 1
            if waiting:
                await asyncio.sleep(backoff.delay(failures))

    def _rule_feeds(self, kube: KubeClient) -> list[Feed]:
        """What says who may use which key: KMSKeys, and the labels of namespaces."""
        if self.keys.mode is Mode.OFF:
            return []
        labels: dict[str, Any] = {"namespace": None, "metadata": True, **_pacing()}
        served = [f"metadata.name={namespace}" for namespace in self._settings.namespaces] or [""]
        return [
            Feed(kube, KMS_KEYS, self.keys, namespace=None, **_pacing()),
            *(Feed(kube, NAMESPACES, NamespaceSink(self.keys), fields=fields, **labels) for fields in served),
        ]

    def _feeds(self, kube: KubeClient) -> tuple[list[Feed], list[Feed]]:
        secrets, objects = [], []
        for namespace in self._settings.namespaces or (None,):
            common: dict[str, Any] = {"namespace": namespace, **_pacing()}
            secrets.append(
                Feed(kube, SECRETS, SecretSink(self.ledger), labels=f"{TARGET_LABEL}=true", metadata=True, **common)
            )
            objects.append(Feed(kube, ENCRYPTED_SECRETS, ObjectSink(self.ledger), **common))
        return secrets, objects

    def _make_keeper(self, kube: KubeClient, keyring: Keyring, announcer: Announcer, rewrapper: Rewrapper) -> Keeper:
        return Keeper(
            kube, keyring, Connections(kube, keyring, self.keys, self._settings.own_namespace), self.keys, self.ledger,
            self._key_queue, announcer=announcer, metrics=self.metrics, pause=self._settings.status_pause,
            # One operator that sees a part of the cluster cannot say what the whole of it needs.
            is_complete=lambda: self.ready.is_set() and not self._settings.namespaces, sees_all=self._sees_all,
            failed=rewrapper.failed, on_rotation=self._on_rotation, now=_now, clock=time.monotonic,
            chance=random.random,
        )  # fmt: skip

    def _sees_all(self) -> bool:
        """Whether every object of the cluster is in view now: the watches are open, or broke off only a moment ago."""
        now = time.monotonic()
        return all(feed.connected or now - feed.heard_at < _OUT_OF_VIEW_SECONDS for feed in self._object_feeds)

    def _queue(self, on_wait: Callable[[float], None] = lambda seconds: None) -> KeyedQueue:
        backoff = Backoff(self._settings.retry_base, self._settings.retry_cap, random.random)
        return KeyedQueue(Backlog(backoff), clock=time.monotonic, on_wait=on_wait)

    def _recheck(self, keys: Iterable[Key]) -> None:
        self.ledger.recheck(list(keys), self.keys.is_suspect)

    def _on_policy(self, key_ids: frozenset[str]) -> None:
        self._recheck({*self.ledger.inventory.holders(key_ids), *self.ledger.opened_with(key_ids)})
        self._on_rotation()

    def _on_rotation(self) -> None:
        # Before all objects are known there is nothing to put in order; and many keys may change at once.
        if self.ready.is_set() and not self._planning:
            self._planning = True
            asyncio.get_running_loop().call_soon(self._plan)

    def _plan(self) -> None:
        self._planning = False
        if self._rewrapper:
            self._rewrapper.plan()

    def _on_namespace(self, namespace: str) -> None:
        self._recheck(key for key in list(self.ledger.keys()) if key.namespace == namespace)

    def _on_entry(self, name: str) -> None:
        if self._keeper:
            self._keeper.touch(name)

    def _on_holdings(self, key: Key, before: Holdings, after: Holdings) -> None:
        if self._keeper and self._rewrapper:
            self._keeper.on_holdings(before, after)
            self._rewrapper.on_holdings(key, after)

    def _on_holdings_of(self, key: Key) -> None:
        if self._keeper:
            self._keeper.on_holdings((), self.ledger.inventory.of(key))

    def _on_recovered(self, endpoint: str) -> None:
        count = self.queue.hasten(HEALS_WITH_KMS) + self._rewrap_queue.hasten(HEALS_WITH_KMS)
        for entry in self.keys.entries():
            if entry.failure and self._keeper:
                self._keeper.ask_again(entry)
        _log.info("KMS answers again: %d objects are tried at once", count)


def _ignore(key_id: str) -> None:
    """The listener of those who register nothing."""


def _pacing() -> dict[str, Any]:
    return {"backoff": Backoff(0.5, 15.0, random.random), "clock": time.monotonic}


async def _synced(feeds: list[Feed]) -> None:
    for feed in feeds:
        await feed.synced.wait()


def _now() -> datetime:
    return datetime.now(UTC)
