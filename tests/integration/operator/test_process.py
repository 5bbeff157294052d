"""The program ``kmseal-operator`` as it is deployed: a process, under exactly the rights of operator/rbac.yaml."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

ROOT = Path(__file__).parents[3]
USER = "system:serviceaccount:kmseal-system:kmseal-operator"


@pytest.fixture
async def process(bench: Any, tmp_path: Path) -> AsyncIterator[Any]:
    """The operator's process, for all namespaces; its standard error goes to a file."""
    plane = bench.control_plane
    home = '{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kmseal-system"}}'
    await asyncio.to_thread(plane.kubectl, "apply", "--server-side", "-f", "-", stdin=home)
    await asyncio.to_thread(plane.kubectl, "apply", "--server-side", "-f", str(ROOT / "operator" / "rbac.yaml"))
    groups = ("system:serviceaccounts", "system:serviceaccounts:kmseal-system")
    kubeconfig = await asyncio.to_thread(plane.kubeconfig_for, USER, groups)
    with (tmp_path / "log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "kmseal-operator",
            *("--kubeconfig", str(kubeconfig), "--namespace", bench.namespace, "--listen", "127.0.0.1:0"),
            *("--log-level", "debug"),
            env={**bench.environment(bench.operator_identity), "PATH": "/usr/bin:/bin"},
            stderr=log,
            stdout=log,
        )
        running.log = tmp_path / "log"
        yield running
        if running.returncode is None:
            running.kill()
            await running.wait()


async def test_the_program_works_under_its_own_rights(bench: Any, process: Any, wait_until: Any) -> None:
    """With the shipped RBAC it makes and heals the Secret, tells events, logs JSON only, and ends on SIGTERM with 0."""
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    await bench.delete("secrets", "db")

    async def healed() -> bool:
        return bool(await bench.values("db") == {"a": b"1"})

    await wait_until(healed)
    bad = await bench.seal("bad", {"a": b"1"})
    bad["spec"]["dataKeys"][0]["sealedFor"] = "elsewhere/bad"
    await bench.apply(bad)
    await bench.reason("bad", "WrongPlace")

    async def reported() -> bool:
        return "WrongPlace" in {event["reason"] for event in await bench.events()}

    await wait_until(reported)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 30) == 0
    lines = [json.loads(line) for line in process.log.read_text().splitlines()]
    assert not [line for line in lines if line["level"] in ("error", "critical") or "orbidden" in line["message"]]


async def test_health_and_metrics_are_served(bench: Any, wait_until: Any) -> None:
    """Alive, ready once the caches are filled, and metrics with objects by reason and KMS requests by key."""
    running = await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    base = f"http://127.0.0.1:{running.operator.port}"
    async with aiohttp.ClientSession() as session:
        assert (await session.get(base + "/healthz")).status == 200
        assert (await session.get(base + "/readyz")).status == 200
        metrics = await (await session.get(base + "/metrics")).text()
    assert 'kmseal_objects{reason="Applied"} 1.0' in metrics
    assert f'kmseal_kms_requests_total{{key="{bench.key}",operation="Decrypt",result="ok"}} 1.0' in metrics
    assert "kmseal_queue_seconds_count" in metrics


async def test_the_program_outlives_the_api_server(bench: Any, process: Any) -> None:
    """The process survives a restart of the API server, and serves what changes after it."""
    await bench.apply(await bench.seal("before", {"a": b"1"}))
    await bench.reason("before", "Applied")
    await asyncio.to_thread(bench.control_plane.stop_apiserver)
    await asyncio.to_thread(bench.control_plane.start_apiserver)
    await bench.apply(await bench.seal("after", {"a": b"1"}))
    await bench.reason("after", "Applied")
    assert process.returncode is None
