"""Kubernetes Events: one that cannot be written is logged and not tried again; condition or log say the same.

Used by both servers. It decides nothing about when an event is worth while.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from kmseal.cluster.names import FIELD_MANAGER, Key
from kmseal.errors import Conflict, KmsealError
from kmseal.kube import EVENTS, KubeClient, Resource

_log = logging.getLogger(__name__)


class Announcer:
    """Writes events.

    :param controller: who reports, as ``kmseal.dev/operator``
    :param instance: which process of it
    """

    def __init__(self, kube: KubeClient, *, now: Callable[[], datetime], controller: str, instance: str) -> None:
        self._kube = kube
        self._now = now
        self._controller = controller
        self._instance = instance

    async def tell(
        self,
        resource: Resource,
        key: Key,
        uid: str,
        reason: str,
        note: str,
        *,
        warning: bool,
        action: str = "Reconcile",
        name: str = "",
    ) -> None:
        """Writes an event about an object; those about cluster-scoped ones stand in ``default``. Never raises.

        :param name: the event's own name, where several processes would say the same: the first of them says it
        """
        namespace = key.namespace or "default"
        group = f"{resource.group}/{resource.version}" if resource.group else resource.version
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, **_named(name, key)},
            "eventTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": self._controller,
            "reportingInstance": self._instance[:128],
            "action": action,
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "note": note[:1000],
            "regarding": {
                "apiVersion": group, "kind": resource.kind, "name": key.name, "uid": uid,
                **({"namespace": key.namespace} if key.namespace else {}),
            },
        }  # fmt: skip
        try:
            await self._kube.create(EVENTS, namespace, body, manager=FIELD_MANAGER)
        except KmsealError as error:
            if name and isinstance(error, Conflict):
                return  # It has been said already.
            _log.warning("an event could not be written: %s", error, extra={"object": str(key)})


def _named(name: str, key: Key) -> dict[str, str]:
    return {"name": name} if name else {"generateName": f"{key.name[:200]}-"}
