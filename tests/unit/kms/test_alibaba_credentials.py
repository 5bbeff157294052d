"""Credentials that refresh themselves, with a time of its own and an exchange that does what the test says."""

import asyncio
from typing import Any

import pytest

from kmseal.errors import BadCredentials, KmsealError, Unavailable
from kmseal.kms.alibaba.credentials import Credentials, RefreshedCredentials, StaticCredentials
from kmseal.kms.timing import Timing
from kmseal.redacted import Redacted


class ManualTime:
    """Clocks that the test sets, and a sleep that ends when they have got there."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self._sleepers.append((self.now + seconds, event))
        await event.wait()

    async def advance(self, seconds: float) -> None:
        """Moves on step by step, letting what is due run."""
        end = self.now + seconds
        while True:
            for _ in range(5):
                await asyncio.sleep(0)
            due = min((at for at, event in self._sleepers if not event.is_set()), default=end + 1)
            if due > end:
                break
            self.now = max(self.now, due)
            for at, event in self._sleepers:
                if at <= self.now:
                    event.set()
        self.now = end

    @property
    def timing(self) -> Timing:
        return Timing(lambda: self.now, lambda: self.now, self.sleep, lambda: 0.0)


class Exchange:
    """Gives credentials for an hour, or raises what it was told to."""

    def __init__(self, time: ManualTime) -> None:
        self.time = time
        self.at: list[float] = []
        self.failure: KmsealError | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Credentials:
        self.at.append(self.time.now)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return Credentials(f"STS.{len(self.at)}", Redacted(b"s"), Redacted(b"t"), self.time.now + 3600.0)


@pytest.fixture
def manual_time() -> ManualTime:
    return ManualTime()


@pytest.fixture
def exchange(manual_time: ManualTime) -> Exchange:
    return Exchange(manual_time)


@pytest.fixture
async def source(manual_time: ManualTime, exchange: Exchange) -> Any:
    source = RefreshedCredentials(exchange, manual_time.timing)
    yield source
    await source.close()


async def test_many_callers_at_once_share_one_exchange(source: RefreshedCredentials, exchange: Exchange) -> None:
    """Nobody stampedes, and everybody gets the same credentials."""
    exchange.gate.clear()
    callers = [asyncio.create_task(source.get()) for _ in range(50)]
    await asyncio.sleep(0)
    exchange.gate.set()
    assert {credentials.access_key_id for credentials in await asyncio.gather(*callers)} == {"STS.1"}
    assert len(exchange.at) == 1


async def test_a_cancelled_caller_does_not_cancel_the_exchange(
    source: RefreshedCredentials, exchange: Exchange
) -> None:
    """The others wait for it too."""
    exchange.gate.clear()
    first, second = asyncio.create_task(source.get()), asyncio.create_task(source.get())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    exchange.gate.set()
    assert (await second).access_key_id == "STS.1"
    with pytest.raises(asyncio.CancelledError):
        await first
    assert len(exchange.at) == 1


async def test_refreshes_at_seventy_percent_without_being_asked(
    source: RefreshedCredentials, exchange: Exchange, manual_time: ManualTime
) -> None:
    """In the background, whether anybody calls or not; callers never wait for it."""
    await source.get()
    await manual_time.advance(2519.0)
    assert exchange.at == [0.0]
    exchange.gate.clear()
    await manual_time.advance(2.0)
    assert exchange.at == [0.0, 2520.0]
    assert (await asyncio.wait_for(source.get(), 1.0)).access_key_id == "STS.1"
    exchange.gate.set()
    await manual_time.advance(1.0)
    assert (await source.get()).access_key_id == "STS.2"


async def test_chance_makes_the_refresh_up_to_a_tenth_earlier(manual_time: ManualTime, exchange: Exchange) -> None:
    """So that replicas which started together do not meet at STS."""
    timing = Timing(lambda: manual_time.now, lambda: manual_time.now, manual_time.sleep, lambda: 0.999)
    source = RefreshedCredentials(exchange, timing)
    await source.get()
    await manual_time.advance(2300.0)
    await source.close()
    assert exchange.at[1] == pytest.approx(2520.0 * 0.9, abs=1.0)


async def test_an_outage_of_sts_is_not_felt_before_real_expiry(
    source: RefreshedCredentials, exchange: Exchange, manual_time: ManualTime
) -> None:
    """Old credentials are served until they expire while the refresh is retried with growing pauses, then it heals."""
    await source.get()
    exchange.failure = Unavailable("STS is down")
    await manual_time.advance(3599.0)
    assert (await source.get()).access_key_id == "STS.1"
    pauses = [later - earlier for earlier, later in zip(exchange.at[1:], exchange.at[2:], strict=False)]
    assert pauses[:5] == pytest.approx([1.0, 1.0, 2.0, 4.0, 8.0])
    assert max(pauses) <= 60.0
    assert len(exchange.at) < 60
    await manual_time.advance(2.0)
    with pytest.raises(Unavailable, match="STS is down"):
        await source.get()
    exchange.failure = None
    await manual_time.advance(60.0)
    assert (await source.get()).expires is not None


async def test_a_failure_is_answered_from_memory_until_its_pause_is_over(
    source: RefreshedCredentials, exchange: Exchange, manual_time: ManualTime
) -> None:
    """A hundred calls during an outage make one request to STS; each caller has an exception of its own."""
    exchange.failure = BadCredentials("no such role", remedy="check it")
    raised = []
    for _ in range(100):
        with pytest.raises(BadCredentials, match="no such role; check it") as caught:
            await source.get()
        raised.append(caught.value)
    assert len(exchange.at) == 1
    assert len({id(error) for error in raised}) == 100
    manual_time.now += 1.0
    exchange.failure = None
    await source.get()


async def test_refused_credentials_are_renewed_but_not_over_and_over(
    source: RefreshedCredentials, exchange: Exchange, manual_time: ManualTime
) -> None:
    """Once for all callers who were refused the same ones, then not for half a minute."""
    refused = await source.get()
    assert await asyncio.gather(*[source.renew(refused) for _ in range(10)]) == [True] * 10
    assert len(exchange.at) == 2
    assert not await source.renew(await source.get())
    assert len(exchange.at) == 2
    manual_time.now += 30.0
    assert await source.renew(await source.get())


async def test_a_failed_renewal_says_so(source: RefreshedCredentials, exchange: Exchange) -> None:
    """Then there is no point in trying again."""
    refused = await source.get()
    exchange.failure = Unavailable("STS is down")
    assert not await source.renew(refused)


async def test_static_credentials_cannot_be_renewed() -> None:
    """There is nowhere to get others from."""
    credentials = Credentials("LTAI", Redacted(b"s"))
    source = StaticCredentials(credentials)
    assert await source.get() is credentials
    assert not await source.renew(credentials)


def test_credentials_show_no_secret() -> None:
    """Neither in repr nor in str."""
    credentials = Credentials("LTAI", Redacted(b"canary-secret"), Redacted(b"canary-token"))
    assert "canary" not in f"{credentials!r} {credentials}"
