"""Faults: no working Secret is changed or lost, nothing partial appears, the condition says what to do, all heals.

Each test breaks one thing, looks, repairs it, and sees the operator heal without a restart.
"""

import asyncio
import base64
from typing import Any

from kmseal.fakekms.faults import Fault, FaultKind, throttling
from kmseal.kube import KubeClient


async def test_kms_down_at_start(bench: Any) -> None:
    """An operator that starts while KMS is down is ready, says so in the condition, and heals."""
    manifest = await bench.seal("db", {"a": b"1"})
    await bench.kms.stop_listening()
    await bench.start()
    await bench.apply(manifest)
    await bench.reason("db", "KmsUnavailable")
    assert await bench.secret("db") is None
    await bench.kms.start_listening()
    await bench.reason("db", "Applied")
    assert await bench.values("db") == {"a": b"1"}


async def test_kms_down_in_the_middle_of_200_objects(bench: Any, wait_until: Any) -> None:
    """When KMS goes away in the middle, what is done stays, the rest waits, and all heals; nothing is partial."""
    count = 200
    running = await bench.start()
    manifests = [await bench.seal(f"o{index}", {"a": b"1", "b": b"2"}) for index in range(count)]
    bench.kms.faults.add(Fault(FaultKind.LATENCY, actions=("Decrypt",), seconds=0.05))
    await asyncio.gather(*map(bench.apply, manifests[: count // 2]))
    await wait_until(lambda: running.operator.ledger.states()["Applied"] >= 10)
    await bench.kms.stop_listening()
    await asyncio.gather(*map(bench.apply, manifests[count // 2 :]))
    await wait_until(lambda: running.operator.ledger.states()["KmsUnavailable"] > 0)
    secrets = (await bench.request("GET", bench.path("secrets"))).body["items"]
    assert all(set(secret["data"]) == {"a", "b"} for secret in secrets)
    bench.kms.faults.clear()
    await bench.kms.start_listening()
    await wait_until(lambda: running.operator.ledger.states()["Applied"] == count)
    secrets = (await bench.request("GET", bench.path("secrets"))).body["items"]
    assert len(secrets) == count


async def test_kms_down_keeps_the_old_values(bench: Any) -> None:
    """A change that meets a KMS outage leaves the Secret with its old values until KMS is back."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    before = await bench.secret("db")
    changed = await bench.seal("db", {"a": b"2"})
    await bench.kms.stop_listening()
    await bench.apply(changed)
    condition = await bench.reason("db", "KmsUnavailable")
    assert "keeps the values" in condition["message"]
    assert await bench.secret("db") == before
    await bench.kms.start_listening()
    await bench.reason("db", "Applied", generation=2)
    assert await bench.values("db") == {"a": b"2"}


async def test_throttling(bench: Any) -> None:
    """Under throttling objects wait and then become Ready."""
    await bench.start()
    number = bench.kms.faults.add(throttling("Decrypt"))
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "KmsThrottled")
    bench.kms.faults.remove(number)
    await bench.reason("db", "Applied")


async def test_permission_denied(bench: Any) -> None:
    """Without the right to decrypt, the condition says which right is missing; granting it heals."""
    await bench.start()
    bench.kms.set_policy(bench.operator_identity, ("DescribeKey",))
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    condition = await bench.reason("db", "KmsDenied")
    assert "Decrypt" in condition["message"]
    bench.kms.set_policy(bench.operator_identity, ("Decrypt",))
    await bench.reason("db", "Applied")


async def test_key_disabled_then_enabled(bench: Any) -> None:
    """A disabled key keeps targets as they are, and enabling it heals."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    changed = await bench.seal("db", {"a": b"2"})
    bench.kms.disable(bench.key)
    await bench.apply(changed)
    condition = await bench.reason("db", "KeyUnusable")
    assert "disabled" in condition["message"].lower()
    assert await bench.values("db") == {"a": b"1"}
    bench.kms.enable(bench.key)
    await bench.reason("db", "Applied", generation=2)


async def test_wrong_region(bench: Any) -> None:
    """A wrapping that names another region than its key's is not found there, and the message names the region."""
    await bench.start()
    manifest = await bench.seal("db", {"a": b"1"})
    wrapping = manifest["spec"]["dataKeys"][0]["wrappings"][0]
    right = wrapping["keyId"]
    wrapping["keyId"] = right.replace("cn-hangzhou", "cn-beijing")
    await bench.apply(manifest)
    condition = await bench.reason("db", "KeyUnusable")
    assert "cn-beijing" in condition["message"]
    wrapping["keyId"] = right
    await bench.apply(manifest)
    await bench.reason("db", "Applied")


async def test_corrupted_ciphertext(bench: Any) -> None:
    """A flipped bit in a value or a wrapping is refused by name; the Secret keeps its values."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1", "b": b"2"}))
    await bench.reason("db", "Applied")
    manifest = await bench.seal("db", {"a": b"3", "b": b"4"})
    good = manifest["spec"]["encryptedData"]["a"]
    label, key_id, payload = good.split(".")
    raw = bytearray(base64.b64decode(payload))
    raw[-1] ^= 1
    manifest["spec"]["encryptedData"]["a"] = f"{label}.{key_id}.{base64.b64encode(raw).decode()}"
    await bench.apply(manifest)
    condition = await bench.reason("db", "Unauthentic")
    assert "spec.encryptedData.a" in condition["message"]
    assert (await bench.condition("db", "Stalled"))["status"] == "True"
    assert await bench.values("db") == {"a": b"1", "b": b"2"}
    manifest["spec"]["encryptedData"]["a"] = good
    wrapping = manifest["spec"]["dataKeys"][0]["wrappings"][0]
    blob, raw = wrapping["wrapped"], bytearray(base64.b64decode(wrapping["wrapped"]))
    raw[-1] ^= 1
    wrapping["wrapped"] = base64.b64encode(raw).decode()
    await bench.apply(manifest)
    await bench.reason("db", "KmsRefused")
    assert await bench.values("db") == {"a": b"1", "b": b"2"}
    wrapping["wrapped"] = blob
    await bench.apply(manifest)
    await bench.reason("db", "Applied", generation=4)


async def test_a_copy_in_another_namespace(bench: Any) -> None:
    """An object copied to another namespace is refused before KMS is asked; with its statement forged, KMS refuses."""
    await bench.start()
    manifest = await bench.seal("db", {"a": b"1"})
    stated = manifest["spec"]["dataKeys"][0]
    stated["sealedFor"] = "elsewhere/db"
    before = bench.kms.calls["Decrypt"]
    await bench.apply(manifest)
    condition = await bench.reason("db", "WrongPlace")
    assert "elsewhere" in condition["message"]
    assert bench.kms.calls["Decrypt"] == before
    other = await bench.seal("other", {"a": b"1"})
    other["metadata"]["name"] = "thief"
    other["spec"]["dataKeys"][0]["sealedFor"] = f"{bench.namespace}/thief"
    await bench.apply(other)
    await bench.reason("thief", "WrongPlace")  # The line's check still tells.
    assert await bench.secret("thief") is None


async def test_the_api_server_restarts(bench: Any) -> None:
    """The operator outlives a restart of the API server: changes after it are seen, nothing is written twice."""
    await bench.start()
    await bench.apply(await bench.seal("before", {"a": b"1"}))
    await bench.reason("before", "Applied")
    log = bench.control_plane.audit_log()
    await asyncio.to_thread(bench.control_plane.restart_apiserver)
    await bench.apply(await bench.seal("after", {"a": b"1"}))
    await bench.reason("after", "Applied")
    names = {write.name for write in log.writes(agent="kmseal-operator", namespace=bench.namespace)}
    assert names == {"after"}


async def test_killed_between_the_two_writes(bench: Any, wait_until: Any, monkeypatch: Any) -> None:
    """An operator that dies after the Secret and before the status finds its own Secret, and writes the status only."""
    reached, never = asyncio.Event(), asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        reached.set()
        await never.wait()

    running = await bench.start()
    with monkeypatch.context() as patched:
        patched.setattr(KubeClient, "patch_status", hang)
        await bench.apply(await bench.seal("db", {"a": b"1"}))
        await wait_until(reached.is_set)
        await running.stop()
    before = await bench.secret("db")
    assert before is not None
    assert await bench.condition("db") == {}
    await bench.start()
    await bench.reason("db", "Applied")
    assert await bench.secret("db") == before


async def test_events_on_transitions_only(bench: Any, wait_until: Any) -> None:
    """No event on a first success; one when Ready is lost, one when it is regained, however often it was tried."""
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied")
    assert await bench.events() == []
    changed = await bench.seal("db", {"a": b"2"})
    bench.kms.disable(bench.key)
    await bench.apply(changed)
    await bench.reason("db", "KeyUnusable")
    calls = bench.kms.calls["Decrypt"]
    while bench.kms.calls["Decrypt"] < calls + 3:  # noqa: ASYNC110  # The fake has no event for a call.
        await asyncio.sleep(0.02)
    bench.kms.enable(bench.key)
    await bench.reason("db", "Applied", generation=2)

    async def both() -> bool:
        return sorted(event["reason"] for event in await bench.events()) == ["Applied", "KeyUnusable"]

    await wait_until(both)
