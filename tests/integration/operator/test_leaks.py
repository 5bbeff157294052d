"""Canary values, through success and every fault, never appear anywhere but in the target Secret's data."""

import base64
import json
import logging
from pathlib import Path
from typing import Any

import aiohttp

from kmseal.fakekms.faults import Fault, FaultKind, throttling

CANARY = "canary-4f9c1e7ab2d855"


def _forms() -> list[str]:
    raw = CANARY.encode()
    # Base64 of the canary at each of the three alignments, without the ends that depend on its neighbours.
    aligned = [base64.b64encode(b"\0" * shift + raw).decode()[4 * (shift > 0) : -4] for shift in range(3)]
    return [CANARY, raw.hex(), *aligned]


async def test_canaries_never_leak(bench: Any, caplog: Any, capfd: Any) -> None:
    """Not in debug logs, events, status, metrics, exceptions, process arguments or the fake's audit trail."""
    caplog.set_level(logging.DEBUG)
    running = await bench.start()
    values = {"a": CANARY.encode(), "b": f"x{CANARY}y".encode()}
    await bench.apply(await bench.seal("good", values))
    await bench.reason("good", "Applied")
    broken = await bench.seal("template", values, target={"data": {"t": "{{ values.a | b64decode }}{{ values.no }}"}})
    await bench.apply(broken)
    await bench.reason("template", "TemplateFailed")
    await bench.apply(await bench.seal("refused", values, target={"type": "kubernetes.io/dockerconfigjson"}))
    await bench.reason("refused", "TargetRefused")
    conflict = await bench.seal("conflict", values, target={"name": "taken"})
    await bench.create_secret("taken", {"x": b"y"})
    await bench.apply(conflict)
    await bench.reason("conflict", "TargetConflict")
    tampered = await bench.seal("tampered", values)
    label, key_id, payload = tampered["spec"]["encryptedData"]["a"].split(".")
    raw = bytearray(base64.b64decode(payload))
    raw[-1] ^= 1
    tampered["spec"]["encryptedData"]["a"] = f"{label}.{key_id}.{base64.b64encode(raw).decode()}"
    await bench.apply(tampered)
    await bench.reason("tampered", "Unauthentic")
    faults = [
        throttling("Decrypt", times=6),
        *(Fault(kind, actions=("Decrypt",), times=6, seconds=0.01) for kind in FaultKind if kind is not FaultKind.DRIP),
    ]
    for index, fault in enumerate(faults):
        number = bench.kms.faults.add(fault)
        await bench.apply(await bench.seal(f"fault{index}", values))
        await bench.reason(f"fault{index}", "Applied")
        bench.kms.faults.remove(number)
    bench.kms.set_policy(bench.operator_identity, ())
    await bench.apply(await bench.seal("denied", values))
    await bench.reason("denied", "KmsDenied")
    bench.kms.disable(bench.key)
    await bench.reason("denied", "KmsDenied")

    objects = (await bench.request("GET", bench.path("encryptedsecrets"))).body
    async with aiohttp.ClientSession() as session:
        metrics = await (await session.get(f"http://127.0.0.1:{running.operator.port}/metrics")).text()
    # Everything that the formatter could show of a record, including what an exception would say.
    records = "\n".join(f"{record.getMessage()} {record.__dict__!r}" for record in caplog.records)
    captured = capfd.readouterr()
    haystacks = {
        "logs": records,
        "output": captured.out + captured.err,
        "objects": json.dumps(objects),
        "events": json.dumps(await bench.events()),
        "metrics": metrics,
        "arguments": " ".join(
            path.read_bytes().decode(errors="replace") for path in Path("/proc").glob("[0-9]*/cmdline")
        ),
        "audit": repr(bench.kms.audit),
    }
    assert "kmseal_kms_requests_total" in metrics
    assert "KmsDenied" in haystacks["objects"]
    for name, haystack in haystacks.items():
        for form in _forms():
            assert form not in haystack, f"a canary is in the {name}"
