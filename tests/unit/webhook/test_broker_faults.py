"""The broker when the API server is away, when a request is broken off, and what it tells the metrics."""

import asyncio
import io
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import NamedTuple

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from kmseal.kms.provider import Context, Unwrapped
from kmseal.kube import KubeClient
from kmseal.kubeconfig import ClusterAccess, Token
from kmseal.manifest import Wrapping
from kmseal_webhook.audit import Audit
from kmseal_webhook.broker import Broker
from kmseal_webhook.limits import BrokerLimits


class NoKeyring:
    """Must not be reached."""

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context, namespace: str) -> Unwrapped:
        raise AssertionError("KMS was asked")


class Desk:
    """A broker whose API server is whatever listens at a port."""

    def __init__(self, kube: KubeClient) -> None:
        self.trail = io.StringIO()
        self.observed: list[str] = []
        self.broker = Broker(
            kube, NoKeyring(), BrokerLimits(), audit=Audit(self.trail, now=lambda: datetime.now(UTC)),
            clock=time.monotonic, observe=lambda reason, seconds: self.observed.append(reason),
        )  # fmt: skip

    async def ask(self, body: bytes = b'{"secrets": ["db"]}') -> web.Response:
        payload = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
        payload.feed_data(body)
        payload.feed_eof()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer a.b.c"}
        return await self.broker.decrypt(make_mocked_request("POST", "/v1/decrypt", headers=headers, payload=payload))

    def line(self) -> dict[str, object]:
        (line,) = self.trail.getvalue().splitlines()
        return dict(json.loads(line))


class Silent(NamedTuple):
    """A server that takes connections and never says a word."""

    port: int
    asked: asyncio.Event
    """Something was sent to it."""


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    """An API server that hangs."""
    asked = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        yield Silent(server.sockets[0].getsockname()[1], asked)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_the_api_server_is_away(closed_port: int) -> None:
    """Nobody can say who asks: nothing is given, nothing is taken away, and it is to be tried again."""
    access = ClusterAccess(f"http://127.0.0.1:{closed_port}", None, Token(text="t"))
    async with KubeClient(access, user_agent="test") as kube:
        desk = Desk(kube)
        answer = await desk.ask()
    assert isinstance(answer.body, bytes)
    content = json.loads(answer.body)
    assert (answer.status, content["reason"], content["retry"], content["wipe"]) == (503, "ApiUnavailable", True, False)
    assert answer.headers["Retry-After"] == "5"
    assert desk.line()["reason"] == "ApiUnavailable"
    assert desk.observed == ["ApiUnavailable"]


async def test_the_api_server_hangs(silent: Silent) -> None:
    """The client's own limit of time ends it."""
    access = ClusterAccess(f"http://127.0.0.1:{silent.port}", None, Token(text="t"))
    async with KubeClient(access, user_agent="test", timeout=0.1) as kube:
        assert (await Desk(kube).ask()).status == 503


async def test_a_request_that_is_cancelled_is_written_down(silent: Silent) -> None:
    """As when the process ends: KMS may have been asked by then."""
    access = ClusterAccess(f"http://127.0.0.1:{silent.port}", None, Token(text="t"))
    async with KubeClient(access, user_agent="test") as kube:
        desk = Desk(kube)
        task = asyncio.create_task(desk.ask())
        await silent.asked.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
    line = desk.line()
    assert (line["decision"], line["reason"], line["secrets"]) == ("deny", "Aborted", ["db"])
