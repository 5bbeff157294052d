"""The truce with GitOps: while manifests are applied over and over, a rotation completes, and nothing flaps."""

import asyncio
from collections.abc import Callable
from typing import Any

Json = dict[str, Any]
LABELS = {"app.kubernetes.io/managed-by": "gitops"}
AGENT = "kmseal-operator"
ABOUT_KEYS = ("kmskeys", "events")  # The KMSKey's status, and its events: that it was rotated, and re-wrapped.


class Applier:
    """What Argo CD and Flux do: every second, server-side apply of the whole repository with force, then prune."""

    def __init__(self, bench: Any, repository: dict[str, Json]) -> None:
        self.bench = bench
        self.repository = repository
        self.rounds = 0

    async def run(self) -> None:
        while True:
            next_round = asyncio.get_running_loop().time() + 1.0
            await self.bench.apply_many(list(self.repository.values()))
            for name, raw in (await self.bench.objects()).items():
                if raw["metadata"].get("labels") == LABELS and name not in self.repository:
                    await self.bench.delete("encryptedsecrets", name)
            self.rounds += 1
            await asyncio.sleep(max(0.0, next_round - asyncio.get_running_loop().time()))

    async def complete(self, rounds: int) -> None:
        """Waits for that many more whole rounds, after the one that is under way."""
        wanted = self.rounds + rounds + 1
        await self.bench.until(lambda: self.rounds >= wanted)


def versions(objects: dict[str, Json]) -> dict[str, str]:
    return {name: raw["metadata"]["resourceVersion"] for name, raw in objects.items()}


async def test_a_rotation_of_200_objects_and_an_applier_leave_each_other_alone(
    cluster: Any, settled: Callable[[int, int], Any], updated: Callable[[Json], Json]
) -> None:
    """200 objects, applied every second: re-wrapped once each, never not Ready, spec never written, then quiet."""
    count = 200
    manifests = await cluster.seal_many([f"o{index}" for index in range(count)])
    for manifest in manifests:
        manifest["metadata"]["labels"] = LABELS
    await cluster.create_key("main", cluster.key)
    running = await cluster.start()
    applier = Applier(cluster, {manifest["metadata"]["name"]: manifest for manifest in manifests})
    applying = asyncio.create_task(applier.run())
    try:
        await cluster.key_shows("main", settled(count, 0))
        await cluster.until(lambda: running.operator.ledger.states()["Applied"] == count)
        await applier.complete(1)
        secrets = {name: (await cluster.secret(name))["metadata"]["resourceVersion"] for name in ("o0", "o199")}
        log = cluster.control_plane.audit_log()

        cluster.kms.rotate(cluster.key)
        await cluster.key_shows("main", settled(count, count))
        await applier.complete(3)
        objects = await cluster.objects()
        assert cluster.kms.calls["ReEncrypt"] == count
        for raw in objects.values():
            assert raw["metadata"]["generation"] == 1, "nobody has written a spec"
            ready = next(item for item in raw["status"]["conditions"] if item["type"] == "Ready")
            assert (ready["status"], ready["reason"]) == ("True", "Applied")
            assert raw["status"]["rewrapped"], "the applier has taken the newer wrapping away"
        by_us = [write for write in log.writes(agent=AGENT) if write.resource not in ABOUT_KEYS]
        assert {(write.resource, write.subresource) for write in by_us} == {("encryptedsecrets", "status")}
        assert sorted(write.name for write in by_us) == sorted(objects), "one write for each object"

        # The quiet afterwards: the applier goes on, and no version moves any more.
        log.clear()
        await applier.complete(3)
        assert versions(await cluster.objects()) == versions(objects)
        assert [write for write in log.writes(agent=AGENT) if write.resource not in ABOUT_KEYS] == []

        # Git follows: each object is opened once by its new wrapping, its Secret stays as it is, and it is quiet again.
        decrypts = cluster.kms.calls["Decrypt"]
        for name, raw in objects.items():
            applier.repository[name] = updated(raw) | {"metadata": applier.repository[name]["metadata"]}
        status = await cluster.key_shows("main", settled(count, 0))
        assert len(status["safeToDisable"]) == 1
        await applier.complete(2)
        await running.idle()
        objects = await cluster.objects()
        assert {raw["metadata"]["generation"] for raw in objects.values()} == {2}
        assert not any(raw["status"].get("rewrapped") for raw in objects.values())
        assert cluster.kms.calls["Decrypt"] - decrypts == count
        assert cluster.kms.calls["ReEncrypt"] == count
        for name, version in secrets.items():
            assert (await cluster.secret(name))["metadata"]["resourceVersion"] == version
        log.clear()
        await applier.complete(2)
        assert versions(await cluster.objects()) == versions(objects)

        # What leaves the repository is pruned, and leaves the inventory.
        del applier.repository["o0"]
        await cluster.key_shows("main", settled(count - 1, 0))
        assert not applying.done()
    finally:
        applying.cancel()
