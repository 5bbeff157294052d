"""What the operator costs, counted exactly: by the API server's audit log and by the fake KMS."""

import asyncio
from typing import Any

AGENT = "kmseal-operator"


async def test_a_new_object_costs_two_writes_and_one_call(bench: Any) -> None:
    """One apply of the Secret, one patch of the status, one Decrypt, whatever the number of values."""
    running = await bench.start()
    manifest = await bench.seal("db", {f"v{index}": b"x" for index in range(50)})
    log = bench.control_plane.audit_log()
    before = bench.kms.calls["Decrypt"]
    await bench.apply(manifest)
    await bench.reason("db", "Applied")
    await running.idle()
    writes = log.writes(agent=AGENT, namespace=bench.namespace)
    assert [(write.verb, write.resource, write.subresource) for write in writes] == [
        ("patch", "secrets", ""),
        ("patch", "encryptedsecrets", "status"),
    ]
    assert bench.kms.calls["Decrypt"] - before == 1


async def test_a_foreign_label_costs_nothing(bench: Any) -> None:
    """Somebody's label or annotation on the Secret causes no write and no KMS call, now and at a restart."""
    running = await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    log = bench.control_plane.audit_log()
    before = bench.kms.calls["Decrypt"]
    await bench.patch_secret("db", {"metadata": {"labels": {"their": "label"}}})
    # A later change of another object is handled after the label was seen.
    await bench.apply(await bench.seal("later", {"a": b"1"}))
    await bench.reason("later", "Applied")
    await running.stop()
    await (await bench.start()).idle()
    assert {write.name for write in log.writes(agent=AGENT, namespace=bench.namespace)} == {"later"}
    assert bench.kms.calls["Decrypt"] - before == 1


async def test_unchanged_objects_cost_nothing_at_restart(bench: Any, wait_until: Any) -> None:
    """500 objects: two writes and one call each when new, none at all when the operator starts again."""
    count = 500
    log = bench.control_plane.audit_log()
    running = await bench.start()
    first = await bench.seal("o0", {"a": b"1"})
    for start in range(0, count, 50):
        manifests = [first] if start == 0 else []
        names = [f"o{index}" for index in range(start + len(manifests), start + 50)]
        manifests += [await bench.seal(name, {"a": b"1"}) for name in names]
        await asyncio.gather(*map(bench.apply, manifests))
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == count)
    await running.idle()
    assert len(log.writes(agent=AGENT, namespace=bench.namespace)) == 2 * count
    assert bench.kms.calls["Decrypt"] == count
    await running.stop()
    log.clear()
    running = await bench.start()
    assert running.operator.ledger.states() == {"Applied": count}
    await running.idle()
    assert log.writes(agent=AGENT, namespace=bench.namespace) == []
    assert bench.kms.calls["Decrypt"] == count
