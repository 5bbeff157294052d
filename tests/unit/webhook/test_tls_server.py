"""A TLS port against clients that are slow, many or late, and its end under load. Over real sockets."""

import asyncio
import json
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from kmseal.errors import Misconfigured
from kmseal_webhook.authority import issue, make_authority
from kmseal_webhook.gate import FOR_AGENTS, UNTIL_SENT, Patience
from kmseal_webhook.server import TlsServer
from kmseal_webhook.settings import WebhookSettings
from kmseal_webhook.tls import ServingTls

NAME = "localhost"
QUICK = Patience(
    connections=4, handshake_seconds=0.3, head_seconds=0.3, body_seconds=0.4, idle_seconds=5.0, answer_seconds=0.4
)  # fmt: skip
LARGE = b"x" * (8 * 1024 * 1024)


class Port:
    """A server that answers /ask when the test lets it, and /large at once with 8 MiB."""

    def __init__(self, patience: Patience) -> None:
        now, tls = datetime.now(UTC), ServingTls()
        authority = make_authority(now, timedelta(days=1))
        leaf = issue(authority, [NAME], now, timedelta(days=1))
        tls.load(leaf.certificate.pem, leaf.key)
        self.trust = ssl.create_default_context(cadata=authority.certificate.pem.decode())
        self.refused: Counter[str] = Counter()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = 0
        self.sent = asyncio.Event()
        self.server = TlsServer(
            {"/ask": self.answer, "/large": self.answer_at_length}, tls, patience,
            on_refused=lambda reason: self.refused.update([reason]),
        )  # fmt: skip

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked += 1
        await self.may_answer.wait()
        return web.json_response({"bytes": len(body)})

    async def answer_at_length(self, request: web.Request) -> web.Response:
        self.asked += 1
        request[UNTIL_SENT].callback(self.sent.set)
        return web.Response(body=LARGE, content_type="application/json")

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.server.port}/ask"

    async def connect(self, source: str = "127.0.0.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=self.trust, server_hostname=NAME, local_addr=(source, 0)
        )

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.trust, limit=50))


@pytest.fixture
async def port(request: pytest.FixtureRequest) -> AsyncIterator[Port]:
    port = Port(getattr(request, "param", QUICK))
    await port.server.start("127.0.0.1:0", "--listen")
    yield port
    await port.server.stop()


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """Whether the server ends the connection; waits for it as long as the longest patience, and more."""
    async with asyncio.timeout(3.0):
        with suppress(ConnectionError, ssl.SSLError):
            return await reader.read(1) == b""
        return True


async def until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 5
    while not reached():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def drip(writer: asyncio.StreamWriter, content: bytes) -> None:
    """Sends a byte every twentieth of a second, as a slow client does, until it is stopped."""
    with suppress(ConnectionError, ssl.SSLError, RuntimeError):
        for byte in content:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("start", "reason"),
    [
        (b"", "slow-head"),
        (b"POST /", "slow-head"),
        (b"POST /ask HTTP/1.1\r\nHost: x\r\n", "slow-head"),
        (b"POST /ask HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", "slow-body"),
        (b"POST /ask HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", "slow-body"),
        (b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", ""),
    ],
)
async def test_a_slow_client_is_cut_off(port: Port, start: bytes, reason: str) -> None:
    """Whatever it drips, and however steadily: head and body have their time, or are answered without being read."""
    reader, writer = await port.connect()
    writer.write(start)
    dripping = asyncio.create_task(drip(writer, b"x" * 200 if start else b""))
    if reason:
        assert await is_cut(reader)
        assert port.refused == {reason: 1}
    else:
        assert b"404" in await reader.readline()
    dripping.cancel()
    assert port.asked == 0
    writer.close()


async def test_a_client_that_shakes_no_hands_is_cut_off(port: Port) -> None:
    """A TCP connection without TLS does not stay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port.server.port)
    assert await is_cut(reader)
    writer.close()


async def test_a_second_slow_request_on_a_connection_is_cut_off_too(port: Port) -> None:
    """The clock starts with the first byte of each request; an idle connection in between is no offence."""
    reader, writer = await port.connect()
    writer.write(b"POST /ask HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok")
    assert b"200" in await reader.readuntil(b"}")
    await asyncio.sleep(QUICK.head_seconds + QUICK.body_seconds)
    assert not port.refused
    writer.write(b"POST /ask")
    assert await is_cut(reader)
    assert port.refused == {"slow-head": 1}
    writer.close()


async def test_an_answer_may_take_longer_than_a_request(port: Port) -> None:
    """The limits are for clients: KMS may take its time."""
    port.may_answer.clear()
    async with port.session() as session:
        asking = asyncio.create_task(session.post(port.url, data=b"x" * 100))
        await asyncio.sleep(QUICK.head_seconds + QUICK.body_seconds)
        port.may_answer.set()
        async with await asking as answer:
            assert await answer.json() == {"bytes": 100}
    assert not port.refused


async def test_more_connections_than_allowed_are_closed_and_the_others_stay(port: Port) -> None:
    """A flood costs no memory beyond the limit, and places are free again when somebody leaves."""
    open_ = [await port.connect() for _ in range(QUICK.connections)]
    await asyncio.sleep(0.02)
    assert port.server.connections == QUICK.connections
    reader, writer = await port.connect()
    assert await is_cut(reader)
    assert port.refused == {"connections": 1}
    writer.close()
    for _, writer in open_:
        writer.close()
    await until(lambda: not port.server.connections)
    async with port.session() as session, session.post(port.url, data=b"") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("port", [replace(QUICK, connections=10, address_connections=3)], indirect=True)
async def test_nobody_fills_the_port_from_one_address(port: Port) -> None:
    """Its connections beyond its share are closed; who comes from elsewhere is served, and the share is given back."""
    open_ = [await port.connect() for _ in range(3)]
    await until(lambda: port.server.connections == 3)
    reader, writer = await port.connect()
    assert await is_cut(reader)
    assert port.refused == {"address": 1}
    writer.close()
    elsewhere, theirs = await port.connect(source="127.0.0.2")
    theirs.write(b"GET /ask HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await elsewhere.readline()
    theirs.close()
    for _, writer in open_:
        writer.close()
    await until(lambda: not port.server.connections)
    async with port.session() as session, session.post(port.url, data=b"") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("paced", [False, True])
async def test_a_client_that_does_not_read_its_answer_is_cut_off(port: Port, paced: bool) -> None:
    """Within the time for an answer, also one that reads steadily, but not fast enough; it is no unexpected fault."""
    connection = await connect_without_reading(port)
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: port.asked)
    started = time.monotonic()
    while port.server.connections:
        assert time.monotonic() - started < 3 * QUICK.answer_seconds
        if paced:
            with suppress(OSError):
                await asyncio.to_thread(connection.recv, 16 * 1024)
        await asyncio.sleep(0.005)
    assert port.refused == {"slow-answer": 1}
    connection.close()


async def test_a_client_that_asks_and_asks_without_reading_is_cut_off(port: Port) -> None:
    """Small answers to requests that are sent one after the other do not pile up, either."""
    connection = await connect_without_reading(port)
    connection.setblocking(False)
    requests, started = b"GET /ask HTTP/1.1\r\nHost: x\r\n\r\n" * 100, time.monotonic()
    while not port.refused:
        assert time.monotonic() - started < 15
        with suppress(OSError):
            connection.send(requests)
        await asyncio.sleep(0.001)
    assert port.refused == {"slow-answer": 1}
    connection.close()


async def test_a_large_answer_comes_whole_and_its_connection_stays(port: Port) -> None:
    """In pieces, with its length and type; the next request goes the same way."""
    async with port.session() as session:
        for _ in range(2):
            async with session.get(port.url.replace("/ask", "/large")) as answer:
                assert await answer.read() == LARGE
                assert answer.headers["Content-Length"] == str(len(LARGE))
                assert answer.content_type == "application/json"
            assert port.server.connections == 1
    assert not port.refused


async def test_a_request_is_under_way_until_its_answer_is_written(port: Port) -> None:
    """A drain waits for it, and what its handler holds until then bounds answers that nobody reads."""
    connection = await connect_without_reading(port)
    connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: port.asked)
    await asyncio.sleep(0.1)
    assert not port.server.is_idle
    assert not port.sent.is_set()
    await until(lambda: port.server.is_idle)
    assert port.sent.is_set()
    assert port.refused == {"slow-answer": 1}
    connection.close()


async def test_who_asks_for_nothing_that_is_served_keeps_no_connection(port: Port) -> None:
    """A stranger cannot hold a place by a request that costs him nothing."""
    reader, writer = await port.connect()
    writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(QUICK.idle_seconds / 2):
        assert b"connection: close" in (await reader.read()).lower()
    writer.close()


async def test_agents_keep_no_connection_for_long() -> None:
    """They ask once; an API server, which asks again, is the one to end its connections (after 90 seconds)."""
    assert FOR_AGENTS.idle_seconds <= 5
    assert Patience().idle_seconds > 90
    port = Port(replace(FOR_AGENTS, idle_seconds=0.2))
    await port.server.start("127.0.0.1:0", "--broker-listen")
    reader, writer = await port.connect()
    writer.write(b"GET /ask HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(3):
        assert b"200" in await reader.read()
    writer.close()
    await port.server.stop()


async def test_without_a_host_both_families_of_addresses_are_served() -> None:
    """As the defaults are written, for clusters that have only the one or the other."""
    assert {WebhookSettings().listen[0], WebhookSettings().broker_listen[0], WebhookSettings().health[0]} == {":"}
    port = Port(QUICK)
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        number = candidate.getsockname()[1]
    await port.server.start(f":{number}", "--listen")
    for host in ("127.0.0.1", "::1"):
        _, writer = await asyncio.open_connection(host, number, ssl=port.trust, server_hostname=NAME)
        writer.close()
    await port.server.stop()


async def connect_without_reading(port: Port) -> ssl.SSLSocket:
    """A client with a small window, which takes what is sent only when it is told to."""

    def connect() -> ssl.SSLSocket:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(1.0)
        plain.connect(("127.0.0.1", port.server.port))
        return port.trust.wrap_socket(plain, server_hostname=NAME)

    return await asyncio.to_thread(connect)


@pytest.mark.parametrize("port", [Patience()], indirect=True)
async def test_the_end_loses_no_request_of_clients_that_follow_readiness(port: Port) -> None:
    """Thirty clients ask all the time, on kept connections and new ones, and stop when they see it is draining.

    A request that is sent before the listener closes is answered, and connections are told to close.
    """
    closing: Counter[str] = Counter()

    async def client(session: aiohttp.ClientSession, number: int) -> int:
        answered = 0
        while not (port.server.is_draining and time.monotonic() > stops_at):
            async with session.post(port.url, data=b"x" * number) as answer:
                assert await answer.json() == {"bytes": number}
                answered += 1
                if answer.headers.get("Connection") == "close":
                    closing["told"] += 1
        return answered

    address, stops_at = ("127.0.0.1", port.server.port), float("inf")
    async with port.session() as session:
        clients = [asyncio.create_task(client(session, number)) for number in range(30)]
        await asyncio.sleep(0.3)
        stops_at = time.monotonic() + 0.3
        await port.server.drain(2.0)
        counts = await asyncio.gather(*clients)
    assert min(counts) > 1
    assert closing["told"] > 0
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*address)


@pytest.mark.parametrize("port", [Patience()], indirect=True)
async def test_what_is_under_way_at_the_end_is_answered(port: Port) -> None:
    """The listener is closed, and the request still gets its answer; then the drain ends without waiting longer."""
    port.may_answer.clear()
    async with port.session() as session:
        asking = asyncio.create_task(session.post(port.url, data=b"x"))
        await until(lambda: port.asked)
        started = time.monotonic()
        draining = asyncio.create_task(port.server.drain(4.0))
        await until(lambda: not port.server.is_listening)
        port.may_answer.set()
        async with await asking as answer:
            assert json.loads(await answer.text()) == {"bytes": 1}
        await draining
    assert 2.0 <= time.monotonic() - started < 3.9


@pytest.mark.parametrize("port", [Patience()], indirect=True)
async def test_the_end_comes_in_time_whatever_is_under_way(port: Port) -> None:
    """A request that never ends does not keep the process beyond its seconds."""
    port.may_answer.clear()
    async with port.session() as session:
        asking: Any = asyncio.create_task(session.post(port.url, data=b"x"))
        await until(lambda: port.asked)
        started = time.monotonic()
        await port.server.drain(0.4)
        assert 0.4 <= time.monotonic() - started < 3.5
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_an_address_that_is_taken_is_a_misconfiguration(port: Port) -> None:
    """It names the flag."""
    second = Port(QUICK)
    for address in (f"127.0.0.1:{port.server.port}", "nonsense", "127.0.0.1:99999999999"):
        with pytest.raises(Misconfigured) as caught:
            await second.server.start(address, "--broker-listen")
        assert caught.value.field == "--broker-listen"
