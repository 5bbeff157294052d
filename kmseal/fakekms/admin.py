"""The switches of a running fake over HTTP, on a loopback port of their own, apart from what clients see.

All bodies are JSON; changes need ``Content-Type: application/json``, and the Host must be this machine, so that no web
page can reach them. There is no other guard: whoever can open the port owns the fake. A time below is a number of
seconds or a text as ``30d``, ``12h``, ``5m``, ``90s``; a name is a region or the id of an instance.

========================== ==========================================================================================
``GET /health``            ``{"listening": [names]}``
``GET /gateways``          ``{name: {"endpoint", "caFile", "region", "listening"}}``
``POST /instances``        ``{"instance": id, "region"?}`` gives an instance a gateway of its own; answers as above
``POST /stop``             ``{"region"?}`` closes the gateway of that name, or all; ``/start`` opens
``GET /calls``             ``{"total": n, "actions": {action: {result: n}}}``; ``DELETE /calls`` starts again at zero
``GET /audit?last=100``    the latest audit records, oldest first
``GET /faults``            ``{number: fault}``; ``DELETE /faults`` and ``DELETE /faults/{number}`` switch off
``POST /faults``           ``{"kind": "latency", "seconds": 0.2, "actions": ["Decrypt"], "times": 5}`` switches one on;
                           members as the fields of ``faults.Fault``; answers ``{"number": n}``
``GET /quotas``            calls per second and class; ``PUT /quotas {"cryptographic": 1000}`` replaces them all;
                           ``"tells-when": true`` makes refusals say when to come back
``GET /keys``              ``[{"key": arn, "state", "spec", "primaryVersion", "versions", "nextRotation", "aliases"}]``
``POST /keys``             ``{"region"?, "alias"?, "spec"?, "origin"?}`` creates one; answers ``{"key": arn}``
``POST /rotate``           ``{"key": arn}`` makes a new version now; answers ``{"keyVersionId": id}``
``POST /schedule``         ``{"key": arn, "every": time}`` rotates on schedule; ``null`` no more
``POST /enable``           ``{"key": arn}``, and ``/disable``
``POST /schedule-deletion`` ``{"key": arn, "in": time}``
``POST /import-material``  ``{"key": arn, "material": base64, "expiresIn"?: time}``; ``/delete-material {"key": arn}``
``POST /alias``            ``{"alias": "alias/x", "key": arn}`` points the alias to the key
``GET /clock``             ``{"now", "offset"}`` of keys; ``POST /clock {"advance": time}`` lets time pass for them
``POST /policy``           ``{"identity": name, "actions": [patterns], "keys"?: [patterns]}``, or with ``"policy"``
                           a document as of RAM
========================== ==========================================================================================
"""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from kmseal.errors import Misconfigured
from kmseal.fakekms.admin_bodies import BadRequest, optional_text, read_body, read_fault, text
from kmseal.fakekms.admin_keys import KeySwitches
from kmseal.fakekms.gateways import Gateway
from kmseal.fakekms.quotas import QuotaClass
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.server import FakeKms

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminApi:
    """The handlers over one fake. :meth:`application` is what a listener serves."""

    def __init__(self, kms: FakeKms) -> None:
        self._kms = kms

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_guard])
        application.add_routes(
            [
                web.get("/health", self.health),
                web.get("/gateways", self.gateways),
                web.post("/instances", self.open_instance),
                web.post("/stop", self.stop),
                web.post("/start", self.start),
                web.get("/calls", self.calls),
                web.delete("/calls", self.clear_calls),
                web.get("/audit", self.audit),
                web.get("/faults", self.faults),
                web.post("/faults", self.add_fault),
                web.delete("/faults", self.clear_faults),
                web.delete("/faults/{number:[0-9]+}", self.remove_fault),
                web.get("/quotas", self.quotas),
                web.put("/quotas", self.set_quotas),
                *KeySwitches(self._kms).routes(),
            ]
        )
        return application

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"listening": list(self._kms.listening)})

    async def gateways(self, _: web.Request) -> web.Response:
        return web.json_response({name: _gateway(gateway) for name, gateway in self._kms.gateways.items()})

    async def open_instance(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        try:
            gateway = await self._kms.open_instance(text(body, "instance"), optional_text(body, "region"))
        except Misconfigured as error:
            raise BadRequest(f"instance: {error}") from None
        return web.json_response(_gateway(gateway))

    async def stop(self, request: web.Request) -> web.Response:
        await self._kms.stop_listening(self._name(await read_body(request)))
        return await self.health(request)

    async def start(self, request: web.Request) -> web.Response:
        await self._kms.start_listening(self._name(await read_body(request)))
        return await self.health(request)

    async def calls(self, _: web.Request) -> web.Response:
        return web.json_response({"total": self._kms.calls.total, "actions": self._kms.calls.by_action()})

    async def clear_calls(self, _: web.Request) -> web.Response:
        self._kms.calls.clear()
        return web.json_response({})

    async def audit(self, request: web.Request) -> web.Response:
        last = request.query.get("last", "100")
        if not (last.isascii() and last.isdecimal()):
            raise BadRequest("last: not a number")
        records = list(self._kms.audit)
        return web.json_response([asdict(record) for record in records[max(0, len(records) - int(last)) :]])

    async def faults(self, _: web.Request) -> web.Response:
        return web.json_response({str(number): asdict(fault) for number, fault in self._kms.faults.active.items()})

    async def add_fault(self, request: web.Request) -> web.Response:
        return web.json_response({"number": self._kms.faults.add(read_fault(await read_body(request)))})

    async def clear_faults(self, _: web.Request) -> web.Response:
        self._kms.faults.clear()
        return web.json_response({})

    async def remove_fault(self, request: web.Request) -> web.Response:
        removed = self._kms.faults.remove(int(request.match_info["number"]))
        return web.json_response({"removed": removed}, status=200 if removed else 404)

    async def quotas(self, _: web.Request) -> web.Response:
        body: dict[str, Any] = {which.value: limit for which, limit in self._kms.quotas.limits.items()}
        return web.json_response(body | ({"tells-when": True} if self._kms.quotas.tells_when else {}))

    async def set_quotas(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        tells_when = body.pop("tells-when", False)
        try:
            limits = {QuotaClass(name): float(limit) for name, limit in body.items()}
        except (ValueError, TypeError):
            raise BadRequest(f"not numbers for some of: {', '.join(QuotaClass)}") from None
        if any(limit <= 0 for limit in limits.values()):
            raise BadRequest("a limit is above zero; leave a class out to lift its limit")
        if not isinstance(tells_when, bool):
            raise BadRequest("tells-when: neither true nor false")
        self._kms.quotas.limit(limits, tells_when=tells_when)
        return web.json_response({})

    def _name(self, body: dict[str, Any]) -> str | None:
        name = optional_text(body, "region")
        if name is not None and name not in self._kms.gateways:
            raise BadRequest(f"region: not one of {', '.join(self._kms.gateways)}")
        return name


def _gateway(gateway: Gateway) -> dict[str, Any]:
    return {
        "endpoint": gateway.endpoint,
        "caFile": None if gateway.tls is None else str(gateway.ca_file),
        "region": gateway.wire.region,
        "listening": gateway.is_open,
    }


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuses what does not come from this machine on purpose, and turns errors into JSON."""
    if not _is_loopback(request.host):
        return web.json_response({"error": "the Host is not this machine"}, status=403)
    if request.method in {"POST", "PUT"} and request.content_type != "application/json":
        return web.json_response({"error": "the Content-Type is not application/json"}, status=415)
    try:
        return await handler(request)
    except BadRequest as error:
        return web.json_response({"error": str(error)}, status=400)
    except Refusal as refusal:
        return web.json_response({"error": refusal.message, "code": refusal.code}, status=refusal.status)


def _is_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
