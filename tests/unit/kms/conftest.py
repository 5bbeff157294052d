"""Fixtures of the KMS tests: a time that only moves when somebody sleeps, and servers that answer what a test says."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from kmseal.kms.settings import KmsSettings
from kmseal.kms.timing import Timing

ARN = "acs:kms:cn-hangzhou:1000000000000001:key/key-hzz62f1cb66fa42qo1234"


class FakeTime:
    """Clock, wall clock and sleep in one: sleeping moves both clocks and takes no time."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.chance = 0.5

    def clock(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_800_000_000.0 + self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def timing(self) -> Timing:
        return Timing(self.clock, self.wall, self.sleep, lambda: self.chance)


class VirtualTime:
    """A clock for many sleepers at once: it moves to the next one who is due whenever all of them sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self._count += 1
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, self._count, woken))
        await woken

    async def run(self, seconds: float = 100_000.0) -> None:
        """Lets time pass until it is over, or until nobody sleeps any more."""
        end = self.now + seconds
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            if not self._sleepers or self._sleepers[0][0] > end:
                break
            due, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                self.now = max(self.now, due)
                woken.set_result(None)
        if self._sleepers:
            self.now = end

    @property
    def timing(self) -> Timing:
        return Timing(self.clock, lambda: 1_800_000_000.0 + self.now, self.sleep, lambda: 0.5)


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> list[tuple[str, str]]:
        return sorted(parse_qsl(urlsplit(self.target).query, keep_blank_values=True, strict_parsing=True))


Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """A plain HTTP server on this machine that records requests and leaves the answer to ``reply``."""

    reply: Reply
    requests: list[Request] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                request = Request(method, target, headers, body)
                self.requests.append(request)
                await self.reply(request, writer)
                await writer.drain()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


def response(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """An HTTP response as bytes."""
    lines = [f"HTTP/1.1 {status} Because", f"Content-Length: {len(body)}"]
    lines += [
        f"{name}: {value}" for name, value in ({"Content-Type": "application/json"} | dict(headers or {})).items()
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.fixture
def fake_time() -> FakeTime:
    return FakeTime()


@pytest.fixture(scope="session")
def new_virtual_time() -> Callable[[], VirtualTime]:
    """Makes one for each example of a property test."""
    return VirtualTime


@pytest.fixture
def virtual_time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
async def raw_server() -> AsyncIterator[Callable[[Reply], Awaitable[RawServer]]]:
    """Starts raw servers: ``await raw_server(reply)``."""
    listeners: list[asyncio.Server] = []
    handlers: set[asyncio.Task[None]] = set()

    async def start(reply: Reply) -> RawServer:
        server = RawServer(reply)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            handlers.add(task)
            await server.serve(reader, writer)

        listener = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1_000_000)
        server.port = listener.sockets[0].getsockname()[1]
        listeners.append(listener)
        return server

    yield start
    for listener in listeners:
        listener.close()
    for task in handlers:
        task.cancel()
    await asyncio.gather(*handlers, return_exceptions=True)


@pytest.fixture
def respond() -> Callable[..., Reply]:
    """Makes replies: ``respond(status, body, headers)`` answers every request alike."""

    def make(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(response(status, body, headers))

        return reply

    return make


@pytest.fixture
def arn() -> str:
    return ARN


@pytest.fixture
def static_environment() -> dict[str, str]:
    """An access key that no fake knows: for servers that verify nothing."""
    return {"ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAItest", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "secret-canary-5D0A"}


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies and credentials of the machine that runs the tests must not matter."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def settings_for() -> Callable[..., KmsSettings]:
    """Settings that send every region to one endpoint and do not hold requests back."""

    def make(endpoint: str, **changes: Any) -> KmsSettings:
        ca_file: Path | None = changes.pop("ca_file", None)
        return KmsSettings(endpoints={"*": endpoint}, ca_file=ca_file, **{"crypto_per_second": 10_000.0} | changes)

    return make
