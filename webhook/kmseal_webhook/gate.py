"""Stands before every connection of a TLS port: limits their number, and cuts off clients that send or read slowly.

aiohttp bounds sizes of heads and bodies, but not the time that they may take. A head has to be there within seconds of
its first byte (and the first head within seconds of the connection), a body within seconds of its head, and an answer
has to be taken within seconds. Who is slower is cut off, and nobody may fill a port from one address. Made by
``server``, one for each listener.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

_PIECE: Final = 64 * 1024
"""Bytes of an answer that may wait unread before its writing does. TLS takes whatever it is given, and tells that a
client does not read only at the next piece: an answer in one piece would lie in memory, unnoticed."""

UNTIL_SENT: Final = web.RequestKey("until-sent", ExitStack)
"""What a handler enters here, it leaves when its client has taken the answer (all but a last piece), or is cut off: so
what bounds work by turns bounds unread answers as well."""


@dataclass(frozen=True, slots=True)
class Patience:
    """What a client may take of us. The defaults are for the port that API servers call."""

    connections: int = 1000
    """Open at once; each costs about 50 KiB. One more is closed at once."""
    address_connections: int = 250
    """Of these, from one address. An API server has at most 200 writes under way unless it is told otherwise."""
    handshake_seconds: float = 5.0
    head_seconds: float = 5.0
    body_seconds: float = 10.0
    """3 MiB in this time is a slow network already; the API server gives up after 5 seconds anyway."""
    idle_seconds: float = 120.0
    """An API server drops idle connections after 90 seconds: it should be the one that does, for a request that meets
    a connection that is being closed fails."""
    answer_seconds: float = 10.0
    """For taking an answer, from its first byte to its last."""


FOR_AGENTS: Final = Patience(address_connections=100, idle_seconds=5.0)
"""For the broker's port. An agent asks once and leaves; behind one address may be a node with all its pods."""


class Gate:
    """The protocol factory of a listener.

    :param accept: makes the protocol of one connection: an aiohttp Server
    :param on_refused: is told why a connection was cut, in one word, for metrics
    """

    def __init__(
        self,
        accept: Callable[[], RequestHandler],
        patience: Patience,
        *,
        on_refused: Callable[[str], None],
    ) -> None:
        self._accept = accept
        self.patience = patience
        self.on_refused = on_refused
        self.open: dict[asyncio.BaseProtocol, _Watched] = {}
        self.addresses: Counter[str] = Counter()
        """How many of them come from where."""

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Watched(self, self._accept())

    def refusal(self, address: str) -> str:
        """Why one more connection from there is not taken; empty where it is."""
        if len(self.open) >= self.patience.connections:
            return "connections"
        return "address" if self.addresses[address] >= self.patience.address_connections else ""

    @web.middleware
    async def middleware(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        """To be the application's outermost one: a request has its head now, and its body is waited for."""
        watched = self.open.get(request.protocol)
        if watched:
            watched.head_came()
            if request.content.is_eof():
                watched.body_came()
            else:
                request.content.on_eof(watched.body_came)
        try:
            return cast(web.StreamResponse, await handler(request))
        finally:
            if watched:
                watched.answered()

    async def send(self, request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
        """Writes an answer, or leaves it to aiohttp where it is small. Raises ConnectionError for a client that does
        not take it."""
        body = response.body if isinstance(response, web.Response) else None
        if not isinstance(body, bytes) or len(body) <= _PIECE or request.method == "HEAD":
            return response
        pieces = web.StreamResponse(status=response.status, headers=response.headers)
        pieces.content_length = len(body)
        if response.keep_alive is False:
            pieces.force_close()
        try:
            async with asyncio.timeout(self.patience.answer_seconds):
                await pieces.prepare(request)
                for start in range(0, len(body), _PIECE):
                    await pieces.write(body[start : start + _PIECE])
                await pieces.write_eof()
        except TimeoutError:
            if watched := self.open.get(request.protocol):
                watched.cut("answer")
            raise ConnectionResetError("the client does not read") from None
        return pieces


class _Watched(asyncio.Protocol):
    """One connection: hands everything on, and looks at the clock."""

    def __init__(self, gate: Gate, handler: RequestHandler) -> None:
        self._gate = gate
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._deadline: asyncio.TimerHandle | None = None
        self._answer_deadline: asyncio.TimerHandle | None = None
        self._awaits_head = True
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        if refusal := self._gate.refusal(self._address):
            self._refused = True
            self._gate.on_refused(refusal)
            self._transport.abort()
            return
        self._gate.open[self._handler] = self
        self._gate.addresses[self._address] += 1
        self._transport.set_write_buffer_limits(high=_PIECE)
        self._handler.connection_made(transport)
        self._expect("head", self._gate.patience.head_seconds)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._awaits_head and self._deadline is None:
            self._expect("head", self._gate.patience.head_seconds)
        self._handler.data_received(data)

    def eof_received(self) -> bool | None:
        self._handler.eof_received()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._disarm_answer()
        if not self._refused:
            self._gate.open.pop(self._handler, None)
            self._gate.addresses[self._address] -= 1
            if not self._gate.addresses[self._address]:
                del self._gate.addresses[self._address]
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        # Also for small answers to requests that were sent without waiting: aiohttp waits for nobody to take these.
        self._disarm_answer()
        seconds = self._gate.patience.answer_seconds
        self._answer_deadline = asyncio.get_running_loop().call_later(seconds, self.cut, "answer")
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        self._disarm_answer()
        self._handler.resume_writing()

    def head_came(self) -> None:
        self._awaits_head = False
        self._expect("body", self._gate.patience.body_seconds)

    def body_came(self) -> None:
        self._disarm()

    def answered(self) -> None:
        # The next request begins with its first byte; until then the connection is idle, which aiohttp bounds.
        self._awaits_head = True

    def _expect(self, what: str, seconds: float) -> None:
        self._disarm()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.cut, what)

    def _disarm(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _disarm_answer(self) -> None:
        if self._answer_deadline:
            self._answer_deadline.cancel()
            self._answer_deadline = None

    def cut(self, what: str) -> None:
        """Ends it for a client that was too slow with this."""
        self._disarm()
        self._disarm_answer()
        if self._transport and not self._transport.is_closing():
            self._gate.on_refused(f"slow-{what}")
            self._transport.abort()
