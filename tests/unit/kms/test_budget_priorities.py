"""Two priorities in one bucket: the background gets all that is left, and nothing else."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kmseal.errors import Throttled
from kmseal.kms.budget import TokenBucket, in_background
from kmseal.kms.timing import Timing


class Callers:
    """Starts callers of a bucket and writes down when each got its turn."""

    def __init__(self, bucket: TokenBucket, clock: Callable[[], float]) -> None:
        self.bucket = bucket
        self.clock = clock
        self.started_at = clock()
        self.turns: list[tuple[str, float]] = []
        self.refused: list[tuple[str, float | None]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def _take(self, name: str, patience: float) -> None:
        try:
            await self.bucket.take(patience)
        except Throttled as throttled:
            self.refused.append((name, throttled.retry_after))
        else:
            self.turns.append((name, self.clock() - self.started_at))

    def behind(self, name: str, patience: float = 10_000.0) -> asyncio.Task[None]:
        with in_background():
            return self.before(name, patience)

    def before(self, name: str, patience: float = 10_000.0) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(self._take(name, patience)))
        return self.tasks[-1]

    def at(self, name: str) -> float:
        return next(at for who, at in self.turns if who == name)


@settings(deadline=None, max_examples=40)
@given(rate=st.floats(0.3, 500.0), calls=st.integers(1, 300))
def test_the_background_alone_gets_the_full_rate(new_virtual_time: Any, rate: float, calls: int) -> None:
    """N calls at a rate of Q take (N - burst) / Q, in the order in which they came."""
    time = new_virtual_time()
    callers = Callers(TokenBucket(rate, time.timing), time.clock)

    async def work() -> None:
        for n in range(calls):
            callers.behind(str(n))
        await time.run()

    asyncio.run(work())
    assert [name for name, _ in callers.turns] == [str(n) for n in range(calls)]
    expected = max(0.0, (calls - max(1.0, rate)) / rate)
    assert expected - 1e-6 <= callers.turns[-1][1] <= expected + 1e-5 * calls


async def test_a_sleep_that_is_too_long_loses_no_tokens(virtual_time: Any) -> None:
    """A loop that is busy for half a second at each sleep still reaches 20 a second: tokens go on accumulating."""

    async def sleep(seconds: float) -> None:
        await virtual_time.sleep(seconds + 0.5)

    timing = virtual_time.timing
    bucket = TokenBucket(20.0, type(timing)(timing.clock, timing.wall, sleep, timing.chance))
    callers = Callers(bucket, virtual_time.clock)
    for n in range(220):
        callers.behind(str(n))
    await virtual_time.run()
    assert len(callers.turns) == 220
    assert callers.turns[-1][1] <= (220 - 20) / 20 + 0.6


async def test_a_foreground_caller_goes_next_before_a_thousand_in_the_background(virtual_time: Any) -> None:
    """It waits as long as for the next token, and the background loses exactly that one."""
    callers = Callers(TokenBucket(100.0, virtual_time.timing), virtual_time.clock)
    for n in range(1100):
        callers.behind(str(n))
    await virtual_time.run(2.005)
    done, arrived = len(callers.turns), virtual_time.now - callers.started_at
    assert 290 <= done <= 310
    callers.before("new object")
    await virtual_time.run(1.0)
    assert callers.turns[done][0] == "new object"
    assert callers.at("new object") - arrived <= 0.0101
    await virtual_time.run()
    assert callers.turns[-1][1] == pytest.approx((1101 - 100) / 100, abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    waiting=st.integers(0, 60),
    arrivals=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(1, 15)), min_size=1, max_size=6),
)
def test_the_foreground_is_never_delayed_by_who_waits_in_the_background(
    new_virtual_time: Any, waiting: int, arrivals: list[tuple[float, int]]
) -> None:
    """However many wait, each foreground caller has its turn as if only the foreground queued for single tokens."""
    time = new_virtual_time()
    callers = Callers(TokenBucket(10.0, time.timing), time.clock)
    latest: dict[str, float] = {}

    async def work() -> None:
        for n in range(10 + waiting):
            callers.behind(f"b{n}")
        free_at = 0.0
        for pause, count in arrivals:
            await time.run(pause)
            for _ in range(count):
                free_at = max(free_at, time.now - callers.started_at) + 0.1
                latest[f"f{len(latest)}"] = free_at
                callers.before(f"f{len(latest) - 1}")
        await time.run()

    asyncio.run(work())
    assert len(callers.turns) == 10 + waiting + len(latest)
    for name, at in latest.items():
        assert callers.at(name) <= at + 1e-6


async def test_the_background_waits_while_the_foreground_takes_everything(virtual_time: Any) -> None:
    """No debt is made for it: it gets the first token that nobody was promised."""
    callers = Callers(TokenBucket(10.0, virtual_time.timing), virtual_time.clock)
    for n in range(40):
        callers.before(f"f{n}")
    callers.behind("b")
    await virtual_time.run()
    assert callers.turns[-1][0] == "b"
    assert callers.at("b") == pytest.approx(3.1, abs=1e-4)


async def test_a_turn_in_the_background_that_cannot_come_in_time_is_refused_at_once(virtual_time: Any) -> None:
    """Those ahead count: at ten a second the tenth in the queue waits a second, and is told so."""
    callers = Callers(TokenBucket(10.0, virtual_time.timing), virtual_time.clock)
    for n in range(25):
        callers.behind(str(n), patience=0.95)
    await virtual_time.run(0.0)
    assert [name for name, _ in callers.refused] == [str(n) for n in range(19, 25)]
    assert callers.refused[0][1] == pytest.approx(1.0)
    await virtual_time.run()
    assert len(callers.turns) == 19


async def test_patience_ends_although_the_foreground_goes_on(virtual_time: Any) -> None:
    """What could not be foreseen is noticed on the way, with the wait as it is then, and nothing is used up."""
    callers = Callers(TokenBucket(1.0, virtual_time.timing), virtual_time.clock)
    callers.before("first")
    callers.behind("patient for two seconds", patience=2.0)
    await virtual_time.run(0.5)
    for n in range(5):
        callers.before(f"f{n}")
    await virtual_time.run()
    assert [name for name, _ in callers.refused] == ["patient for two seconds"]
    assert callers.turns[-1][0] == "f4"
    assert callers.at("f4") == pytest.approx(5.0)
    assert callers.bucket.waiting_in_background == 0


async def test_who_stands_behind_a_more_patient_one_is_not_held_by_it() -> None:
    """Patience bounds the wait in the queue too."""
    never = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await never.wait()

    callers = Callers(TokenBucket(1000.0, Timing(clock=lambda: 0.0, sleep=sleep)), lambda: 0.0)
    for n in range(1000):
        callers.before(str(n))
    first = callers.behind("patient", patience=60.0)
    second = callers.behind("not so patient", patience=0.01)
    await asyncio.wait_for(second, 5.0)
    assert [name for name, _ in callers.refused] == ["not so patient"]
    assert not first.done()
    first.cancel()
    await asyncio.wait([first])
    assert callers.bucket.waiting_in_background == 0


async def test_a_cancelled_one_in_the_background_leaves_its_place_to_the_next(virtual_time: Any) -> None:
    """Whether it is the first, which sleeps, or further behind."""
    callers = Callers(TokenBucket(1.0, virtual_time.timing), virtual_time.clock)
    tasks = [callers.behind(str(n)) for n in range(6)]
    await virtual_time.run(0.5)
    tasks[1].cancel()
    tasks[3].cancel()
    await virtual_time.run()
    assert [name for name, _ in callers.turns] == ["0", "2", "4", "5"]
    assert callers.turns[-1][1] == pytest.approx(3.0, abs=1e-4)
    assert callers.bucket.waiting_in_background == 0


async def test_a_pause_holds_the_background_too(virtual_time: Any) -> None:
    """And the foreground that came meanwhile goes first when it is over."""
    callers = Callers(TokenBucket(10.0, virtual_time.timing), virtual_time.clock)
    callers.bucket.pause(3.0)
    for n in range(3):
        callers.behind(f"b{n}")
    await virtual_time.run(1.0)
    callers.before("f")
    await virtual_time.run()
    assert [name for name, _ in callers.turns] == ["f", "b0", "b1", "b2"]
    assert callers.turns[0][1] == pytest.approx(3.0)
    assert callers.turns[-1][1] == pytest.approx(3.3, abs=1e-4)


async def test_the_priority_ends_with_its_block_and_goes_on_in_tasks_begun_inside(virtual_time: Any) -> None:
    """A context variable: neither the caller's later work nor other tasks are touched by it."""
    bucket = TokenBucket(1.0, virtual_time.timing)
    await bucket.take(0.0)
    with in_background():
        inside = asyncio.create_task(bucket.take(100.0))
        with in_background():
            pass
        also_inside = asyncio.create_task(bucket.take(100.0))
    outside = asyncio.create_task(bucket.take(100.0))
    await asyncio.sleep(0)
    assert bucket.waiting_in_background == 2
    assert bucket.tokens == pytest.approx(-1.0)
    await virtual_time.run()
    await asyncio.gather(inside, also_inside, outside)
