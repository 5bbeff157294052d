"""The operator's Prometheus metrics. Labels are reasons, operations and key ids: never a value or its name.

One object per process, made by ``main``; the keyring and the API client call it for each request.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue_seconds = Histogram(
            "kmseal_queue_seconds",
            "Time that a ready object waited for a worker",
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.unwrap_seconds = Histogram(
            "kmseal_unwrap_seconds", "Time to unwrap one data key, with waiting and retries", registry=self.registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._reconciled = Counter(
            "kmseal_reconciles", "Turns of objects by the reason they ended with", ["reason"], registry=self.registry
        )
        self._kms = Counter(
            "kmseal_kms_requests", "Requests to KMS", ["operation", "result", "key"], registry=self.registry
        )
        self._kms_seconds = Histogram(
            "kmseal_kms_request_seconds", "Time of one request to KMS", ["operation"], registry=self.registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._api = Counter(
            "kmseal_api_writes", "Writes to the API server", ["verb", "resource", "status"], registry=self.registry
        )
        self._polls = Counter("kmseal_key_polls", "Polls of KMSKeys", ["result"], registry=self.registry)
        self._rewraps = Counter("kmseal_rewraps", "Objects re-wrapped", ["result"], registry=self.registry)
        self.ready = Gauge("kmseal_ready", "1 when the caches are filled and the workers run", registry=self.registry)

    def reconciled(self, reason: str) -> None:
        """One turn ended with this reason."""
        self._reconciled.labels(reason).inc()

    def kms_request(self, operation: str, key_id: str, result: str, seconds: float) -> None:
        """One request went to KMS (a kmseal.kms Observer)."""
        self._kms.labels(operation, result, key_id).inc()
        self._kms_seconds.labels(operation).observe(seconds)

    def api_write(self, verb: str, resource: str, status: int) -> None:
        """One write went to the API server; status 0 when it did not answer."""
        self._api.labels(verb, resource, str(status)).inc()

    def polled(self, result: str) -> None:
        """One KMSKey was polled: ``ok``, or the reason of the error."""
        self._polls.labels(result).inc()

    def rewrapped(self, result: str) -> None:
        """One object was re-wrapped: ``ok``, or the reason of the error."""
        self._rewraps.labels(result).inc()

    def collect_from(self, gauges: Collector) -> None:
        """Reads gauges when scraped."""
        self.registry.register(gauges)

    def render(self, ready: bool) -> bytes:
        """The exposition text; ``ready`` is shown in it."""
        self.ready.set(ready)
        return generate_latest(self.registry)
