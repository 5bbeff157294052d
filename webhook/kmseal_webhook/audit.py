"""The audit trail: one line of JSON for each answer of the broker, whether it gave values or not.

``broker`` fills an entry while a request goes through its checks and writes it before the answer leaves; what cannot be
written down is not given out. It is apart from the logs on purpose: no level silences it, and it goes to a stream of
its own. The fields are listed in ``docs/audit.md``; none of them ever holds a value, a data key or a token.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TextIO

from kmseal_webhook.identity import Caller
from kmseal_webhook.refusals import Refusal
from kmseal_webhook.witness import Witness

LOGGER: Final = "kmseal_webhook.audit"
GRANTED: Final = "Granted"
"""The reason of a line that allows."""


@dataclass(slots=True)
class AuditEntry:
    """What is known of one request so far. What was not reached is empty."""

    remote: str
    caller: Caller | None = None
    secrets: tuple[str, ...] = ()
    witness: Witness = field(default_factory=Witness)


class Audit:
    """Writes the lines.

    :param stream: standard output in the server; a line is flushed at once
    :param now: the time, in UTC
    """

    def __init__(self, stream: TextIO, *, now: Callable[[], datetime]) -> None:
        self._stream = stream
        self._now = now

    def record(self, entry: AuditEntry, refusal: Refusal | None, *, seconds: float) -> None:
        """Writes down how a request ended; no refusal means that the values are given. Raises OSError, ValueError."""
        line: dict[str, Any] = {
            "time": self._now().isoformat(timespec="milliseconds"),
            "logger": LOGGER,
            "decision": "deny" if refusal else "allow",
            "reason": refusal.reason.value if refusal else GRANTED,
            "status": refusal.status if refusal else 200,
        }
        if caller := entry.caller:
            line |= {
                "namespace": caller.namespace,
                "pod": caller.pod,
                "podUid": caller.pod_uid,
                "serviceAccount": caller.service_account,
            }
            if caller.node:
                line["node"] = caller.node
        line |= {
            "secrets": list(entry.secrets),
            "keys": [{"keyId": use.key_id, "keyVersionId": use.key_version_id} for use in entry.witness.keys],
            "requestIds": entry.witness.request_ids,
            "durationMs": round(seconds * 1000, 1),
            "remote": entry.remote,
        }
        if refusal:
            line["detail"] = refusal.message
        # One write: lines of requests that end at once do not mix.
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()
