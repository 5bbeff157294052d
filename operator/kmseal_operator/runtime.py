"""The whole operator in one asyncio loop: feeds, ledger, queue, workers, health; started and stopped as one.

``main`` runs it beside kopf; tests run it alone against a real API server. It owns no process-wide state.
"""

import asyncio
import logging
import random
import socket
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from kmseal.errors import KmsealError
from kmseal.kms.keyring import Keyring
from kmseal.kms.settings import KmsSettings
from kmseal.kube import ENCRYPTED_SECRETS, SECRETS, KubeClient
from kmseal.kubeconfig import find_access
from kmseal_operator.backlog import Backlog, Backoff, Key
from kmseal_operator.events import Announcer
from kmseal_operator.feed import Feed
from kmseal_operator.health import Health
from kmseal_operator.ledger import TARGET_LABEL, Ledger
from kmseal_operator.metrics import Metrics
from kmseal_operator.queue import KeyedQueue
from kmseal_operator.reasons import HEALS_WITH_KMS
from kmseal_operator.reconcile import Reconciler
from kmseal_operator.settings import OperatorSettings

USER_AGENT = "kmseal-operator"
_log = logging.getLogger(__name__)


class _Objects:
    """The ledger's side for EncryptedSecrets."""

    def __init__(self, ledger: Ledger) -> None:
        self.observe = ledger.observe_object
        self.vanish = ledger.vanish_object
        self._ledger = ledger

    def present(self) -> set[Key]:
        return set(self._ledger.keys())


class _Secrets:
    """The ledger's side for Secrets."""

    def __init__(self, ledger: Ledger) -> None:
        self.observe = ledger.observe_secret
        self.vanish = ledger.vanish_secret
        self._ledger = ledger

    def present(self) -> set[Key]:
        return set(self._ledger.secret_keys())


class Operator:
    """One operator; :meth:`run` returns only by an error or by being cancelled."""

    def __init__(self, settings: OperatorSettings, kms: KmsSettings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._kms = kms
        self._environment = environment
        backoff = Backoff(settings.retry_base, settings.retry_cap, random.random)
        self.metrics = Metrics()
        self.queue = KeyedQueue(Backlog(backoff), clock=time.monotonic, on_wait=self.metrics.queue_seconds.observe)
        self.ledger = Ledger(self.queue)
        self.port = 0
        """Where health and metrics are served, once running."""
        self.ready = asyncio.Event()
        self.metrics.collect_from(self.ledger.states, lambda: (self.queue.backlog.ready, self.queue.backlog.delayed))

    async def run(self) -> None:
        """Serves until cancelled."""
        access = find_access(self._environment, self._settings.kubeconfig)
        async with AsyncExitStack() as stack:
            kube = await stack.enter_async_context(
                KubeClient(
                    access,
                    user_agent=USER_AGENT,
                    observer=self.metrics.api_write,
                    connections=self._settings.workers + 8,
                )
            )
            keyring = await stack.enter_async_context(
                Keyring(
                    self._kms, self._environment, observer=self.metrics.kms_request, on_recovered=self._on_recovered
                )
            )
            secrets, objects = self._feeds(kube)
            health = Health([*secrets, *objects], self.metrics, clock=time.monotonic, silence=self._settings.silence)
            runner = await health.start(self._settings.listen)
            stack.push_async_callback(runner.cleanup)
            self.port = runner.addresses[0][1]
            reconciler = Reconciler(
                kube=kube, keys=keyring, ledger=self.ledger, queue=self.queue,
                announcer=Announcer(kube, now=_now, instance=socket.gethostname()),
                metrics=self.metrics, now=_now, clock=time.monotonic,
            )  # fmt: skip
            async with asyncio.TaskGroup() as tasks:
                for feed in secrets:
                    tasks.create_task(feed.run())
                # Targets must be known before objects are judged by them, else all would look as if they had vanished.
                await _synced(secrets)
                for feed in objects:
                    tasks.create_task(feed.run())
                await _synced(objects)
                tasks.create_task(self._release_orphans(reconciler))
                for _ in range(self._settings.workers):
                    tasks.create_task(reconciler.work())
                _log.info("ready: %d objects", len(list(self.ledger.keys())))
                self.ready.set()

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

    def _feeds(self, kube: KubeClient) -> tuple[list[Feed], list[Feed]]:
        secrets, objects = [], []
        for namespace in self._settings.namespaces or (None,):
            common: dict[str, Any] = {
                "namespace": namespace, "backoff": Backoff(0.5, 15.0, random.random), "clock": time.monotonic,
            }  # fmt: skip
            secrets.append(
                Feed(kube, SECRETS, _Secrets(self.ledger), labels=f"{TARGET_LABEL}=true", metadata=True, **common)
            )
            objects.append(Feed(kube, ENCRYPTED_SECRETS, _Objects(self.ledger), **common))
        return secrets, objects

    def _on_recovered(self, endpoint: str) -> None:
        count = self.queue.hasten(HEALS_WITH_KMS)
        _log.info("KMS answers again: %d objects are tried at once", count)


async def _synced(feeds: list[Feed]) -> None:
    for feed in feeds:
        await feed.synced.wait()


def _now() -> datetime:
    return datetime.now(UTC)
