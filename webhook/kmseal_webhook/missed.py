"""Missed pods: those that ask for injection and carry none, because the webhook did not see them being created.

How that happens: the webhook configuration was deleted, narrowed, set to ``failurePolicy: Ignore``, or is younger than
the pod; or the pod's namespace is one that is never injected. Such pods run without their secrets until somebody makes
them anew, so they are counted and told of; ``eviction`` replaces them if asked for. A feed of metadata finds them:
``kmseal.dev/inject`` asks, and ``kmseal.dev/injected``, which the webhook writes in the patch that injects, answers. No
pod's content is read.

What is promised, and what not: every pod that was missed by accident is found, within seconds of its creation. Whoever
may write a pod can also write the second annotation and hide it. That hides only his own pod from this report and gives
him nothing: the broker never reads that annotation.
"""

import asyncio
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kmseal.cluster.events import Announcer
from kmseal.cluster.feed import Feed
from kmseal.cluster.names import Backoff, Key
from kmseal.kube import PODS, UNFINISHED_PODS, KubeClient
from kmseal_webhook.annotations import INJECT, INJECTED

Json = dict[str, Any]

REASON: Final = "InjectionMissed"
NOTE: Final = (
    f"the annotation {INJECT} asks for secrets, but the pod was created without them: the webhook was not asked. "
    "Pods are injected only when they are created; delete this one, so that its controller makes it anew"
)
NOTE_OF_EXCLUDED: Final = (
    f"the annotation {INJECT} asks for secrets, but pods of this namespace are never injected; "
    "move the pod to another namespace, or let it take a native Secret, and remove the annotation"
)
_DIGEST: Final = re.compile(r"[0-9a-f]{16}", re.ASCII)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MissedPod:
    """One of them.

    ``owner`` names the controller that would make it anew, by namespace and uid, for anybody can write any uid into his
    own pods; it is empty where there is none, and in namespaces that are never injected: a new pod would be missed too.
    """

    key: Key
    uid: str
    created: datetime
    owner: str


class MissedPods(Collector):
    """Those that there are now: the sink of their feed, and the metric of their number."""

    def __init__(self, excluded: Collection[str]) -> None:
        """:param excluded: namespaces whose pods are never injected: they are told of, and not to be evicted"""
        self._excluded = frozenset(excluded)
        self._pods: dict[Key, MissedPod] = {}
        # What waits to be told; never more than there are missed pods.
        self._untold: dict[Key, MissedPod] = {}
        self._found = asyncio.Event()

    def feed(self, kube: KubeClient, *, backoff: Backoff, clock: Callable[[], float]) -> Feed:
        """The feed that fills this."""
        return Feed(
            kube, PODS, self, namespace=None, backoff=backoff, clock=clock, metadata=True, fields=UNFINISHED_PODS
        )

    def observe(self, raw: Json) -> None:
        """A pod is there, new or changed."""
        metadata = raw["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        pod = read_missed(key, metadata)
        if pod is None:
            self.vanish(key)
            return
        if key.namespace in self._excluded:
            pod = replace(pod, owner="")
        before = self._pods.get(key)
        self._pods[key] = pod
        if before is None or before.uid != pod.uid:
            self._untold[key] = pod
            self._found.set()

    def vanish(self, key: Key, version: int = 0) -> None:
        """A pod is gone, has ended, or is not missed."""
        self._pods.pop(key, None)
        self._untold.pop(key, None)

    def present(self) -> set[Key]:
        """All that are believed to be there."""
        return set(self._pods)

    def pods(self) -> Collection[MissedPod]:
        """All of them."""
        return self._pods.values()

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        missed = GaugeMetricFamily(
            "kmseal_missed_pods", "Pods that ask for injection and carry none", labels=["namespace"]
        )
        for namespace, count in Counter(key.namespace for key in self._pods).items():
            missed.add_metric([namespace], count)
        yield missed

    async def announce(self, announcer: Announcer) -> None:
        """Writes one event about each, for ever.

        Every replica does so, and nobody leads: the event's name is made of the pod's uid, so that the API server keeps
        the first and refuses the others. A replica that starts repeats nothing while the event is kept (an hour).
        """
        while True:
            await self._found.wait()
            self._found.clear()
            while self._untold:
                key = next(iter(self._untold))
                pod = self._untold.pop(key)
                _log.warning("a pod asks for injection and carries none", extra={"object": str(key), "reason": REASON})
                note = NOTE_OF_EXCLUDED if key.namespace in self._excluded else NOTE
                await announcer.tell(
                    PODS, key, pod.uid, REASON, note, warning=True, action="Inject", name=_event_name(pod)
                )


def read_missed(key: Key, metadata: Json) -> MissedPod | None:
    """The pod if it is missed; None where it is none of ours, injected, or on its way out."""
    annotations = metadata.get("annotations") or {}
    if (
        INJECT not in annotations
        or _DIGEST.fullmatch(annotations.get(INJECTED, ""))
        or metadata.get("deletionTimestamp")
    ):
        return None
    owner: Json = next(
        # A node owns the mirrors of its static pods. It does not make them anew with injection: they never pass here.
        (item for item in metadata.get("ownerReferences") or () if item.get("controller") and item["kind"] != "Node"),
        {},
    )
    created = datetime.fromisoformat(metadata["creationTimestamp"])
    return MissedPod(key, metadata["uid"], created, f"{key.namespace}/{owner['uid']}" if owner else "")


def _event_name(pod: MissedPod) -> str:
    digest = hashlib.sha256(pod.uid.encode()).hexdigest()[:16]
    return f"{pod.key.name[:200].rstrip('-.')}.missed-{digest}"
