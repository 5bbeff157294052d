"""The oldest kubelet of the cluster: what a pod can be made of depends on it, not on the API server alone.

A kubelet may be three minor versions older than the API server, and one that does not know a field of a pod ignores it:
the pod then runs without what the field was to give it. So the versions of all nodes are read now and then, and
``injection`` refuses what the oldest could not do. ``runtime`` runs this; it must not guess: where nodes cannot be
read, nothing is known.

Nodes are listed, not watched: their statuses change all the time, and a version seldom. A node that joins with an older
kubelet than any before is therefore seen up to five minutes late.
"""

import asyncio
import logging
import re
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

from kmseal.cluster.names import Backoff
from kmseal.errors import KmsealError
from kmseal.kube import Page, Resource

Json = dict[str, Any]
Version = tuple[int, int]

NODES: Final = Resource("", "v1", "nodes", "Node")
LOOK_SECONDS: Final = 300.0
TRUST_SECONDS: Final = 3 * LOOK_SECONDS
"""How long what was read counts although reading it again fails."""
NO_NODES: Final = (sys.maxsize, 0)
"""In a cluster without nodes no kubelet is too old: one that scales from zero must be able to begin."""
_UNTOLD: Final = (0, 0)
_NODES_OF_PAGE: Final = 100
"""A node lists the images that it has: some 10 KB each."""
_VERSION: Final = re.compile(r"v?([0-9]{1,4})\.([0-9]{1,4})(?![0-9])", re.ASCII)
_log = logging.getLogger(__name__)


class NodeLister(Protocol):
    """The part of the API client that lists nodes."""

    def pages(self, resource: Resource, namespace: str | None = None, *, page_size: int = 500) -> AsyncIterator[Page]:
        """Lists a collection page by page."""
        ...


class OldestKubelet:
    """The lowest kubelet version of all nodes; :meth:`run` keeps it up to date.

    :param backoff: the waits after failures in a row
    :param pause: seconds from one look to the next
    """

    def __init__(
        self, api: NodeLister, *, backoff: Backoff, clock: Callable[[], float], pause: float = LOOK_SECONDS
    ) -> None:
        self._api = api
        self._backoff = backoff
        self._clock = clock
        self._pause = pause
        self._version: Version | None = None
        self._read_at = 0.0
        self.tried = asyncio.Event()
        """Set after the first look, whatever came of it."""

    @property
    def version(self) -> Version | None:
        """Major and minor, as (1, 35); (0, 0) where a kubelet does not tell its own. None: not known."""
        return self._version if self._clock() - self._read_at <= TRUST_SECONDS else None

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        failures = 0
        while True:
            try:
                await self._look()
                failures = 0
            except KmsealError as error:
                failures += 1
                _log.warning("the versions of the nodes cannot be read: %s", error)
            self.tried.set()
            await asyncio.sleep(self._backoff.delay(failures) if failures else self._pause)

    async def _look(self) -> None:
        oldest, name = NO_NODES, ""
        async for page in self._api.pages(NODES, page_size=_NODES_OF_PAGE):
            for node in page.items:
                version = read_version(node)
                if version < oldest:
                    oldest, name = version, str(node["metadata"]["name"])
        if oldest != self._version:
            found = ".".join(map(str, oldest)) if name else "none"
            _log.info("the oldest kubelet is %s", found, extra={"object": name})
        self._version, self._read_at = oldest, self._clock()


def read_version(node: Json) -> Version:
    """Major and minor version of a node's kubelet; (0, 0) where it tells none, for then it may be of any age."""
    information = (node.get("status") or {}).get("nodeInfo") or {}
    # Distributions append to it: v1.35.2-aliyun.1, v1.35.2+k3s1.
    match = _VERSION.match(str(information.get("kubeletVersion", "")))
    return (int(match[1]), int(match[2])) if match else _UNTOLD
