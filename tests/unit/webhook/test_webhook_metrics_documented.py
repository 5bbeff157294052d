"""The metrics of the webhook stand in docs/operations-webhook.md."""

import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import Metric

from kmseal.cluster.names import Backoff
from kmseal_webhook.eviction import Evictor
from kmseal_webhook.metrics import Metrics
from kmseal_webhook.missed import MissedPods

DOCUMENT = (Path(__file__).parents[3] / "docs" / "operations-webhook.md").read_text(encoding="utf-8")


class NoApi:
    """Is never asked: only the names of metrics are."""


def families() -> Iterator[Metric]:
    """All metrics that a webhook with every option has."""
    metrics, missed = Metrics(), MissedPods(())
    metrics.collect_from(missed)
    metrics.collect_from(
        Evictor(
            NoApi(),  # type: ignore[arg-type]  # No call is made.
            missed,
            configuration="",
            backoff=Backoff(1, 1, lambda: 0.0),
            clock=lambda: 0.0,
            choose=lambda pods: pods[0],
        )
    )
    return iter(list(metrics.registry.collect()))


def test_every_metric_has_its_row_with_its_type() -> None:
    """And every row is a metric; counters are named as they are scraped."""
    section = DOCUMENT.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    documented = dict(re.findall(r"^\| `(kmseal_\w+)` \| (\w+) \|", section, re.MULTILINE))
    there = {item.name + "_total" * (item.type == "counter"): item.type for item in families()}
    assert documented == there
