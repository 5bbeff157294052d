"""Waiting for keys: nobody sleeps while there is work, and no key is lost. Time is a number that the tests move."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kmseal.cluster.names import Backoff, Key
from kmseal_operator.backlog import Backlog, Lane
from kmseal_operator.queue import KeyedQueue

A, B, C = (Key("prod", name) for name in "abc")


class Clock:
    """A clock that stands until a test moves it, and the event loop's timers on the same time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], Any], asyncio.TimerHandle]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], Any]) -> asyncio.TimerHandle:
        """Stands in for the loop's method: keeps the callback until the time is there."""
        handle = asyncio.TimerHandle(self.now + delay, callback, (), asyncio.get_running_loop())
        self.timers.append((self.now + delay, callback, handle))
        return handle

    def advance(self, seconds: float) -> int:
        """Moves the time and rings what was set to ring by then; says how many timers rang."""
        self.now += seconds
        rings = 0
        while due := [timer for timer in self.timers if timer[0] <= self.now]:
            for timer in due:
                self.timers.remove(timer)
                if not timer[2].cancelled():
                    rings += 1
                    assert rings < 100, "a timer rings without end"
                    timer[1]()
        return rings


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of queue and loop."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", clock.call_later)
    return clock


@pytest.fixture
def queue(clock: Clock) -> KeyedQueue:
    """A queue whose first retry comes after half a second."""
    return KeyedQueue(Backlog(Backoff(1.0, 60.0, lambda: 0.0)), clock=clock)


async def settle() -> None:
    """Lets every task run until all wait."""
    for _ in range(20):
        await asyncio.sleep(0)


async def start(queue: KeyedQueue, count: int) -> list[asyncio.Task[Key]]:
    takers = [asyncio.create_task(queue.take()) for _ in range(count)]
    await settle()
    return takers


async def stop(takers: list[asyncio.Task[Key]]) -> None:
    for taker in takers:
        taker.cancel()
    await asyncio.gather(*takers, return_exceptions=True)


async def test_a_waiting_taker_gets_a_key_that_is_added(queue: KeyedQueue) -> None:
    """Adding wakes who waits."""
    (taker,) = await start(queue, 1)
    assert not taker.done()
    queue.add(A)
    assert await taker == A


async def test_several_keys_wake_as_many_takers(queue: KeyedQueue) -> None:
    """Keys added in one go reach one taker each, and the taker that is left over still waits."""
    takers = await start(queue, 4)
    for key in (A, B, C):
        queue.add(key)
    await settle()
    assert sorted(taker.result() for taker in takers if taker.done()) == [A, B, C]
    await stop([taker for taker in takers if not taker.done()])


async def test_retries_that_come_due_together_wake_as_many_takers(queue: KeyedQueue, clock: Clock) -> None:
    """One ring of the timer serves all keys that are due."""
    for key in (A, B):
        queue.add(key)
        await queue.take()
        queue.failed(key, "kms")
    takers = await start(queue, 2)
    clock.advance(0.5)
    await settle()
    assert sorted(taker.result() for taker in takers) == [A, B]


async def test_hastened_keys_wake_as_many_takers(queue: KeyedQueue) -> None:
    """When KMS is back, all takers get to work."""
    for key in (A, B):
        queue.add(key)
        await queue.take()
        queue.failed(key, "kms")
    takers = await start(queue, 2)
    assert queue.hasten({"kms"}) == 2
    await settle()
    assert sorted(taker.result() for taker in takers) == [A, B]


async def test_a_key_added_while_held_reaches_a_waiting_taker_when_it_is_done(queue: KeyedQueue) -> None:
    """``done`` wakes for a key that comes again."""
    queue.add(A)
    await queue.take()
    (taker,) = await start(queue, 1)
    queue.add(A)
    await settle()
    assert not taker.done()
    queue.done(A)
    assert await taker == A


async def test_a_retry_comes_when_due_not_before(queue: KeyedQueue, clock: Clock) -> None:
    """The timer is set to the delay of the failed key."""
    queue.add(A)
    await queue.take()
    assert queue.failed(A, "kms") == 0.5
    (taker,) = await start(queue, 1)
    clock.advance(0.4)
    await settle()
    assert not taker.done()
    clock.advance(0.1)
    assert await taker == A


async def test_an_earlier_retry_moves_the_timer(queue: KeyedQueue, clock: Clock) -> None:
    """A key that is due sooner than all others does not wait for theirs."""
    for key, at_least in ((A, 50.0), (B, 0.0)):
        queue.add(key)
        await queue.take()
        queue.failed(key, "kms", at_least=at_least)
    (taker,) = await start(queue, 1)
    clock.advance(0.5)
    assert await taker == B
    (taker,) = await start(queue, 1)
    clock.advance(49.5)
    assert await taker == A


async def test_a_resting_key_wakes_a_taker_when_its_time_is_there(queue: KeyedQueue, clock: Clock) -> None:
    """A poll needs nobody to add it."""
    queue.add(A)
    await queue.take()
    (taker,) = await start(queue, 1)
    queue.rest(A, 60)
    clock.advance(59)
    await settle()
    assert not taker.done()
    clock.advance(1)
    assert await taker == A


async def test_a_rest_wakes_a_taker_for_what_was_added_meanwhile(queue: KeyedQueue) -> None:
    """The key itself, where it has work again already."""
    queue.add(A)
    await queue.take()
    (taker,) = await start(queue, 1)
    queue.add(A)
    queue.rest(A, 60)
    assert await taker == A


async def test_a_hurried_key_moves_the_timer(queue: KeyedQueue, clock: Clock) -> None:
    """The earlier time counts, and the later one rings for nobody."""
    queue.add(A)
    await queue.take()
    queue.rest(A, 60)
    (taker,) = await start(queue, 1)
    queue.hurry(A, 5)
    clock.advance(5)
    assert await taker == A
    queue.done(A)
    (taker,) = await start(queue, 1)
    clock.advance(1000)
    await settle()
    assert not taker.done()
    await stop([taker])


async def test_a_key_that_is_hurried_to_now_comes_now(queue: KeyedQueue, clock: Clock) -> None:
    """Without time passing."""
    queue.add(A)
    await queue.take()
    queue.rest(A, 60)
    (taker,) = await start(queue, 1)
    queue.hurry(A, 0)
    clock.advance(0)
    assert await taker == A


async def test_a_due_retry_does_not_ring_again_while_all_workers_are_busy(queue: KeyedQueue, clock: Clock) -> None:
    """With nobody waiting the timer rings once and rests; the key is ready for who comes next."""
    queue.add(A)
    await queue.take()
    queue.failed(A, "kms")
    assert clock.advance(0.5) == 1
    assert clock.timers == []
    assert queue.backlog.ready == 1
    assert await queue.take() == A


async def test_a_cancelled_waiting_taker_takes_nothing_with_it(queue: KeyedQueue) -> None:
    """A taker that gave up before a key came is passed over."""
    first, second = await start(queue, 2)
    await stop([first])
    queue.add(A)
    assert await second == A


async def test_a_taker_cancelled_after_it_was_woken_passes_the_key_on(queue: KeyedQueue) -> None:
    """Between wake-up and resumption a cancellation must not lose the wake-up."""
    first, second = await start(queue, 2)
    queue.add(A)
    first.cancel()
    await settle()
    assert first.cancelled()
    assert second.done()
    assert second.result() == A


async def test_a_dropped_key_wakes_nobody(queue: KeyedQueue, clock: Clock) -> None:
    """A retry of an object that is gone does not come."""
    queue.add(A)
    await queue.take()
    queue.failed(A, "kms")
    queue.drop(A)
    (taker,) = await start(queue, 1)
    clock.advance(100)
    await settle()
    assert not taker.done()
    await stop([taker])


async def test_waiting_times_are_told(clock: Clock) -> None:
    """Metrics learn how long each key was ready before it was taken."""
    told: list[float] = []
    queue = KeyedQueue(Backlog(Backoff(1, 60, lambda: 0)), clock=clock, on_wait=told.append)
    queue.add(A, Lane.BACK)
    clock.now = 3.0
    await queue.take()
    assert told == [3.0]


async def test_many_workers_do_every_key_and_never_share_one(queue: KeyedQueue) -> None:
    """Under many additions each key is worked on by one worker at a time and at least once after its last addition."""
    held: set[Key] = set()
    added: dict[Key, int] = {}
    worked: dict[Key, int] = {}

    async def work() -> None:
        while True:
            key = await queue.take()
            assert key not in held
            held.add(key)
            version = added[key]
            await asyncio.sleep(0)
            worked[key] = version
            held.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(5)]
    for number in range(300):
        key = Key("prod", str(number * 7 % 11))
        added[key] = number
        queue.add(key, Lane(number % 2))
        if number % 3 == 0:
            await asyncio.sleep(0)
    for _ in range(300):
        await asyncio.sleep(0)
    assert worked == added
    assert queue.backlog.idle
    for worker in workers:
        assert not worker.done()
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
