"""Reads the API server's audit log, so that tests can count exactly what a client asked of it.

``ControlPlane.audit_log()`` hands out readers. The API server writes each line itself before it ends the response
(blocking mode, no buffer of its own), so whatever a client has read an answer to is in the log: a test that waited
for an effect can count at once, without sleeping. The API server's requests to itself are left out by the policy.

It must not interpret: which writes are too many is for the test to say.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

WRITE_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})

# Metadata says who asked for what and how it ended; bodies would put Secret values into the log. RequestReceived
# would list everything twice.
POLICY: Mapping[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "users": ["system:apiserver"]},
        {"level": "Metadata"},
    ],
}


def server_flags(policy: Path, log: Path) -> list[str]:
    """The flags of kube-apiserver that make it keep ``log`` under the policy in the file ``policy``."""
    return [
        f"--audit-policy-file={policy}",
        f"--audit-log-path={log}",
        "--audit-log-format=json",
        "--audit-log-mode=blocking",
        # Megabytes. The default of 100 would move the file away under its readers.
        "--audit-log-maxsize=100000",
    ]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One request. ``verb`` is Kubernetes' (create, patch, list, watch); absent parts are empty, ``code`` is then 0."""

    stage: str
    verb: str
    user: str
    groups: tuple[str, ...]
    impersonated_user: str
    agent: str
    api_group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    uri: str
    code: int
    audit_id: str

    @property
    def is_write(self) -> bool:
        """True for a finished request that may change something, also when it was refused: see ``code``."""
        return self.stage in {"ResponseComplete", "Panic"} and self.verb in WRITE_VERBS

    @classmethod
    def from_json(cls, line: str | bytes) -> Self:
        event = json.loads(line)
        user = event.get("user", {})
        reference = event.get("objectRef", {})
        return cls(
            stage=event["stage"],
            verb=event["verb"],
            user=user.get("username", ""),
            groups=tuple(user.get("groups", ())),
            impersonated_user=event.get("impersonatedUser", {}).get("username", ""),
            agent=event.get("userAgent", ""),
            api_group=reference.get("apiGroup", ""),
            resource=reference.get("resource", ""),
            subresource=reference.get("subresource", ""),
            namespace=reference.get("namespace", ""),
            name=reference.get("name", ""),
            uri=event.get("requestURI", ""),
            code=event.get("responseStatus", {}).get("code", 0),
            audit_id=event["auditID"],
        )


class Filters(TypedDict, total=False):
    """What to select events by; each is compared exactly but ``agent``, the beginning of the User-Agent header."""

    agent: str
    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str


class AuditLog:
    """The events since this reader was made. Many readers can share one log; a restart of the server is no matter."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0
        self._events: list[AuditEvent] = []

    def events(self, **filters: Unpack[Filters]) -> list[AuditEvent]:
        """All events so far that match every filter, oldest first."""
        self._read_on()
        return [event for event in self._events if _matches(event, filters)]

    def writes(self, **filters: Unpack[Filters]) -> list[AuditEvent]:
        """The writes among ``events``, refused ones included."""
        return [event for event in self.events(**filters) if event.is_write]

    def clear(self) -> None:
        """Forgets everything up to now: the next question is about what happens from here on."""
        self._read_on()
        self._events.clear()

    def _read_on(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            fresh = file.read()
        # A line that is still being written is left for the next read.
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        self._events.extend(AuditEvent.from_json(line) for line in whole.splitlines())


def _matches(event: AuditEvent, filters: Filters) -> bool:
    exact = {field: value for field, value in filters.items() if field != "agent"}
    return event.agent.startswith(filters.get("agent", "")) and all(
        getattr(event, field) == value for field, value in exact.items()
    )
