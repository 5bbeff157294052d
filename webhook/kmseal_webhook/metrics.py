"""The webhook's Prometheus metrics. Labels are routes, reasons, operations and key ids: never a name of a tenant's
choice but a namespace, and never a value.

One object per process, made by ``runtime``; what has figures of its own (``missed``, ``eviction``) registers itself.
"""

from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from kmseal_webhook.admission import Answer

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._admissions = Counter(
            "kmseal_admissions", "Reviews by route and outcome; the reason is empty where it was allowed",
            ["route", "allowed", "reason"], registry=self.registry,
        )  # fmt: skip
        self._admission_seconds = Histogram(
            "kmseal_admission_seconds", "Time of one review", ["route"], registry=self.registry, buckets=_SECONDS
        )
        self._grants = Counter(
            "kmseal_grants", "Answers of the broker by reason; Granted where there were values", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self._grant_seconds = Histogram(
            "kmseal_grant_seconds", "Time of one answer of the broker", registry=self.registry, buckets=_SECONDS
        )
        self.unwrap_seconds = Histogram(
            "kmseal_unwrap_seconds", "Time to unwrap one data key, with waiting and retries", registry=self.registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._refused = Counter(
            "kmseal_connections_refused", "Connections cut: too many, or too slow", ["port", "reason"],
            registry=self.registry,
        )  # fmt: skip
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
        self._ready = Gauge("kmseal_ready", "1 while requests are welcome", registry=self.registry)
        self._connections = Gauge("kmseal_connections", "Open connections", ["port"], registry=self.registry)
        self._expiry = Gauge(
            "kmseal_certificate_expiry_timestamp_seconds", "When the certificate that is served expires",
            registry=self.registry,
        )  # fmt: skip

    def admitted(self, route: str, answer: Answer, seconds: float) -> None:
        """One review was answered (an admission Observer)."""
        self._admissions.labels(route, str(answer.allowed).lower(), "" if answer.allowed else answer.reason).inc()
        self._admission_seconds.labels(route).observe(seconds)

    def granted(self, reason: str, seconds: float) -> None:
        """The broker has answered."""
        self._grants.labels(reason).inc()
        self._grant_seconds.observe(seconds)

    def refused(self, port: str, reason: str) -> None:
        """A connection of this port was cut."""
        self._refused.labels(port, reason).inc()

    def kms_request(self, operation: str, key_id: str, result: str, seconds: float) -> None:
        """One request went to KMS (a kmseal.kms Observer)."""
        self._kms.labels(operation, result, key_id).inc()
        self._kms_seconds.labels(operation).observe(seconds)

    def api_write(self, verb: str, resource: str, status: int) -> None:
        """One write went to the API server; status 0 when it did not answer."""
        self._api.labels(verb, resource, str(status)).inc()

    def read_from(self, connections: Mapping[str, Callable[[], float]], expiry: Callable[[], float]) -> None:
        """Reads these gauges when scraped: connections by port; ``expiry`` in seconds since the epoch, 0 where there is
        no certificate."""
        for port, count in connections.items():
            self._connections.labels(port).set_function(count)
        self._expiry.set_function(expiry)

    def collect_from(self, collector: Collector) -> None:
        """Adds what has figures of its own."""
        self.registry.register(collector)

    def render(self, ready: bool) -> bytes:
        """The exposition text; ``ready`` is shown in it."""
        self._ready.set(ready)
        return generate_latest(self.registry)
