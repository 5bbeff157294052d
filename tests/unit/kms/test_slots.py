"""The places for requests in flight."""

import asyncio
from typing import Any

import pytest

from kmseal.kms.slots import Slots


class Holders:
    """Starts holders of places and lets them go one by one."""

    def __init__(self, limit: int) -> None:
        self.slots = Slots(limit)
        self.holding: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _hold(self, name: str, background: bool) -> None:
        async with self.slots.hold(background=background):
            self.holding.append(name)
            try:
                await self.gates[name].wait()
            finally:
                self.holding.remove(name)

    async def start(self, prefix: str, count: int, *, background: bool = False) -> None:
        for n in range(count):
            name = f"{prefix}{n}"
            self.gates[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name, background))
        await self.settle()

    async def release(self, name: str) -> None:
        self.gates[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def finish(self) -> None:
        for gate in self.gates.values():
            gate.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)


@pytest.mark.parametrize(("limit", "background"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 6), (32, 24)])
async def test_a_quarter_of_the_places_is_never_for_the_background(limit: int, background: int) -> None:
    """At least one, except where there is only one."""
    holders = Holders(limit)
    await holders.start("b", limit + 3, background=True)
    assert len(holders.holding) == background
    await holders.start("f", limit + 3)
    assert len(holders.holding) == limit
    await holders.finish()
    assert holders.slots.idle


async def test_a_freed_place_goes_to_the_foreground_first_and_in_order() -> None:
    """Although the background has been waiting for longer."""
    holders = Holders(2)
    await holders.start("f", 2)
    await holders.start("b", 2, background=True)
    await holders.start("g", 2)
    await holders.release("f0")
    await holders.release("f1")
    assert holders.holding == ["g0", "g1"]
    await holders.release("g0")
    assert holders.holding == ["g1", "b0"]
    await holders.finish()


@pytest.mark.parametrize("background", [False, True])
async def test_a_cancelled_one_gives_its_place_on(background: bool) -> None:
    """Whether it holds it or waits for it."""
    holders = Holders(1)
    await holders.start("x", 5, background=background)
    holders.tasks["x1"].cancel()
    await holders.settle()
    holders.tasks["x0"].cancel()
    await holders.settle()
    assert holders.holding == ["x2"]
    await holders.finish()
    assert holders.slots.idle


@pytest.mark.parametrize("background", [False, True])
async def test_one_cancelled_in_the_moment_of_its_admission_gives_its_place_on(background: bool) -> None:
    """It was given the place, and never runs to take it."""
    holders = Holders(1)
    async with holders.slots.hold(background=background):
        await holders.start("x", 2, background=background)
    holders.tasks["x0"].cancel()
    await holders.settle()
    assert holders.holding == ["x1"]
    await holders.finish()
    assert holders.slots.idle


async def test_one_cancelled_and_freed_place_in_the_same_moment_is_not_lost() -> None:
    """The place does not go to the one that is gone."""
    holders = Holders(1)
    await holders.start("x", 3)
    holders.tasks["x1"].cancel()
    await holders.release("x0")
    assert holders.holding == ["x2"]
    await holders.finish()


async def test_an_error_inside_frees_the_place() -> None:
    """As any end of the request does."""
    slots = Slots(1)

    async def fail() -> Any:
        async with slots.hold(background=False):
            raise LookupError

    for _ in range(3):
        with pytest.raises(LookupError):
            await fail()
    assert slots.in_flight == 0
