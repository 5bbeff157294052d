"""Changes that arrive in the middle of a turn: none is lost, and no status lands on another object."""

import asyncio
from typing import Any

from kmseal.kube import KubeClient


async def test_an_edit_during_the_status_write_is_not_lost(bench: Any, monkeypatch: Any) -> None:
    """A second generation that is written just before the first one's status still becomes the Secret."""
    second = await bench.seal("db", {"a": b"2"})
    real, edited = KubeClient.patch_status, asyncio.Event()

    async def late(self: KubeClient, *arguments: Any, **options: Any) -> Any:
        if not edited.is_set():
            edited.set()
            await bench.apply(second)
        return await real(self, *arguments, **options)

    monkeypatch.setattr(KubeClient, "patch_status", late)
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}))
    await bench.reason("db", "Applied", generation=2)
    assert await bench.values("db") == {"a": b"2"}


async def test_a_status_does_not_land_on_another_object(bench: Any, monkeypatch: Any) -> None:
    """An object that is deleted and made anew in the middle of a turn is worked on for itself."""
    retain = {"target": {"deletionPolicy": "Retain"}}
    second = await bench.seal("db", {"a": b"2"}, **retain)
    real, remade = KubeClient.patch_status, asyncio.Event()

    async def late(self: KubeClient, *arguments: Any, **options: Any) -> Any:
        if not remade.is_set():
            remade.set()
            await bench.delete("encryptedsecrets", "db")
            await bench.apply(second)
        return await real(self, *arguments, **options)

    monkeypatch.setattr(KubeClient, "patch_status", late)
    await bench.start()
    await bench.apply(await bench.seal("db", {"a": b"1"}, **retain))
    await bench.reason("db", "Applied")
    assert await bench.values("db") == {"a": b"2"}


async def test_a_merge_with_retain_leaves_its_values(bench: Any, wait_until: Any) -> None:
    """Under Merge and Retain the values stay in the other Secret, also when the operator starts only afterwards."""
    running = await bench.start()
    await bench.create_secret("app", {"theirs": b"x"})
    target = {"name": "app", "creationPolicy": "Merge", "deletionPolicy": "Retain"}
    await bench.apply(await bench.seal("extra", {"a": b"1"}, target=target))
    await bench.reason("extra", "Applied")
    await running.stop()
    await bench.delete("encryptedsecrets", "extra")
    running = await bench.start()
    await bench.apply(await bench.seal("later", {"a": b"1"}))
    await bench.reason("later", "Applied")
    assert await bench.values("app") == {"theirs": b"x", "a": b"1"}


async def test_a_merge_deleted_while_the_operator_is_down_is_released(bench: Any, wait_until: Any) -> None:
    """At its next start the operator removes what an object had merged that was deleted meanwhile."""
    running = await bench.start()
    await bench.create_secret("app", {"theirs": b"x"})
    await bench.apply(await bench.seal("extra", {"a": b"1"}, target={"name": "app", "creationPolicy": "Merge"}))
    await bench.reason("extra", "Applied")
    await running.stop()
    await bench.delete("encryptedsecrets", "extra")
    await bench.start()

    async def released() -> bool:
        return bool(await bench.values("app") == {"theirs": b"x"})

    await wait_until(released)
