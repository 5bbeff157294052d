"""A TLS port: routes, limits, and how it ends without losing a request.

``runtime`` has two, so that no pod can fill the one that API servers call; it starts them when there is a certificate
and everything that answers needs is known. Ending takes three steps: not ready any more, so that no new connection is
sent here, while whoever has one is told to close it; then no new connection is taken; then what is under way is
answered. It decides nothing about any request.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any, Final, cast

from aiohttp import web

from kmseal.errors import Misconfigured
from kmseal_webhook.admission import REVIEW_BYTES_MAX, Handler
from kmseal_webhook.gate import UNTIL_SENT, Gate, Patience
from kmseal_webhook.tls import ServingTls

_LISTENING_PART: Final = 0.5
"""Of the time for draining: how long new connections are still taken. Endpoints are updated within a second or two."""


class TlsServer:
    """One port.

    :param routes: handlers by path, each for all methods
    :param on_refused: is told why a connection was cut, in one word, for metrics
    """

    def __init__(
        self, routes: Mapping[str, Handler], tls: ServingTls, patience: Patience, *, on_refused: Callable[[str], None]
    ) -> None:
        self._routes = routes
        self._tls = tls
        self._patience = patience
        self._on_refused = on_refused
        self._runner: web.AppRunner | None = None
        self._gate: Gate | None = None
        self._listener: asyncio.Server | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.port = 0
        """Where it listens, once started."""
        self.is_draining = False
        """Whether it is about to end: then it is not ready."""

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._gate.open) if self._gate else 0

    @property
    def is_listening(self) -> bool:
        """Whether new connections are taken."""
        return self._listener is not None and self._listener.is_serving()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, the writing of its answer included."""
        return self._idle.is_set()

    async def start(self, listen: str, flag: str) -> None:
        """Binds the address ``host:port`` and serves; without a host, all addresses of IPv4 and IPv6.

        Raises Misconfigured with the flag.
        """
        # The gate needs aiohttp's server to make protocols, and the server the gate's middleware: it finds it late.
        gate = self._gate = Gate(self._accept, self._patience, on_refused=self._on_refused)
        app = web.Application(middlewares=[gate.middleware, self._count], client_max_size=REVIEW_BYTES_MAX)
        for path, handler in self._routes.items():
            app.router.add_route("*", path, handler)
        self._runner = web.AppRunner(
            app, access_log=None, keepalive_timeout=self._patience.idle_seconds, lingering_time=2.0,
            auto_decompress=False, shutdown_timeout=1.0,
        )  # fmt: skip
        await self._runner.setup()
        host, _, port = listen.rpartition(":")
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                gate, host.strip("[]") or None, int(port), ssl=self._tls.listener, backlog=1024,
                ssl_handshake_timeout=self._patience.handshake_seconds, ssl_shutdown_timeout=1.0,
            )  # fmt: skip
        except (OSError, ValueError, OverflowError):
            await self._runner.cleanup()
            raise Misconfigured(
                "nothing can be served at this address",
                field=flag,
                remedy="give a free address as host:port",
            ) from None
        self.port = int(self._listener.sockets[0].getsockname()[1])

    async def drain(self, seconds: float) -> None:
        """Ends gracefully within that time: what is under way then is cut off."""
        loop = asyncio.get_running_loop()
        self.is_draining, deadline = True, loop.time() + seconds
        await asyncio.sleep(seconds * _LISTENING_PART)
        if self._listener:
            self._listener.close()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._idle.wait()
        await self.stop()

    async def stop(self) -> None:
        """Ends at once."""
        if self._listener:
            self._listener.close()
        if self._runner:
            await self._runner.cleanup()

    def _accept(self) -> Any:
        if self._runner is None or self._runner.server is None:
            raise RuntimeError("connections are taken before the server is set up")
        return self._runner.server()

    @web.middleware
    async def _count(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        self._under_way += 1
        self._idle.clear()
        try:
            with ExitStack() as until_sent:
                request[UNTIL_SENT] = until_sent
                response = cast(web.StreamResponse, await handler(request))
                self._finish(response)
                return await self._gate.send(request, response) if self._gate else response
        except web.HTTPException as error:
            self._finish(error)
            raise
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    def _finish(self, response: web.StreamResponse) -> None:
        # Who asks for nothing that is served here keeps no connection, either; a review that says no is answered 200.
        if self.is_draining or response.status >= 400:
            response.force_close()
