"""Kubernetes Events on the transitions that a person wants to know of: Ready lost or regained, a key that changed.

None on a first success and none on a repetition, so that the usual life of an object makes no event at all. An event
that cannot be written is not tried again: the condition says the same.
"""

import logging
from collections.abc import Callable
from datetime import datetime

from kmseal.errors import KmsealError
from kmseal.kube import ENCRYPTED_SECRETS, EVENTS, KubeClient, Resource
from kmseal_operator.backlog import Key
from kmseal_operator.ledger import FIELD_MANAGER, Recorded
from kmseal_operator.reasons import Reason

_log = logging.getLogger(__name__)


class Announcer:
    """Writes events. ``instance`` names this process in them."""

    def __init__(self, kube: KubeClient, *, now: Callable[[], datetime], instance: str) -> None:
        self._kube = kube
        self._now = now
        self._instance = instance

    async def announce(self, key: Key, uid: str, before: Recorded, after: Recorded) -> None:
        """Writes an event if the step from ``before`` to ``after`` is worth one. Never raises."""
        lost = after.ready == "False" and (before.ready != "False" or before.reason != after.reason)
        regained = after.ready == "True" and before.ready == "False"
        if not (lost or regained) or after.reason == Reason.SUSPENDED:
            return
        await self.tell(ENCRYPTED_SECRETS, key, uid, after.reason, after.message, warning=lost)

    async def tell(self, resource: Resource, key: Key, uid: str, reason: str, note: str, *, warning: bool) -> None:
        """Writes an event about an object; those about cluster-scoped ones stand in ``default``. Never raises."""
        namespace = key.namespace or "default"
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{key.name[:200]}-", "namespace": namespace},
            "eventTime": self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "kmseal.dev/operator",
            "reportingInstance": self._instance[:128],
            "action": "Reconcile",
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "note": note[:1000],
            "regarding": {
                "apiVersion": f"{resource.group}/{resource.version}", "kind": resource.kind, "name": key.name,
                "uid": uid, **({"namespace": key.namespace} if key.namespace else {}),
            },
        }  # fmt: skip
        try:
            await self._kube.create(EVENTS, namespace, body, manager=FIELD_MANAGER)
        except KmsealError as error:
            _log.warning("an event could not be written: %s", error, extra={"object": str(key)})
