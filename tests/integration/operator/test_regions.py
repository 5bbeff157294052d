"""Two regions: an object that is wrapped under a key in each opens by either, and a lost region costs little."""

import asyncio
from typing import Any

from kmseal.fakekms.faults import Fault, FaultKind

PATIENT = {"retry_base": 300.0, "retry_cap": 300.0}
WORKERS = 4
BREAKER_FAILURES = 5
LASTING = {"KMSEAL_KMS_BREAKER_SECONDS": "60", "KMSEAL_KMS_BREAKER_FAILURES": str(BREAKER_FAILURES)}
"""An endpoint that failed is not asked again within any test's time, so that its requests can be counted."""


async def two_regions(bench: Any, count: int) -> tuple[str, list[Any]]:
    """The key in the second region, and objects that are wrapped under both."""
    second = bench.kms.create_key(region="cn-beijing")
    return second, [await bench.seal(f"o{index}", {"a": b"1"}, also=(second,)) for index in range(count)]


def asked(bench: Any, region: str) -> int:
    """The requests to open something that reached a region, or were swallowed before it."""
    return sum(record.region == region for record in bench.kms.audit.of("Decrypt"))


async def test_both_regions_up(bench: Any) -> None:
    """The first wrapping opens the object, by one request; the other region is not asked."""
    _, manifests = await two_regions(bench, 5)
    await bench.start()
    for manifest in manifests:
        await bench.apply(manifest)
        await bench.reason(manifest["metadata"]["name"], "Applied")
    assert (asked(bench, "cn-hangzhou"), asked(bench, "cn-beijing")) == (5, 0)


async def test_a_lost_region_costs_one_breaker_trip(bench: Any, wait_until: Any) -> None:
    """Of 50 objects that meet it all become Ready; as many ask the lost region as the breaker takes, and no more."""
    second, manifests = await two_regions(bench, 50)
    bench.kms.faults.add(Fault(FaultKind.RESET, regions=("cn-hangzhou",)))
    running = await bench.start(kms=LASTING, workers=WORKERS, **PATIENT)
    await asyncio.gather(*map(bench.apply, manifests))
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 50)
    assert BREAKER_FAILURES <= asked(bench, "cn-hangzhou") < BREAKER_FAILURES + WORKERS
    assert asked(bench, "cn-beijing") == 50
    opened_by = (await bench.object("o0"))["status"]["keys"]
    assert [use["keyId"] for use in opened_by] == [second]


async def test_a_region_that_hangs_costs_one_breaker_trip(bench: Any, wait_until: Any) -> None:
    """One that takes requests and never answers is given up like one that refuses them: not a time-out an object."""
    _, manifests = await two_regions(bench, 50)
    bench.kms.faults.add(Fault(FaultKind.LATENCY, regions=("cn-hangzhou",), seconds=30.0))
    hasty = {**LASTING, "KMSEAL_KMS_ATTEMPT_SECONDS": "0.3"}
    running = await bench.start(kms=hasty, workers=WORKERS, **PATIENT)
    await asyncio.gather(*map(bench.apply, manifests))
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 50)
    requests = running.operator.metrics.registry.get_sample_value(
        "kmseal_kms_requests_total", {"operation": "Decrypt", "result": "Unavailable", "key": bench.key}
    )
    assert BREAKER_FAILURES <= (requests or 0) < BREAKER_FAILURES + WORKERS
    assert asked(bench, "cn-beijing") == 50


async def test_both_regions_down(bench: Any, wait_until: Any) -> None:
    """Objects wait and say so; one region that returns is enough to heal them all."""
    _, manifests = await two_regions(bench, 10)
    await bench.kms.stop_listening()
    running = await bench.start()
    await asyncio.gather(*map(bench.apply, manifests))
    await wait_until(lambda: running.operator.ledger.states()["KmsUnavailable"] == 10)
    condition = await bench.condition("o0")
    assert "cn-beijing" in condition["message"]
    assert (await bench.request("GET", bench.path("secrets"))).body["items"] == []
    await bench.kms.start_listening("cn-beijing")
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 10)
    assert asked(bench, "cn-hangzhou") == 0


async def test_a_region_that_returns_is_used_again(bench: Any) -> None:
    """Its wrapping goes first again once its endpoint answers."""
    _, manifests = await two_regions(bench, 2)
    await bench.start()
    await bench.kms.stop_listening("cn-hangzhou")
    await bench.apply(manifests[0])
    await bench.reason("o0", "Applied")
    await bench.kms.start_listening("cn-hangzhou")
    before = asked(bench, "cn-beijing")
    index = 0
    while not asked(bench, "cn-hangzhou"):
        index += 1
        assert index < 200, "the region is not asked any more"
        await bench.apply(await bench.seal(f"later{index}", {"a": b"1"}))
        await bench.reason(f"later{index}", "Applied")
    await bench.apply(manifests[1])
    await bench.reason("o1", "Applied")
    assert asked(bench, "cn-beijing") == before


async def test_a_key_that_is_shut_in_one_region(cluster: Any, wait_until: Any) -> None:
    """Objects stay Ready by the other region's key, with no write; so do new ones, even under Remove.

    Under Remove each is opened once, to find out that the other wrapping is not there for show.
    """
    second, manifests = await two_regions(cluster, 10)
    late = await cluster.seal("late", {"a": b"1"}, also=(second,))
    await cluster.create_key("first", cluster.key, onUnavailable="Remove")
    await cluster.create_key("second", second, onUnavailable="Remove")
    running = await cluster.start(**PATIENT)
    await asyncio.gather(*map(cluster.apply, manifests))
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 10)
    await cluster.key_shows("first", lambda status: status["objects"] == 10)
    await running.idle()
    log, calls = cluster.control_plane.audit_log(), cluster.kms.calls["Decrypt"]
    cluster.kms.disable(cluster.key)
    await cluster.key_shows("first", lambda status: status["state"] == "Disabled")
    await running.idle()
    for resource in ("secrets", "encryptedsecrets"):
        assert log.writes(agent="kmseal-operator", resource=resource) == []
    assert cluster.kms.calls["Decrypt"] == calls + 10
    before = asked(cluster, "cn-hangzhou")
    await cluster.apply(late)
    await cluster.reason("late", "Applied")
    assert asked(cluster, "cn-hangzhou") == before
    # With both shut there is no other way left.
    cluster.kms.disable(second)
    await wait_until(lambda: running.operator.ledger.states()["KeyUnusable"] == 11)
    await running.idle()
    assert (await cluster.request("GET", cluster.path("secrets"))).body["items"] == []
    cluster.kms.enable(second)
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 11)


async def test_a_shut_key_and_a_lost_region(cluster: Any, wait_until: Any) -> None:
    """Where one key is shut and the other's region is down, the target stays: a fault is no kill switch."""
    second, manifests = await two_regions(cluster, 2)
    await cluster.create_key("first", cluster.key, onUnavailable="Remove")
    await cluster.create_key("second", second, onUnavailable="Remove")
    running = await cluster.start()
    for manifest in manifests:
        await cluster.apply(manifest)
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == 2)
    await cluster.kms.stop_listening("cn-beijing")
    cluster.kms.disable(cluster.key)
    await cluster.key_shows("first", lambda status: status["state"] == "Disabled")
    await cluster.key_shows("second", lambda status: status["conditions"][0]["status"] == "Unknown")
    await running.idle()
    await cluster.reason("o0", "KmsUnavailable")
    assert await cluster.values("o0") == {"a": b"1"}


async def test_a_key_without_a_kmskey_is_shut_in_one_region(bench: Any) -> None:
    """Without rules, the refusal of the one region leads to the other."""
    second, manifests = await two_regions(bench, 1)
    bench.kms.disable(bench.key)
    await bench.start()
    await bench.apply(manifests[0])
    await bench.reason("o0", "Applied")
    assert [use["keyId"] for use in (await bench.object("o0"))["status"]["keys"]] == [second]
    bench.kms.disable(second)
    changed = manifests[0]
    changed["spec"]["target"] = {"labels": {"a": "b"}}
    await bench.apply(changed)
    condition = await bench.reason("o0", "KeyUnusable", generation=2)
    assert "nor does it open with" in condition["message"]
    assert await bench.values("o0") == {"a": b"1"}
