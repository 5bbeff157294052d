"""One gateway on one port: the shared one of a region, or the one that an instance has of its own.

``server`` makes them and keeps them. A gateway knows sockets and TLS; what it serves is ``wire``'s. It keeps its port
when it is closed and opened again, so that an outage ends where it began.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from kmseal.errors import Misconfigured
from kmseal.fakekms.wire import LINE_LIMIT, Wire, quiet_logger

if TYPE_CHECKING:
    from pathlib import Path

    from kmseal.fakekms.certificates import TlsFiles


@dataclass(slots=True)
class Gateway:
    """A way in.

    :param port: 0 until a free one has been found
    :param tls: finds the certificate when it is first opened; None for plain HTTP
    """

    wire: Wire
    host: str
    port: int
    tls: "Callable[[], TlsFiles] | None"
    _files: "TlsFiles | None" = None
    _open: tuple[asyncio.Server, web.Server] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The region, or the id of the instance."""
        return self.wire.instance or self.wire.region

    @property
    def endpoint(self) -> str:
        """``host:port``; known from the first opening on."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def ca_file(self) -> "Path":
        """The authority that clients have to trust. Raises Misconfigured without TLS."""
        if self._files is None:
            raise Misconfigured("the fake KMS has no certificate authority: it speaks plain HTTP, or has not started")
        return self._files.ca_file

    @property
    def is_open(self) -> bool:
        return self._open is not None

    async def open(self) -> None:
        """Listens, if it does not yet. Raises Misconfigured when the port or the certificate cannot be had."""
        if self._open is not None:
            return
        try:
            if self.tls is not None:
                self._files = self._files or self.tls()
            context = None if self._files is None else self._files.server_context()
        except (OSError, ValueError):
            # ssl.SSLError is an OSError; what these say may quote the file.
            raise Misconfigured(
                "the certificates cannot be made or read",
                reason="Certificate",
                remedy="name a folder that is writable, or PEM files that belong together",
            ) from None
        http = web.Server(
            self.wire.handle,
            access_log=None,
            logger=quiet_logger,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
        )
        try:
            listener = await asyncio.get_running_loop().create_server(
                http, self.host, self.port, ssl=context, family=socket.AF_UNSPEC, reuse_address=True
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot listen on {self.host}:{self.port} ({os.strerror(error.errno or 0)})",
                reason="Listen",
                remedy="choose another port, or 0 for a free one",
            ) from None
        self.port = listener.sockets[0].getsockname()[1]
        self._open = (listener, http)

    async def close(self) -> None:
        """Stops listening and breaks its connections: that is what an outage looks like."""
        if self._open is None:
            return
        (listener, http), self._open = self._open, None
        listener.close()
        # Established connections go at once, answered or not.
        for connection in http.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await http.shutdown(timeout=0.05)
        await listener.wait_closed()
        # The loop closes the sockets of aborted connections in its next round.
        await asyncio.sleep(0)
