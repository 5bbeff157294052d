"""Stands before every connection of the TLS port: limits their number, and cuts off clients that send slowly.

aiohttp bounds sizes of heads and bodies, but not the time that they may take. A head has to be there within seconds of
its first byte (and the first head within seconds of the connection), a body within seconds of its head. Who is slower
is cut off without an answer: he would read it slowly, too. Made by ``server``, one for each listener.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler


@dataclass(frozen=True, slots=True)
class Patience:
    """What a client may take of us."""

    connections: int = 1000
    """Open at once; each costs about 50 KiB. One more is closed at once. API servers and agents keep a few each."""
    handshake_seconds: float = 5.0
    head_seconds: float = 5.0
    body_seconds: float = 10.0
    """3 MiB in this time is a slow network already; the API server gives up after 5 seconds anyway."""
    idle_seconds: float = 120.0
    """An API server drops idle connections after 90 seconds: it should be the one that does, for a request that meets
    a connection that is being closed fails."""


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

    def __call__(self) -> asyncio.Protocol:
        """The protocol of a new connection."""
        return _Watched(self, self._accept())

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


class _Watched(asyncio.Protocol):
    """One connection: hands everything on, and looks at the clock."""

    def __init__(self, gate: Gate, handler: RequestHandler) -> None:
        self._gate = gate
        self._handler = handler
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._awaits_head = True
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._gate.open) >= self._gate.patience.connections:
            self._refused = True
            self._gate.on_refused("connections")
            self._transport.abort()
            return
        self._gate.open[self._handler] = self
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
        if not self._refused:
            self._gate.open.pop(self._handler, None)
            self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        self._handler.pause_writing()

    def resume_writing(self) -> None:
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
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._cut, what)

    def _disarm(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self, what: str) -> None:
        self._deadline = None
        self._gate.on_refused(f"slow-{what}")
        if self._transport:
            self._transport.abort()
