"""Follows one collection of the API server: lists it, then watches, for ever, through every kind of break.

Tells a sink what is there and what is gone; the sink decides what it means. A break resumes from where the stream
ended, so that a restart of the API server costs no new list; expired history costs one. Why this and not kopf's
watches: docs/decisions/ (kopf's cheapest handler costs more per object than everything else together).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from kmseal.cluster.names import Backoff, Key
from kmseal.errors import KmsealError
from kmseal.kube import KubeClient, Resource
from kmseal.kubeerrors import Expired

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """What a feed tells of."""

    def observe(self, raw: dict[str, Any]) -> None:
        """An object is there, new or changed."""
        ...

    def vanish(self, key: Key, version: int = 0) -> None:
        """An object is gone, as of a resource version; 0 where it is not known."""
        ...

    def present(self) -> set[Key]:
        """All that the sink believes to be there."""
        ...


class Feed:
    """The feed of one resource in one namespace, or in all.

    :param labels: a label selector for the server
    :param metadata: whether only metadata is asked for
    :param backoff: the waits between attempts after failures in a row
    """

    def __init__(
        self,
        kube: KubeClient,
        resource: Resource,
        sink: Sink,
        *,
        namespace: str | None,
        backoff: Backoff,
        clock: Callable[[], float],
        labels: str = "",
        fields: str = "",
        metadata: bool = False,
    ) -> None:
        self._kube = kube
        self._resource = resource
        self._sink = sink
        self._namespace = namespace
        self._backoff = backoff
        self._clock = clock
        # What list and watch must agree in, or a watch would tell of objects that the list took for gone.
        self._selection: dict[str, Any] = {"labels": labels, "fields": fields, "metadata": metadata}
        self._failures = 0
        self._since = ""
        self.synced = asyncio.Event()
        self.connected = False
        """Whether a watch is open, as far as this side knows."""
        self.heard_at = clock()
        """When the server was last heard of on this feed, by the monotonic clock."""

    async def run(self) -> None:
        """Follows the collection until cancelled."""
        since = ""
        while True:
            try:
                if not since:
                    since = await self._list()
                    self.synced.set()
                since = await self._watch(since)
                self._failures = 0
            except Expired:
                self.connected = False
                since = ""
                await asyncio.sleep(self._backoff.delay(1))
            except KmsealError as error:
                self.connected = False
                since = self._since if self.synced.is_set() else ""
                self._failures += 1
                delay = self._backoff.delay(self._failures)
                _log.warning(
                    "feed of %s interrupted: %s", self._resource.plural, error, extra={"retry_seconds": round(delay, 1)}
                )
                await asyncio.sleep(delay)

    async def _list(self) -> str:
        listed: set[Key] = set()
        version = ""
        async for page in self._kube.pages(self._resource, self._namespace, **self._selection):
            self._heard()
            for raw in page.items:
                listed.add(_key(raw))
                # Items of a list carry no kind of their own.
                raw.setdefault("apiVersion", f"{self._resource.group}/{self._resource.version}".lstrip("/"))
                raw.setdefault("kind", self._resource.kind)
                self._sink.observe(raw)
            version = page.resource_version
            await asyncio.sleep(0)
        for key in self._sink.present() - listed:
            if self._is_mine(key):
                self._sink.vanish(key, int(version or 0))
        self._since = version
        return version

    async def _watch(self, since: str) -> str:
        self._since = since
        async for change in self._kube.watch(self._resource, self._namespace, since=since, **self._selection):
            self._heard()
            self._failures = 0
            if change.type in ("ADDED", "MODIFIED"):
                self._sink.observe(change.object)
            elif change.type == "DELETED":
                self._sink.vanish(_key(change.object), int(change.object["metadata"]["resourceVersion"]))
            self._since = str(change.object["metadata"]["resourceVersion"])
        return self._since

    def _is_mine(self, key: Key) -> bool:
        """Whether this feed, of perhaps several that fill one sink, would show the object."""
        chosen = str(self._selection["fields"])
        if chosen.startswith("metadata.name="):
            return chosen == f"metadata.name={key.name}"
        return self._namespace in (None, key.namespace)

    def _heard(self) -> None:
        self.connected = True
        self.heard_at = self._clock()


def _key(raw: dict[str, Any]) -> Key:
    """The key of an object; the namespace of a cluster-scoped one is empty."""
    return Key(raw["metadata"].get("namespace", ""), raw["metadata"]["name"])
