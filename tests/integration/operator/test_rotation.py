"""Rotation in the cluster: new versions and moved aliases are followed, beside the object, to the end."""

import asyncio
from typing import Any

from kmseal.fakekms import throttling

Json = dict[str, Any]
AGENT = "kmseal-operator"


def newest(raw: Json) -> set[str]:
    """The versions of an object's newer wrappings."""
    return {item["wrapping"]["keyVersionId"] for item in raw["status"].get("rewrapped", [])}


async def test_a_rotation_is_followed_to_the_end(cluster: Any, settled: Any, updated: Any) -> None:
    """A new version is seen; each object costs one ReEncrypt and one write of its status; the gate opens with Git."""
    await cluster.create_key("main", cluster.key)
    running = await cluster.start()
    await cluster.apply_all(running, [f"o{index}" for index in range(10)])
    status = await cluster.key_shows("main", settled(10, 0))
    old = status["primaryVersion"]
    before = await cluster.objects()
    calls = {name: cluster.kms.calls[name] for name in ("ReEncrypt", "Decrypt", "Encrypt")}
    log = cluster.control_plane.audit_log()

    cluster.kms.rotate(cluster.key)
    status = await cluster.key_shows("main", settled(10, 10))
    assert status["primaryVersion"] != old
    assert status["rewrap"] == {"pending": 0, "done": 10, "failed": 0}
    assert status["safeToDisable"] == [], "what Git holds still needs the old version"
    assert cluster.kms.calls["ReEncrypt"] - calls["ReEncrypt"] == 10
    assert {name: cluster.kms.calls[name] for name in ("Decrypt", "Encrypt")} == {
        name: calls[name] for name in ("Decrypt", "Encrypt")
    }, "the data keys never left KMS"
    writes = [write for write in log.writes(agent=AGENT) if write.resource == "encryptedsecrets"]
    assert sorted((write.name, write.subresource) for write in writes) == sorted((name, "status") for name in before)
    after = await cluster.objects()
    for name, raw in after.items():
        assert raw["spec"] == before[name]["spec"]
        assert raw["metadata"]["generation"] == before[name]["metadata"]["generation"]
        assert newest(raw) == {status["primaryVersion"]}
        assert raw["status"]["keys"] == [{"keyId": cluster.key, "keyVersionId": status["primaryVersion"]}]

    await cluster.apply_many([updated(raw) for raw in after.values()])
    status = await cluster.key_shows("main", settled(10, 0))
    assert status["safeToDisable"] == [{"keyId": cluster.key, "keyVersionId": old}]
    for name in after:
        await cluster.reason(name, "Applied", generation=2)
        assert "rewrapped" not in (await cluster.object(name))["status"] or not newest(await cluster.object(name))


async def test_an_alias_that_moves_takes_its_objects_along(cluster: Any, settled: Any, updated: Any) -> None:
    """After the alias names another key, wrappings move there, and the former key is safe once Git has followed."""
    first, other = cluster.kms.create_key("alias/app"), cluster.kms.create_key()
    alias = f"{first.rsplit(':', 1)[0]}:alias/app"
    await cluster.create_key("app", alias)
    running = await cluster.start()
    await cluster.apply_all(running, ["one", "two"], key=first)
    await cluster.key_shows("app", settled(2, 0))
    cluster.kms.move_alias("alias/app", other)
    status = await cluster.key_shows("app", settled(2, 2))
    assert (status["keyId"], status["previousKeys"]) == (other, [first])
    assert status["safeToDisable"] == []
    for raw in (await cluster.objects()).values():
        assert [item["wrapping"]["keyId"] for item in raw["status"]["rewrapped"]] == [other]

    # The reader prefers the newer wrapping: a change of the target heals though the former key is shut.
    cluster.kms.disable(first)
    await cluster.patch_secret("one", {"data": {"a": "Y2hhbmdlZA=="}})
    log = cluster.control_plane.audit_log()
    await cluster.until(lambda: [w.name for w in log.writes(agent=AGENT) if w.resource == "secrets"] != [])
    assert await cluster.values("one") == {"a": b"one"}

    await cluster.apply_many([updated(raw) for raw in (await cluster.objects()).values()])
    status = await cluster.key_shows("app", settled(2, 0))
    assert status["safeToDisable"] == [{"keyId": first}]


async def test_a_replaced_key_of_another_account_is_moved_away_from(cluster: Any, settled: Any, updated: Any) -> None:
    """spec.replaces names the key of before; its wrappings move, by Decrypt and Encrypt where ReEncrypt cannot."""
    other = cluster.kms.create_key()
    await cluster.create_key("main", other, replaces=[cluster.key])
    running = await cluster.start()
    await cluster.apply_all(running, ["one"])
    status = await cluster.key_shows("main", settled(1, 1))
    assert status["safeToDisable"] == []
    await cluster.apply_many([updated(raw) for raw in (await cluster.objects()).values()])
    status = await cluster.key_shows("main", settled(1, 0))
    assert status["safeToDisable"] == [{"keyId": cluster.key}]


async def test_a_new_spec_discards_what_replaced_the_old_one(cluster: Any, settled: Any) -> None:
    """An object that is sealed anew opens by what it holds now, and its stand-in leaves the status."""
    await cluster.create_key("main", cluster.key)
    await cluster.start()
    await cluster.apply(await cluster.seal("db", {"a": b"1"}))
    await cluster.key_shows("main", settled(1, 0))
    cluster.kms.rotate(cluster.key)
    await cluster.key_shows("main", settled(1, 1))
    await cluster.apply(await cluster.seal("db", {"a": b"2"}))
    await cluster.reason("db", "Applied", generation=2)
    assert await cluster.values("db") == {"a": b"2"}
    await cluster.key_shows("main", settled(1, 0))
    assert newest(await cluster.object("db")) == set()


async def test_manual_waits_to_be_asked_and_false_is_never_asked(cluster: Any, settled: Any) -> None:
    """With Manual only the annotated object moves; with Auto only the one annotated false stays."""
    await cluster.create_key("main", cluster.key, rewrap="Manual")
    await cluster.start()
    manifests = await cluster.seal_many(["asked", "silent", "never"])
    manifests[2]["metadata"]["annotations"] = {"kmseal.dev/rewrap": "false"}
    await cluster.apply_many(manifests)
    await cluster.key_shows("main", settled(3, 0))
    cluster.kms.rotate(cluster.key)
    status = await cluster.key_shows("main", lambda status: status["stale"]["inCluster"] == 3)
    assert [c["reason"] for c in status["conditions"] if c["type"] == "UpToDate"] == ["Manual"]
    manifests[0]["metadata"]["annotations"] = {"kmseal.dev/rewrap": "true"}
    await cluster.apply(manifests[0])
    await cluster.key_shows("main", lambda status: status["stale"]["inCluster"] == 2)
    assert cluster.kms.calls["ReEncrypt"] == 1
    await cluster.patch_key("main", {"rewrap": "Auto"})
    await cluster.key_shows("main", lambda status: status["stale"]["inCluster"] == 1)
    assert {name: bool(newest(raw)) for name, raw in (await cluster.objects()).items()} == {
        "asked": True,
        "silent": True,
        "never": False,
    }
    assert cluster.kms.calls["ReEncrypt"] == 2


async def test_a_kill_in_the_middle_repeats_nothing_that_is_done(cluster: Any, settled: Any) -> None:
    """Killed twice while it re-wraps: what stands in a status is not asked for again."""
    count, workers = 60, 4
    await cluster.create_key("main", cluster.key)
    running = await cluster.start()
    await cluster.apply_all(running, [f"o{index}" for index in range(count)])
    await cluster.key_shows("main", settled(count, 0))
    await running.stop()
    cluster.kms.rotate(cluster.key)
    slowly = {"KMSEAL_KMS_CRYPTO_PER_SECOND": "20"}
    for share in (20, 40):
        running = await cluster.start(kms=slowly, rewrap_workers=workers)
        await cluster.until(lambda share=share: cluster.kms.calls["ReEncrypt"] >= share)
        await running.stop()
    done = sum(bool(newest(raw)) for raw in (await cluster.objects()).values())
    assert 20 <= done < count
    await cluster.start()
    await cluster.key_shows("main", settled(count, count))
    assert cluster.kms.calls["ReEncrypt"] <= count + 2 * workers


async def test_new_objects_go_before_a_rotation(cluster: Any, settled: Any) -> None:
    """While hundreds wait to be re-wrapped under a small budget, a new object takes the next turn, not the last."""
    count, workers = 200, 16
    await cluster.create_key("main", cluster.key)
    running = await cluster.start()
    await cluster.apply_all(running, [f"o{index}" for index in range(count)])
    await cluster.key_shows("main", settled(count, 0))
    fresh = await cluster.seal_many([f"new{index}" for index in range(5)])
    await running.stop()
    cluster.kms.rotate(cluster.key)
    await cluster.start(kms={"KMSEAL_KMS_CRYPTO_PER_SECOND": "20"}, rewrap_workers=workers)
    await cluster.until(lambda: cluster.kms.calls["ReEncrypt"] >= 30)
    ahead = []
    for raw in fresh:
        before, opened = cluster.kms.calls["ReEncrypt"], cluster.kms.calls["Decrypt"]
        await cluster.apply(raw)
        await cluster.until(lambda opened=opened: cluster.kms.calls["Decrypt"] > opened)
        ahead.append(cluster.kms.calls["ReEncrypt"] - before)
    # Were it one of a line of equals, all workers would go ahead of each; a slow moment of this machine may let a few.
    assert min(ahead) < workers / 2, ahead
    for raw in fresh:
        await cluster.reason(raw["metadata"]["name"], "Applied")


async def test_throttling_neither_loses_nor_repeats_work(cluster: Any, settled: Any) -> None:
    """KMS answers 429 to every second ReEncrypt: each object is re-wrapped once, and none is given up."""
    count = 40
    await cluster.create_key("main", cluster.key)
    # Patience enough that no call is cut off half way, which would have to be made again.
    running = await cluster.start(kms={"KMSEAL_KMS_DEADLINE_SECONDS": "30", "KMSEAL_KMS_ATTEMPT_SECONDS": "10"})
    await cluster.apply_all(running, [f"o{index}" for index in range(count)])
    await cluster.key_shows("main", settled(count, 0))
    writes = cluster.control_plane.audit_log()
    cluster.kms.faults.add(throttling("ReEncrypt", times=count))
    cluster.kms.rotate(cluster.key)
    await cluster.key_shows("main", settled(count, count))
    assert cluster.kms.calls["ReEncrypt"] == 2 * count, "those refused, and one for each object"
    touched = [write for write in writes.writes(agent=AGENT) if write.resource == "encryptedsecrets"]
    assert len(touched) == count


async def test_a_thousand_objects_cost_a_thousand_calls(cluster: Any, settled: Any) -> None:
    """1,000 objects under 100 calls a second: one ReEncrypt and one write each, and a handful for the KMSKey."""
    count = 1_000
    await cluster.create_key("main", cluster.key)
    running = await cluster.start(status_pause=2.0)
    await cluster.apply_all(running, [f"o{index}" for index in range(count)])
    await cluster.key_shows("main", settled(count, 0))
    await running.stop()
    log = cluster.control_plane.audit_log()
    polls = cluster.kms.calls["DescribeKey"]
    cluster.kms.rotate(cluster.key)
    started = asyncio.get_running_loop().time()
    await cluster.start(kms={"KMSEAL_KMS_CRYPTO_PER_SECOND": "100"}, status_pause=2.0)
    await cluster.key_shows("main", settled(count, count))
    seconds = asyncio.get_running_loop().time() - started
    assert cluster.kms.calls["ReEncrypt"] == count
    writes = log.writes(agent=AGENT)
    assert len([write for write in writes if write.resource == "encryptedsecrets"]) == count
    assert len([write for write in writes if write.resource == "kmskeys"]) <= 3 + seconds / 2.0
    assert cluster.kms.calls["DescribeKey"] - polls <= 3 + seconds / 0.8, "by the key and interval, not by the object"


async def test_an_object_that_cannot_be_re_wrapped_is_named_and_hinders_nobody(cluster: Any, settled: Any) -> None:
    """A wrapping that KMS refuses is counted as failed; the others are done, and nothing is called safe."""
    await cluster.create_key("main", cluster.key)
    await cluster.start()
    good, bad = await cluster.seal_many(["good", "bad"])
    bad["spec"]["dataKeys"][0]["wrappings"][0]["wrapped"] = good["spec"]["dataKeys"][0]["wrappings"][0]["wrapped"]
    await cluster.apply_many([good, bad])
    await cluster.reason("good", "Applied")
    await cluster.reason("bad", "KmsRefused")
    await cluster.key_shows("main", settled(2, 0))
    cluster.kms.rotate(cluster.key)
    status = await cluster.key_shows("main", lambda status: status["rewrap"]["failed"] == 1)
    assert status["stale"]["inCluster"] == 1
    assert status["stale"]["objects"][0] == {"namespace": cluster.namespace, "name": "bad", "where": "Cluster"}
    assert [c["reason"] for c in status["conditions"] if c["type"] == "UpToDate"] == ["RewrapFailing"]
    assert newest(await cluster.object("good")) == {status["primaryVersion"]}
