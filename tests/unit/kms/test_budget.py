"""Pacing of requests, with a time of its own."""

import asyncio
from typing import Any

import pytest

from kmseal.errors import Throttled
from kmseal.kms.budget import Budget, TokenBucket, in_background
from kmseal.kms.figures import AllowanceFigures, RegionFigures
from kmseal.kms.settings import KmsSettings
from kmseal.kms.timing import Timing


async def test_burst_of_one_second_passes_then_callers_are_paced_in_order(fake_time: Any) -> None:
    """Ten per second: ten pass at once, the next ones 100 ms apart."""
    bucket = TokenBucket(10.0, fake_time.timing)
    for _ in range(10):
        await bucket.take(60.0)
    assert fake_time.slept == []
    for _ in range(5):
        await bucket.take(60.0)
    assert fake_time.slept == pytest.approx([0.1] * 5)


async def test_callers_at_the_same_moment_get_later_and_later_turns() -> None:
    """Twelve callers at once at two per second: the last one's turn is five seconds away."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    bucket = TokenBucket(2.0, Timing(clock=lambda: 0.0, sleep=sleep))
    await asyncio.gather(*[bucket.take(60.0) for _ in range(12)])
    assert waits == pytest.approx([0.5 * n for n in range(1, 11)])


async def test_a_turn_after_the_deadline_is_refused_at_once_and_uses_nothing_up(fake_time: Any) -> None:
    """The error says how long the wait would be; whoever has more patience gets that very turn."""
    bucket = TokenBucket(1.0, fake_time.timing)
    await bucket.take(5.0)
    with pytest.raises(Throttled) as caught:
        await bucket.take(0.5)
    assert caught.value.retry_after == pytest.approx(1.0)
    assert fake_time.slept == []
    await bucket.take(1.0)
    assert fake_time.slept == pytest.approx([1.0])


async def test_a_cancelled_caller_gives_its_turn_back() -> None:
    """After a waiting caller was cancelled, the next one waits no longer than it would have."""
    waits: list[float] = []
    never = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await never.wait()

    bucket = TokenBucket(1.0, Timing(clock=lambda: 0.0, sleep=sleep))
    await bucket.take(9.0)
    for _ in range(3):
        waiting = asyncio.create_task(bucket.take(9.0))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert waits == pytest.approx([1.0, 1.0, 1.0])


async def test_a_pause_holds_every_caller(fake_time: Any) -> None:
    """When the server asks one caller to wait, the bucket gives nobody a turn before."""
    bucket = TokenBucket(100.0, fake_time.timing)
    bucket.pause(3.0)
    await bucket.take(60.0)
    assert fake_time.slept == pytest.approx([3.0])


def test_buckets_belong_to_account_and_region(fake_time: Any) -> None:
    """Cryptography and metadata are apart, accounts and regions are apart, and asking again gives the same ones."""
    budget = Budget(KmsSettings(), fake_time.timing)
    first = budget.allowance("1", "cn-hangzhou")
    assert first is budget.allowance("1", "cn-hangzhou")
    assert first.crypto is not first.metadata
    assert first is not budget.allowance("2", "cn-hangzhou")
    assert first is not budget.allowance("1", "cn-beijing")


async def test_made_up_accounts_do_not_fill_the_memory_and_busy_ones_are_kept(fake_time: Any) -> None:
    """Account numbers come from manifests: idle allowances are forgotten, one in use is not."""
    budget = Budget(KmsSettings(crypto_per_second=1.0), fake_time.timing)
    busy = budget.allowance("1", "cn-hangzhou")
    await busy.crypto.take(1.0)
    for account in range(2, 2000):
        budget.allowance(str(account), "cn-hangzhou")
    assert budget.allowance("1", "cn-hangzhou") is busy
    assert len(budget._allowances) <= 256


async def test_made_up_regions_do_not_fill_the_memory_either(fake_time: Any) -> None:
    """The slots of a region with a request in flight are kept."""
    budget = Budget(KmsSettings(), fake_time.timing)
    async with budget.slot("cn-hangzhou"):
        for number in range(2000):
            async with budget.slot(f"made-up-{number}"):
                pass
        assert len(budget.regions()) <= 256
        assert ("cn-hangzhou", 1) in {(one.region, one.in_flight) for one in budget.regions()}


async def test_figures_tell_what_is_left_who_waits_and_what_is_under_way(virtual_time: Any) -> None:
    """Tokens below zero are the foreground's queue; the background is counted apart."""
    budget = Budget(KmsSettings(crypto_per_second=2.0, metadata_per_second=1.0, concurrency=1), virtual_time.timing)
    crypto = budget.allowance("1", "cn-hangzhou").crypto
    callers = [asyncio.create_task(crypto.take(60.0)) for _ in range(5)]
    with in_background():
        callers += [asyncio.create_task(crypto.take(60.0)) for _ in range(4)]
    await asyncio.sleep(0)
    async with budget.slot("cn-hangzhou"):

        async def wait() -> None:
            async with budget.slot("cn-hangzhou"):
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert budget.allowances() == (
            AllowanceFigures("1", "cn-hangzhou", "crypto", -3.0, 2.0, 4),
            AllowanceFigures("1", "cn-hangzhou", "metadata", 1.0, 1.0, 0),
        )
        assert budget.regions() == (RegionFigures("cn-hangzhou", 1, 1, 1),)
    await waiting
    await virtual_time.run()
    await asyncio.gather(*callers)
    assert budget.allowances()[0].waiting_in_background == 0
    assert budget.regions() == (RegionFigures("cn-hangzhou", 0, 1, 0),)
