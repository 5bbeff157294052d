"""Replaces missed pods, where ``--missed evict`` asks for it: evicts them, so that their controllers make them anew.

It fills in for the hand of an administrator, and must not do more harm than a pod without secrets does. So: the
Eviction API only, which respects PodDisruptionBudgets; only pods that a controller makes anew; one at a time, slowly;
nothing while the webhook configuration is not there; and no further pod of a controller whose new pods are missed as
well, for then evicting helps nobody and would go on for ever.

Nobody leads. Each replica evicts by itself, which is safe: an eviction names the uid, so that it never hits the pod
that came in its place, and evicting a pod that is going already changes nothing. A replica learns of another's
evictions by the watch, and picks at random, so that two seldom pick the same. With N replicas pods go N times as fast;
what protects a service from that is its PodDisruptionBudget, not our pace.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from kmseal.cluster.names import Backoff
from kmseal.errors import Conflict, KmsealError, Throttled
from kmseal.kube import PODS, UNFINISHED_PODS, Page, Resource
from kmseal_webhook.missed import MissedPod, MissedPods, read_missed
from kmseal_webhook.reader import Reader
from kmseal_webhook.registration import MUTATING

Json = dict[str, Any]

HOLD_SECONDS: Final = 6 * 3600.0
"""After this, a controller whose new pods were missed too gets another chance."""
_log = logging.getLogger(__name__)


class Api(Reader, Protocol):
    """The part of the API client that evicting needs."""

    def pages(
        self, resource: Resource, namespace: str | None = None, *, fields: str = "", metadata: bool = False
    ) -> AsyncIterator[Page]:
        """Lists what the fields select."""
        ...

    async def evict(self, namespace: str, name: str, *, uid: str) -> bool:
        """Has a pod evicted; False where it is not there any more."""
        ...


@dataclass(frozen=True, slots=True)
class _Attempt:
    """That pods of a controller were evicted: since when, and which missed pods of it there were then."""

    at: float
    known: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Wait:
    """That a pod could not be evicted: how often in a row, and when it may be tried again."""

    failures: int
    until: float


class Evictor(Collector):
    """Evicts missed pods.

    :param configuration: the name of the MutatingWebhookConfiguration that injects
    :param older_too: whether pods are evicted that were created before it, and so before there was any injection
    :param interval: seconds from one eviction to the next
    :param backoff: how long a pod rests whose budget does not allow its eviction
    :param choose: picks one of several, as ``random.choice``
    """

    def __init__(
        self, api: Api, missed: MissedPods, *, configuration: str, backoff: Backoff, clock: Callable[[], float],
        choose: Callable[[Sequence[MissedPod]], MissedPod], interval: float = 10.0, older_too: bool = False,
    ) -> None:  # fmt: skip
        self._api = api
        self._missed = missed
        self._configuration = configuration
        self._backoff = backoff
        self._clock = clock
        self._choose = choose
        self._interval = interval
        self._older_too = older_too
        self._evicted: set[str] = set()
        self._waits: dict[str, _Wait] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._results: Counter[str] = Counter()

    async def run(self) -> None:
        """Evicts until cancelled. To be started when the feed is synced: only then are old pods told from new ones."""
        while True:
            await self.turn()
            await asyncio.sleep(self._interval)

    async def turn(self) -> None:
        """Evicts one pod, if there is one that should be."""
        self._forget()
        candidates = [pod for pod in self._missed.pods() if self._is_due(pod)]
        if not candidates:
            return
        try:
            since = await self._injecting_since()
        except KmsealError as error:
            _log.warning("the webhook configuration cannot be read: %s", error)
            return
        if since is None:
            _log.warning("missed pods are not evicted: there is no webhook configuration that would inject new ones")
            return
        candidates = [pod for pod in candidates if self._older_too or pod.created >= since]
        if candidates:
            await self._evict(self._choose(candidates))

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        evictions = CounterMetricFamily("kmseal_missed_pod_evictions", "Evictions of missed pods", labels=["result"])
        for result, count in self._results.items():
            evictions.add_metric([result], count)
        yield evictions

    def _is_due(self, pod: MissedPod) -> bool:
        if not pod.owner or pod.uid in self._evicted or self._is_in_vain(pod.owner):
            return False
        wait = self._waits.get(pod.uid)
        return wait is None or wait.until <= self._clock()

    def _is_in_vain(self, owner: str) -> bool:
        """Whether there is a missed pod of the controller that it has made since its pods are being evicted."""
        attempt = self._attempts.get(owner)
        return attempt is not None and not self._uids_of(owner) <= attempt.known

    async def _injecting_since(self) -> datetime | None:
        raw = await self._api.get(MUTATING, None, self._configuration, metadata=True)
        return None if raw is None else datetime.fromisoformat(raw["metadata"]["creationTimestamp"])

    async def _evict(self, pod: MissedPod) -> None:
        # Noted before the call: the pod's successor may be seen before the answer is.
        known = self._uids_of(pod.owner)
        self._attempts.setdefault(pod.owner, _Attempt(self._clock(), known))
        try:
            there = await self._is_still_missed(pod) and await self._api.evict(
                pod.key.namespace, pod.key.name, uid=pod.uid
            )
        except Conflict:
            there = False  # Another pod has its name by now.
        except KmsealError as error:
            self._put_off(pod, error)
            return
        self._evicted.add(pod.uid)
        if there:
            self._results["evicted"] += 1
            _log.warning("a pod that was missed has been evicted", extra={"object": str(pod.key)})

    async def _is_still_missed(self, pod: MissedPod) -> bool:
        """Looks once more: the API server tries for ten seconds to evict a pending pod that has another uid by now."""
        chosen = f"metadata.name={pod.key.name},{UNFINISHED_PODS}"
        # A list of at most one, for which no right is needed beyond that of the feed.
        pages = [page async for page in self._api.pages(PODS, pod.key.namespace, fields=chosen, metadata=True)]
        found = (read_missed(pod.key, item["metadata"]) for page in pages for item in page.items)
        return any(now is not None and now.uid == pod.uid for now in found)

    def _put_off(self, pod: MissedPod, error: KmsealError) -> None:
        failures = self._waits[pod.uid].failures + 1 if pod.uid in self._waits else 1
        asked = (error.retry_after or 0.0) if isinstance(error, Throttled) else 0.0
        delay = max(asked, self._backoff.delay(failures))
        self._waits[pod.uid] = _Wait(failures, self._clock() + delay)
        self._results["refused" if isinstance(error, Throttled) else "failed"] += 1
        _log.info(
            "a pod that was missed could not be evicted: %s", error,
            extra={"object": str(pod.key), "retry_seconds": round(delay, 1)},
        )  # fmt: skip

    def _uids_of(self, owner: str) -> frozenset[str]:
        return frozenset(pod.uid for pod in self._missed.pods() if pod.owner == owner)

    def _forget(self) -> None:
        """Drops what is not needed any more, so that memory is bounded by what is missed now and was of late.

        A pod that was evicted is on its way out when it is no more among the missed, and never comes back.
        """
        uids = {pod.uid for pod in self._missed.pods()}
        self._evicted &= uids
        self._waits = {uid: wait for uid, wait in self._waits.items() if uid in uids}
        oldest = self._clock() - HOLD_SECONDS
        self._attempts = {owner: attempt for owner, attempt in self._attempts.items() if attempt.at > oldest}
