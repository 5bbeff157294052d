"""The gauges that are read when the metrics are scraped: objects, queues, keys, and the state of the KMS layer.

Registered with ``metrics`` by the runtime. A scrape asks nobody, and costs by the number of keys and of distinct
holdings, not of objects.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kmseal.cluster.keys import Keys
from kmseal.kms.figures import Figures
from kmseal.kms.keyring import Keyring
from kmseal_operator.ledger import Ledger
from kmseal_operator.moves import Moves
from kmseal_operator.queue import KeyedQueue
from kmseal_operator.report import staleness, versions

_NO_FIGURES: Final = Figures((), (), ())


class Gauges(Collector):
    """All of them. ``keyring`` is set once there is one."""

    def __init__(self, ledger: Ledger, keys: Keys, queues: dict[str, KeyedQueue]) -> None:
        """:param queues: by the name that their depth is shown under"""
        self._ledger = ledger
        self._keys = keys
        self._moves = Moves(keys)
        self._queues = queues
        self.keyring: Keyring | None = None

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        objects = GaugeMetricFamily("kmseal_objects", "EncryptedSecrets by reason of Ready", labels=["reason"])
        for reason, count in self._ledger.states().items():
            objects.add_metric([reason], count)
        yield objects
        depth = GaugeMetricFamily("kmseal_queue_depth", "What waits for a worker or a retry", labels=["queue", "state"])
        for name, queue in self._queues.items():
            depth.add_metric([name, "ready"], queue.backlog.ready)
            depth.add_metric([name, "delayed"], queue.backlog.delayed)
        yield depth
        yield from self._of_keys()
        yield from _of_kms(self.keyring.figures() if self.keyring else _NO_FIGURES)

    def _of_keys(self) -> Iterable[Metric]:
        state = GaugeMetricFamily("kmseal_key_state", "1 for the state of the key", labels=["kmskey", "key", "state"])
        held = GaugeMetricFamily(
            "kmseal_key_objects", "Objects with a wrapping under a version, in Git or in their status",
            labels=["kmskey", "key", "version", "where"],
        )  # fmt: skip
        stale = GaugeMetricFamily(
            "kmseal_key_stale_objects", "Objects that hold only an older version, in the cluster or in Git",
            labels=["kmskey", "where"],
        )  # fmt: skip
        for entry in self._keys.entries():
            name = entry.key.name
            state.add_metric([name, entry.key_id or entry.key.key_id, entry.state], 1)
            for item in versions(entry, self._ledger.inventory):
                held.add_metric([name, item["keyId"], item["id"], "git"], item["inGit"])
                held.add_metric([name, item["keyId"], item["id"], "cluster"], item["inCluster"])
            behind = staleness(entry, self._moves, self._ledger.inventory)
            stale.add_metric([name, "cluster"], behind.cluster_count)
            stale.add_metric([name, "git"], behind.git_count)
        yield from (state, held, stale)


def _of_kms(figures: Figures) -> Iterable[Metric]:
    tokens = GaugeMetricFamily(
        "kmseal_kms_budget_tokens", "Requests that could be made now; below zero: that many wait for their turn",
        labels=["account", "region", "kind"],
    )  # fmt: skip
    rate = GaugeMetricFamily(
        "kmseal_kms_budget_per_second", "Requests allowed per second", labels=["account", "region", "kind"]
    )
    background = GaugeMetricFamily(
        "kmseal_kms_budget_waiting_background", "Background requests that wait for what is left of the budget",
        labels=["account", "region", "kind"],
    )  # fmt: skip
    for allowance in figures.allowances:
        labels = [allowance.account, allowance.region, allowance.kind]
        tokens.add_metric(labels, allowance.tokens)
        rate.add_metric(labels, allowance.rate)
        background.add_metric(labels, allowance.waiting_in_background)
    flight = GaugeMetricFamily("kmseal_kms_in_flight", "Requests under way", labels=["region"])
    for region in figures.regions:
        flight.add_metric([region.region], region.in_flight)
    up = GaugeMetricFamily("kmseal_kms_endpoint_up", "1 while the circuit breaker is closed", labels=["endpoint"])
    for endpoint in figures.endpoints:
        up.add_metric([endpoint.endpoint], endpoint.closed)
    yield from (tokens, rate, background, flight, up)
