"""HTTP of one gateway: aiohttp in, ``Service`` in the middle, faults on the way out.

``gateways`` makes one :class:`Wire` for each listener and gives its :meth:`Wire.handle` to aiohttp's low-level server,
which spares the routing that this API has no use for. Everything a client sends travels in the query string, plaintexts
too: nothing here may log a path, a query or a parser's message.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from kmseal.fakekms.faults import Fault, FaultKind, Faults
from kmseal.fakekms.requests import Request
from kmseal.fakekms.service import Answer, Service, action_of
from kmseal.fakekms.targets import targets

LINE_LIMIT: Final = 65536
"""Longest request line and header. aiohttp's own limit is too small for Encrypt, whose plaintext is in the line."""

_HTML: Final = b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
_log: Final = logging.getLogger("kmseal.fakekms")


class _QuietFilter(logging.Filter):
    """Strips what aiohttp's parser says of a bad request: it quotes the request line."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        record.msg, record.args = "a request could not be handled: %s", (kind.__name__ if kind else "unknown",)
        record.exc_info = record.exc_text = record.stack_info = None
        return True


quiet_logger: Final = logging.getLogger("kmseal.fakekms.http")
quiet_logger.addFilter(_QuietFilter())


@dataclass(frozen=True, slots=True)
class Wire:
    """The way in of one gateway: a region's shared one, or an instance's own. ``faults`` are those of all gateways."""

    region: str
    service: Service
    faults: Faults
    instance: str = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request, or does to it what a fault says."""
        started = time.perf_counter()
        received = await self._read(request)
        action = action_of(received)
        gateway = self.instance or self.region
        effect = self.faults.take(action, gateway, lambda: targets(received, self.service.store))
        if effect.delay:
            await asyncio.sleep(effect.delay)
        if effect.fault is not None:
            return await self._spoil(request, received, effect.fault)
        answer = self.service.answer(received)
        if _log.isEnabledFor(logging.INFO):
            milliseconds = (time.perf_counter() - started) * 1000
            _log.info(
                "%s %s %s %d %s by %s in %.1f ms",
                gateway, action, answer.result, answer.status, answer.request_id, answer.identity or "-",
                milliseconds,
            )  # fmt: skip
        return _json(answer)

    async def _read(self, request: web.BaseRequest) -> Request:
        body = await request.read() if request.body_exists else b""
        path, _, query = request.raw_path.partition("?")
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            lower = name.lower()
            headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
        return Request(request.method, path, query, headers, body, self.region, request.remote or "", self.instance)

    async def _spoil(self, request: web.BaseRequest, received: Request, fault: Fault) -> web.StreamResponse:
        match fault.kind:
            case FaultKind.ERROR:
                answer = self.service.fail(received, fault.status, fault.code, fault.message)
                return _json(replace(answer, retry_after=fault.retry_after))
            case FaultKind.BAD_GATEWAY:
                self.service.fail(received, 502, "Fault.BadGateway", "")
                return web.Response(status=502, body=_HTML, content_type="text/html")
            case FaultKind.HTML:
                self.service.fail(received, 200, "Fault.Html", "")
                return web.Response(status=200, body=_HTML, content_type="text/html")
            case FaultKind.RESET:
                self.service.fail(received, 0, "Fault.Reset", "")
                return _reset(request)
            case FaultKind.LOST:
                self.service.answer(received)
                return _reset(request)
            case FaultKind.TRUNCATE:
                content = self.service.answer(received).content
                return web.Response(body=content[: len(content) // 2], content_type="application/json")
            case FaultKind.DRIP:
                return await _drip(request, self.service.answer(received), fault.seconds)
            case FaultKind.LATENCY:
                raise AssertionError("a latency is a delay, not a fault of its own")


def _json(answer: Answer) -> web.Response:
    headers = {"Content-Type": "application/json;charset=utf-8", "x-acs-request-id": answer.request_id}
    if answer.retry_after is not None:
        headers["x-acs-retry-after"] = str(answer.retry_after)
    return web.Response(status=answer.status, body=answer.content, headers=headers)


def _reset(request: web.BaseRequest) -> web.Response:
    if request.transport is not None:
        # Aborting closes without a farewell: the client sees a reset, not an empty answer.
        request.transport.abort()
    return web.Response()


async def _drip(request: web.BaseRequest, answer: Answer, seconds: float) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"Content-Type": "application/json;charset=utf-8"})
    response.content_length = len(answer.content)
    await response.prepare(request)
    for position in range(len(answer.content)):
        await response.write(answer.content[position : position + 1])
        await asyncio.sleep(seconds)
    await response.write_eof()
    return response
