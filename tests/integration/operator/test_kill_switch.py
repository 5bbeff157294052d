"""The kill switch: what becomes of objects and targets when somebody shuts a key, and what a fault never does."""

import asyncio
from typing import Any

import pytest

from kmseal.fakekms.faults import Fault, FaultKind, throttling
from kmseal.kube import KubeClient

AGENT = "kmseal-operator"
PATIENT = {"retry_base": 300.0, "retry_cap": 300.0}
"""Objects are not tried again by themselves within any test's time: what heals was told to."""


def is_available(status: Any) -> tuple[str, str]:
    """Status and reason of the condition Available."""
    found: dict[str, str] = next((c for c in status.get("conditions", []) if c["type"] == "Available"), {})
    return found.get("status", ""), found.get("reason", "")


def described(writes: Any) -> list[tuple[str, str, str]]:
    return sorted((write.verb, write.resource, write.name) for write in writes)


async def secrets_of(cluster: Any) -> dict[str, str]:
    """Name → resource version of all Secrets of the namespace."""
    items = (await cluster.request("GET", cluster.path("secrets"))).body["items"]
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}


async def ready(cluster: Any, names: list[str], key: str = "") -> None:
    """Applies objects and waits until they are Ready."""
    manifests = [await cluster.seal(name, {"a": name.encode()}, key=key) for name in names]
    await asyncio.gather(*map(cluster.apply, manifests))
    for name in names:
        await cluster.reason(name, "Applied")


async def reasons(cluster: Any, names: list[str], reason: str) -> None:
    for name in names:
        await cluster.reason(name, reason)


async def none_left(cluster: Any, wait_until: Any) -> None:
    """Waits until the namespace holds no Secret."""

    async def empty() -> bool:
        return await secrets_of(cluster) == {}

    await wait_until(empty)


# -- Retain


async def test_a_disabled_key_is_seen_within_one_poll(cluster: Any) -> None:
    """Twenty objects become not Ready by one metadata call and one status write each, with no Decrypt at all."""
    names = [f"o{index}" for index in range(20)]
    await cluster.create_key("main", cluster.key, pollInterval="2s")
    running = await cluster.start(**PATIENT)
    await ready(cluster, names)
    await cluster.key_shows("main", lambda status: status["objects"] == 20)
    await running.idle()
    before, log = await secrets_of(cluster), cluster.control_plane.audit_log()
    calls = {name: cluster.kms.calls[name] for name in ("DescribeKey", "Decrypt")}
    cluster.kms.disable(cluster.key)
    await reasons(cluster, names, "KeyUnusable")
    assert cluster.kms.calls["DescribeKey"] - calls["DescribeKey"] <= 2
    await cluster.key_shows("main", lambda status: is_available(status) == ("False", "Disabled"))
    await running.idle()
    assert cluster.kms.calls["Decrypt"] == calls["Decrypt"]
    assert described(log.writes(agent=AGENT, resource="encryptedsecrets")) == sorted(
        ("patch", "encryptedsecrets", name) for name in names
    )
    assert log.writes(agent=AGENT, resource="secrets") == []
    assert await secrets_of(cluster) == before
    condition = await cluster.condition("o0")
    assert "Disabled" in condition["message"]
    assert "keeps the values" in condition["message"]
    # Back again: Ready, by one call and one write of each, and still the very same Secrets.
    cluster.kms.enable(cluster.key)
    await reasons(cluster, names, "Applied")
    await running.idle()
    assert cluster.kms.calls["Decrypt"] - calls["Decrypt"] == 20
    assert await secrets_of(cluster) == before


async def test_events_about_the_key_once(cluster: Any, wait_until: Any) -> None:
    """A key that is shut and opened again makes one event each, however often it is polled in between."""
    await cluster.create_key("main", cluster.key)
    await cluster.start()
    await cluster.key_shows("main", lambda status: status["state"] == "Enabled")
    cluster.kms.disable(cluster.key)
    await cluster.key_shows("main", lambda status: status["state"] == "Disabled")
    before = cluster.kms.calls["DescribeKey"]
    await wait_until(lambda: cluster.kms.calls["DescribeKey"] >= before + 2)
    cluster.kms.enable(cluster.key)
    await cluster.key_shows("main", lambda status: status["state"] == "Enabled")

    async def both() -> bool:
        return sorted(await cluster.key_events("main")) == [("Normal", "Enabled"), ("Warning", "Disabled")]

    await wait_until(both)


@pytest.mark.parametrize("policy", ["Retain", "Remove"])
async def test_a_key_whose_deletion_is_scheduled(cluster: Any, policy: str) -> None:
    """It counts as shut like a disabled one, and cancelling the deletion heals."""
    await cluster.create_key("main", cluster.key, onUnavailable=policy)
    await cluster.start(**PATIENT)
    await ready(cluster, ["db"])
    before = await cluster.secret("db")
    cluster.kms.schedule_deletion(cluster.key, cluster.kms.clock() + 7 * 86_400)
    condition = await cluster.reason("db", "KeyUnusable")
    assert "PendingDeletion" in condition["message"]
    assert await cluster.secret("db") == (before if policy == "Retain" else None)
    cluster.kms.enable(cluster.key)
    await cluster.reason("db", "Applied")
    assert await cluster.values("db") == {"a": b"db"}


async def test_a_key_whose_material_is_deleted(cluster: Any) -> None:
    """An imported key without material counts as shut, and importing the same material again heals."""
    key = cluster.kms.create_key(origin="EXTERNAL")
    cluster.kms.import_material(key, bytes(range(32)))
    await cluster.create_key("main", key, onUnavailable="Remove")
    await cluster.start(**PATIENT)
    await ready(cluster, ["db"], key)
    cluster.kms.delete_material(key)
    condition = await cluster.reason("db", "KeyUnusable")
    assert "PendingImport" in condition["message"]
    assert await cluster.secret("db") is None
    cluster.kms.import_material(key, bytes(range(32)))
    await cluster.reason("db", "Applied")
    assert await cluster.values("db") == {"a": b"db"}


async def test_objects_that_meet_a_shut_key_cost_no_call(cluster: Any) -> None:
    """A new object and a changed one under a shut key say so without asking KMS."""
    await cluster.create_key("main", cluster.key)
    await cluster.start(**PATIENT)
    await ready(cluster, ["db"])
    manifests = [await cluster.seal(name, {"a": b"2"}) for name in ("db", "new")]
    cluster.kms.disable(cluster.key)
    await cluster.reason("db", "KeyUnusable")
    calls = cluster.kms.calls["Decrypt"]
    for manifest in manifests:
        await cluster.apply(manifest)
    await cluster.reason("db", "KeyUnusable", generation=2)
    await cluster.reason("new", "KeyUnusable")
    assert cluster.kms.calls["Decrypt"] == calls
    assert await cluster.values("db") == {"a": b"db"}
    cluster.kms.enable(cluster.key)
    await reasons(cluster, ["db", "new"], "Applied")
    assert await cluster.values("db") == {"a": b"2"}


# -- Remove


async def test_remove_takes_targets_away_and_brings_them_back(cluster: Any) -> None:
    """One deletion and one status write each, no Decrypt; on return the Secrets are there with equal values."""
    names = [f"o{index}" for index in range(20)]
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    running = await cluster.start(**PATIENT)
    await ready(cluster, names)
    await running.idle()
    log, calls = cluster.control_plane.audit_log(), cluster.kms.calls["Decrypt"]
    cluster.kms.disable(cluster.key)
    await reasons(cluster, names, "KeyUnusable")
    await running.idle()
    assert await secrets_of(cluster) == {}
    assert cluster.kms.calls["Decrypt"] == calls
    assert described(log.writes(agent=AGENT, namespace=cluster.namespace, resource="secrets")) == sorted(
        ("delete", "secrets", name) for name in names
    )
    assert len(log.writes(agent=AGENT, resource="encryptedsecrets")) == 20
    object_ = await cluster.object("o0")
    assert "target" not in object_["status"]
    assert "onUnavailable: Remove" in (await cluster.condition("o0"))["message"]
    cluster.kms.enable(cluster.key)
    await reasons(cluster, names, "Applied")
    for name in names:
        assert await cluster.values(name) == {"a": name.encode()}
    assert cluster.kms.calls["Decrypt"] - calls == 20


async def test_remove_touches_nothing_else(cluster: Any) -> None:
    """Objects under other keys and under other KMSKeys, and Secrets of others, keep their resource versions."""
    others = {name: cluster.kms.create_key() for name in ("retained", "enabled", "neutral")}
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    await cluster.create_key("retained", others["retained"], onUnavailable="Retain")
    await cluster.create_key("enabled", others["enabled"], onUnavailable="Remove")
    running = await cluster.start(**PATIENT)
    await ready(cluster, ["shut"])
    for name, key in others.items():
        await ready(cluster, [name], key)
    await cluster.create_secret("foreign", {"x": b"y"})
    # A foreign one that looks like a target of the object, but by its name only.
    await cluster.create_secret("conflict", {"x": b"y"})
    await cluster.apply(await cluster.seal("conflict", {"a": b"1"}))
    await cluster.reason("conflict", "TargetConflict")
    before = await secrets_of(cluster)
    objects = {name: await cluster.object(name) for name in ("enabled", "neutral")}
    for key in (cluster.key, others["retained"]):
        cluster.kms.disable(key)
    await reasons(cluster, ["shut", "retained", "conflict"], "KeyUnusable")
    await running.idle()
    assert await secrets_of(cluster) == {name: version for name, version in before.items() if name != "shut"}
    for name, object_ in objects.items():
        assert await cluster.object(name) == object_


async def test_remove_takes_back_what_was_merged(cluster: Any) -> None:
    """A Secret that objects merge into loses exactly our entries, and gets them back on return."""
    other = cluster.kms.create_key()
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    running = await cluster.start(**PATIENT)
    await cluster.create_secret("shared", {"theirs": b"t"}, labels={"their": "label"})
    merge = {"name": "shared", "creationPolicy": "Merge"}
    await cluster.apply(await cluster.seal("one", {"a": b"1"}, target=merge))
    await cluster.apply(await cluster.seal("two", {"b": b"2"}, key=other, target=merge))
    await reasons(cluster, ["one", "two"], "Applied")
    assert await cluster.values("shared") == {"theirs": b"t", "a": b"1", "b": b"2"}
    cluster.kms.disable(cluster.key)
    await cluster.reason("one", "KeyUnusable")
    assert await cluster.values("shared") == {"theirs": b"t", "b": b"2"}
    await running.idle()
    assert (await cluster.condition("two"))["reason"] == "Applied"
    version = (await cluster.secret("shared"))["metadata"]["resourceVersion"]
    # Trying again does not write again.
    log = cluster.control_plane.audit_log()
    await cluster.patch_key("main", {"allowedNamespaces": {"names": [cluster.namespace]}})
    await cluster.key_shows("main", lambda status: status["observedGeneration"] == 2)
    await running.idle()
    assert log.writes(agent=AGENT, resource="secrets") == []
    assert (await cluster.secret("shared"))["metadata"]["resourceVersion"] == version
    cluster.kms.enable(cluster.key)
    await cluster.reason("one", "Applied")
    assert await cluster.values("shared") == {"theirs": b"t", "a": b"1", "b": b"2"}
    assert (await cluster.secret("shared"))["metadata"]["labels"]["their"] == "label"


async def test_remove_wins_over_suspension(cluster: Any) -> None:
    """Who writes an object cannot keep its target by suspending it; on return it waits for the end of suspension."""
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    await cluster.start(**PATIENT)
    await ready(cluster, ["db"])
    manifest = await cluster.seal("db", {"a": b"1"}, suspend=True)
    await cluster.apply(manifest)
    await cluster.reason("db", "Suspended")
    cluster.kms.disable(cluster.key)
    await cluster.reason("db", "KeyUnusable")
    assert await cluster.secret("db") is None
    cluster.kms.enable(cluster.key)
    condition = await cluster.reason("db", "Suspended")
    assert condition["status"] == "False"
    assert await cluster.secret("db") is None
    manifest["spec"]["suspend"] = False
    await cluster.apply(manifest)
    await cluster.reason("db", "Applied")
    assert await cluster.values("db") == {"a": b"1"}


async def test_remove_wins_over_deletion_policy(cluster: Any) -> None:
    """A target that would outlive its object does not outlive its key."""
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    await cluster.start(**PATIENT)
    await cluster.apply(await cluster.seal("db", {"a": b"1"}, target={"deletionPolicy": "Retain"}))
    await cluster.reason("db", "Applied")
    cluster.kms.disable(cluster.key)
    await cluster.reason("db", "KeyUnusable")
    assert await cluster.secret("db") is None


async def test_injected_objects_only_say_so(cluster: Any) -> None:
    """An object without a target costs one status write, and nothing is deleted for it."""
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    running = await cluster.start(**PATIENT)
    await cluster.create_secret("db", {"x": b"y"})
    await cluster.apply(await cluster.seal("db", {"a": b"1"}, delivery="Inject"))
    await cluster.reason("db", "Injectable")
    log, before = cluster.control_plane.audit_log(), await cluster.secret("db")
    cluster.kms.disable(cluster.key)
    await cluster.reason("db", "KeyUnusable")
    await running.idle()
    assert described(log.writes(agent=AGENT, resource="encryptedsecrets")) == [("patch", "encryptedsecrets", "db")]
    assert log.writes(agent=AGENT, resource="secrets") == []
    assert await cluster.secret("db") == before
    cluster.kms.enable(cluster.key)
    await cluster.reason("db", "Injectable")


async def test_a_policy_that_changes_while_the_key_is_shut(cluster: Any, wait_until: Any) -> None:
    """Retain made Remove takes the targets away at once; with two KMSKeys, both must say Remove."""
    await cluster.create_key("main", cluster.key)
    await cluster.create_key("second", cluster.key)
    await cluster.start(**PATIENT)
    await ready(cluster, ["db"])
    cluster.kms.disable(cluster.key)
    await cluster.reason("db", "KeyUnusable")
    await cluster.patch_key("main", {"onUnavailable": "Remove"})
    await cluster.key_shows("main", lambda status: status["observedGeneration"] == 2)
    assert await cluster.secret("db") is not None
    await cluster.patch_key("second", {"onUnavailable": "Remove"})
    await none_left(cluster, wait_until)
    cluster.kms.enable(cluster.key)
    await cluster.reason("db", "Applied")


# -- what is no kill switch


FAULTS = (
    (Fault(FaultKind.ERROR, actions=("DescribeKey",), status=403, code="Forbidden.NoPermission"), "AccessDenied"),
    (Fault(FaultKind.ERROR, actions=("DescribeKey",), status=500, code="InternalFailure"), "Unavailable"),
    (Fault(FaultKind.ERROR, actions=("DescribeKey",), status=409, code="Rejected.Whatever"), "KeyUnusable"),
    (Fault(FaultKind.BAD_GATEWAY, actions=("DescribeKey",)), "Unavailable"),
    (throttling("DescribeKey"), "Throttled"),
    (Fault(FaultKind.TRUNCATE, actions=("DescribeKey",)), "Unavailable"),
)
"""What goes wrong, and the reason of the condition; neighbours differ, so that each can be waited for."""


async def test_a_fault_removes_nothing(cluster: Any) -> None:
    """Whatever goes wrong with asking for the key's state, no object is written and no target touched."""
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    await cluster.start(**PATIENT)
    await ready(cluster, ["db"])
    await cluster.key_shows("main", lambda status: status["objects"] == 1)
    log, before = cluster.control_plane.audit_log(), await cluster.secret("db")
    for fault, reason in FAULTS:
        cluster.kms.faults.clear()
        cluster.kms.faults.add(fault)
        status = await cluster.key_shows("main", lambda status, seen=("Unknown", reason): is_available(status) == seen)
        assert status["state"] == "Enabled"
    cluster.kms.faults.clear()
    cluster.kms.faults.add(Fault(FaultKind.ERROR, actions=("DescribeKey",), status=404, code="Forbidden.KeyNotFound"))
    await cluster.key_shows("main", lambda status: is_available(status) == ("False", "NotFound"))
    cluster.kms.faults.clear()
    await cluster.key_shows("main", lambda status: is_available(status)[0] == "True")
    await cluster.kms.stop_listening()
    await cluster.key_shows("main", lambda status: is_available(status) == ("Unknown", "Unavailable"))
    await cluster.kms.start_listening()
    await cluster.key_shows("main", lambda status: is_available(status)[0] == "True")
    assert await cluster.secret("db") == before
    assert log.writes(agent=AGENT, resource="secrets") == []
    assert log.writes(agent=AGENT, resource="encryptedsecrets") == []


async def test_a_key_that_decrypt_calls_disabled_is_asked_for_first(cluster: Any) -> None:
    """A refusal of Decrypt alone removes nothing: only the key's own state, once DescribeKey has told it, does."""
    await cluster.create_key("main", cluster.key, onUnavailable="Remove", pollInterval="24h")
    await cluster.start()
    await ready(cluster, ["db", "other"])
    before = await secrets_of(cluster)
    number = cluster.kms.faults.add(
        Fault(FaultKind.ERROR, actions=("Decrypt",), status=409, code="Rejected.Disabled", times=50)
    )
    await cluster.apply(await cluster.seal("db", {"a": b"2"}))
    await cluster.reason("db", "KeyUnusable", generation=2)
    assert await secrets_of(cluster) == before
    cluster.kms.faults.remove(number)
    await cluster.reason("db", "Applied", generation=2)
    # And the true state is asked for as soon as an object meets it, whatever the interval.
    manifest = await cluster.seal("new", {"a": b"1"})
    cluster.kms.disable(cluster.key)
    await cluster.apply(manifest)
    await reasons(cluster, ["db", "other", "new"], "KeyUnusable")
    assert await secrets_of(cluster) == {}


# -- in the middle of it


async def test_remove_outlives_an_outage_of_the_api_server(cluster: Any, wait_until: Any) -> None:
    """A key that is shut while the API server is away is acted upon when that is back."""
    names = [f"o{index}" for index in range(10)]
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    await cluster.start()
    await ready(cluster, names)
    await asyncio.to_thread(cluster.control_plane.stop_apiserver)
    try:
        cluster.kms.disable(cluster.key)
        before = cluster.kms.calls["DescribeKey"]
        await wait_until(lambda: cluster.kms.calls["DescribeKey"] >= before + 2)
    finally:
        await asyncio.to_thread(cluster.control_plane.start_apiserver)
    await reasons(cluster, names, "KeyUnusable")
    assert await secrets_of(cluster) == {}
    await cluster.key_shows("main", lambda status: status["state"] == "Disabled")


async def test_polling_outlives_an_outage_of_the_api_server(cluster: Any, wait_until: Any) -> None:
    """However long the API server was away, the key's state is told within a poll of its return."""
    await cluster.create_key("main", cluster.key)
    await cluster.start(**PATIENT)
    await cluster.key_shows("main", lambda status: status["state"] == "Enabled")
    await asyncio.to_thread(cluster.control_plane.stop_apiserver)
    try:
        cluster.kms.disable(cluster.key)
        before = cluster.kms.calls["DescribeKey"]
        await wait_until(lambda: cluster.kms.calls["DescribeKey"] >= before + 2)
    finally:
        await asyncio.to_thread(cluster.control_plane.start_apiserver)
    await cluster.key_shows("main", lambda status: status["state"] == "Disabled")


async def test_remove_outlives_a_kill_in_the_middle(cluster: Any, wait_until: Any, monkeypatch: Any) -> None:
    """An operator that dies after some deletions leaves the rest to its successor."""
    names = [f"o{index}" for index in range(10)]
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    running = await cluster.start()
    await ready(cluster, names)
    await cluster.key_shows("main", lambda status: status["objects"] == 10)
    deleted: list[Any] = []
    never = asyncio.Event()
    delete = KubeClient.delete

    async def hang_after_three(*arguments: Any, **more: Any) -> Any:
        if len(deleted) == 3:
            await never.wait()
        deleted.append(arguments)
        return await delete(*arguments, **more)

    with monkeypatch.context() as patched:
        patched.setattr(KubeClient, "delete", hang_after_three)
        cluster.kms.disable(cluster.key)
        await wait_until(lambda: len(deleted) == 3)
        await cluster.key_shows("main", lambda status: status["state"] == "Disabled")
        await running.stop()
    assert len(await secrets_of(cluster)) == 7
    # The successor knows the state from the status, but acts only on what it has seen itself.
    number = cluster.kms.faults.add(Fault(FaultKind.RESET, actions=("DescribeKey",)))
    running = await cluster.start()
    await cluster.key_shows("main", lambda status: is_available(status)[0] == "False")
    await running.idle()
    assert len(await secrets_of(cluster)) == 7
    cluster.kms.faults.remove(number)
    await none_left(cluster, wait_until)
    await reasons(cluster, names, "KeyUnusable")


@pytest.mark.parametrize("policy", ["Owner", "Merge"])
async def test_remove_finds_a_target_that_no_status_names(
    cluster: Any, wait_until: Any, monkeypatch: Any, policy: str
) -> None:
    """A Secret that was applied just before a kill, so that no status says so, goes as well when its key is shut."""
    reached, never = asyncio.Event(), asyncio.Event()
    patch_status = KubeClient.patch_status

    async def hang(self: KubeClient, resource: Any, *arguments: Any, **more: Any) -> Any:
        if resource.kind == "EncryptedSecret":
            reached.set()
            await never.wait()
        return await patch_status(self, resource, *arguments, **more)

    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    if policy == "Merge":
        await cluster.create_secret("db", {"theirs": b"t"})
    await cluster.create_secret("foreign", {"x": b"y"})
    running = await cluster.start()
    with monkeypatch.context() as patched:
        patched.setattr(KubeClient, "patch_status", hang)
        await cluster.apply(await cluster.seal("db", {"a": b"1"}, target={"creationPolicy": policy}))
        await wait_until(reached.is_set)
        await running.stop()
    assert "a" in await cluster.values("db")
    cluster.kms.disable(cluster.key)
    await cluster.start()
    await cluster.reason("db", "KeyUnusable")
    assert await cluster.values("db") == ({"theirs": b"t"} if policy == "Merge" else None)
    assert await cluster.values("foreign") == {"x": b"y"}
    cluster.kms.enable(cluster.key)
    await cluster.reason("db", "Applied")
    assert (await cluster.values("db"))["a"] == b"1"


async def test_a_key_that_was_shut_while_nobody_looked(cluster: Any) -> None:
    """A start acts on it, with no Decrypt; and on a key that was opened again."""
    await cluster.create_key("main", cluster.key, onUnavailable="Remove")
    running = await cluster.start()
    await ready(cluster, ["db"])
    await cluster.key_shows("main", lambda status: status["objects"] == 1)
    await running.stop()
    cluster.kms.disable(cluster.key)
    calls = cluster.kms.calls["Decrypt"]
    running = await cluster.start()
    await cluster.reason("db", "KeyUnusable")
    assert await cluster.secret("db") is None
    assert cluster.kms.calls["Decrypt"] == calls
    await running.stop()
    cluster.kms.enable(cluster.key)
    await cluster.start()
    await cluster.reason("db", "Applied")
    assert await cluster.values("db") == {"a": b"db"}
