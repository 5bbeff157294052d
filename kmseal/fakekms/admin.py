"""The switches of a running fake over HTTP, on a loopback port of their own, apart from what clients see.

All bodies are JSON; changes need ``Content-Type: application/json``, and the Host must be this machine, so that no web
page can reach them. There is no other guard: whoever can open the port owns the fake.

========================  ============================================================================================
``GET /health``           ``{"listening": [regions]}``
``GET /calls``            ``{"total": n, "actions": {action: {result: n}}}``; ``DELETE /calls`` starts again at zero
``GET /audit?last=100``   the latest audit records, oldest first
``GET /faults``           ``{number: fault}``; ``DELETE /faults`` and ``DELETE /faults/{number}`` switch off
``POST /faults``          ``{"kind": "latency", "seconds": 0.2, "actions": ["Decrypt"], "times": 5}`` switches one on;
                          members as the fields of ``faults.Fault``; answers ``{"number": n}``
``GET /quotas``           calls per second and class; ``PUT /quotas {"cryptographic": 1000}`` replaces them all
``GET /keys``             ``[{"key": arn, "state", "primaryVersion", "versions": n, "aliases": [names]}]``
``POST /keys``            ``{"region"?, "alias"?}`` creates one; answers ``{"key": arn}``
``POST /rotate``          ``{"key": arn}`` makes a new primary version; answers ``{"keyVersionId": id}``
``POST /enable``          ``{"key": arn}``, and ``/disable``
``POST /alias``           ``{"alias": "alias/x", "key": arn}`` points the alias to the key
``POST /policy``          ``{"identity": name, "actions": [patterns], "keys"?: [patterns]}``
``POST /stop``            ``{"region"?}`` closes the listeners; ``/start`` opens them on the same ports
========================  ============================================================================================
"""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import asdict, fields
from typing import Any, Final

from aiohttp import web

from kmseal.fakekms.faults import Fault, FaultKind
from kmseal.fakekms.quotas import QuotaClass
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.server import FakeKms

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_FAULT_FIELDS: Final = {item.name for item in fields(Fault)}


class _BadRequest(Exception):
    """The body is not what the table above says."""


class AdminApi:
    """The handlers over one fake. :meth:`application` is what a listener serves."""

    def __init__(self, kms: FakeKms) -> None:
        self._kms = kms

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_guard])
        application.add_routes(
            [
                web.get("/health", self.health),
                web.get("/calls", self.calls),
                web.delete("/calls", self.clear_calls),
                web.get("/audit", self.audit),
                web.get("/faults", self.faults),
                web.post("/faults", self.add_fault),
                web.delete("/faults", self.clear_faults),
                web.delete("/faults/{number:[0-9]+}", self.remove_fault),
                web.get("/quotas", self.quotas),
                web.put("/quotas", self.set_quotas),
                web.get("/keys", self.keys),
                web.post("/keys", self.create_key),
                web.post("/rotate", self.rotate),
                web.post("/enable", self.enable),
                web.post("/disable", self.disable),
                web.post("/alias", self.move_alias),
                web.post("/policy", self.set_policy),
                web.post("/stop", self.stop),
                web.post("/start", self.start),
            ]
        )
        return application

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response({"listening": list(self._kms.listening)})

    async def calls(self, _: web.Request) -> web.Response:
        return web.json_response({"total": self._kms.calls.total, "actions": self._kms.calls.by_action()})

    async def clear_calls(self, _: web.Request) -> web.Response:
        self._kms.calls.clear()
        return web.json_response({})

    async def audit(self, request: web.Request) -> web.Response:
        last = request.query.get("last", "100")
        if not (last.isascii() and last.isdecimal()):
            raise _BadRequest("last: not a number")
        records = list(self._kms.audit)
        return web.json_response([asdict(record) for record in records[max(0, len(records) - int(last)) :]])

    async def faults(self, _: web.Request) -> web.Response:
        return web.json_response({str(number): asdict(fault) for number, fault in self._kms.faults.active.items()})

    async def add_fault(self, request: web.Request) -> web.Response:
        return web.json_response({"number": self._kms.faults.add(_fault(await _body(request)))})

    async def clear_faults(self, _: web.Request) -> web.Response:
        self._kms.faults.clear()
        return web.json_response({})

    async def remove_fault(self, request: web.Request) -> web.Response:
        removed = self._kms.faults.remove(int(request.match_info["number"]))
        return web.json_response({"removed": removed}, status=200 if removed else 404)

    async def quotas(self, _: web.Request) -> web.Response:
        return web.json_response({which.value: limit for which, limit in self._kms.quotas.limits.items()})

    async def set_quotas(self, request: web.Request) -> web.Response:
        body = await _body(request)
        try:
            limits = {QuotaClass(name): float(limit) for name, limit in body.items()}
        except (ValueError, TypeError):
            raise _BadRequest(f"not numbers for some of: {', '.join(QuotaClass)}") from None
        if any(limit <= 0 for limit in limits.values()):
            raise _BadRequest("a limit is above zero; leave a class out to lift its limit")
        self._kms.quotas.limit(limits)
        return web.json_response({})

    async def keys(self, _: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    "key": key.arn,
                    "state": key.state.value,
                    "primaryVersion": key.primary.version_id,
                    "versions": len(key.versions),
                    "aliases": [alias.name for alias in self._kms.store.aliases(key.region, key.key_id)],
                }
                for key in self._kms.store.keys_of()
            ]
        )

    async def create_key(self, request: web.Request) -> web.Response:
        body = await _body(request)
        region = self._region(body)
        return web.json_response({"key": self._kms.create_key(_text(body, "alias", needed=False), region)})

    async def rotate(self, request: web.Request) -> web.Response:
        return web.json_response({"keyVersionId": self._kms.rotate(_text(await _body(request), "key") or "")})

    async def enable(self, request: web.Request) -> web.Response:
        self._kms.enable(_text(await _body(request), "key") or "")
        return web.json_response({})

    async def disable(self, request: web.Request) -> web.Response:
        self._kms.disable(_text(await _body(request), "key") or "")
        return web.json_response({})

    async def move_alias(self, request: web.Request) -> web.Response:
        body = await _body(request)
        self._kms.move_alias(_text(body, "alias") or "", _text(body, "key") or "")
        return web.json_response({})

    async def set_policy(self, request: web.Request) -> web.Response:
        body = await _body(request)
        identity = self._kms.identities.named(_text(body, "identity") or "")
        if identity is None:
            raise _BadRequest("identity: there is none of that name")
        self._kms.set_policy(identity, _texts(body, "actions"), _texts(body, "keys") if "keys" in body else ("*",))
        return web.json_response({})

    async def stop(self, request: web.Request) -> web.Response:
        await self._kms.stop_listening(self._region(await _body(request)))
        return await self.health(request)

    async def start(self, request: web.Request) -> web.Response:
        await self._kms.start_listening(self._region(await _body(request)))
        return await self.health(request)

    def _region(self, body: dict[str, Any]) -> str | None:
        region = _text(body, "region", needed=False)
        if region is not None and region not in self._kms.regions:
            raise _BadRequest(f"region: not one of {', '.join(self._kms.regions)}")
        return region


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuses what does not come from this machine on purpose, and turns errors into JSON."""
    if not _is_loopback(request.host):
        return web.json_response({"error": "the Host is not this machine"}, status=403)
    if request.method in {"POST", "PUT"} and request.content_type != "application/json":
        return web.json_response({"error": "the Content-Type is not application/json"}, status=415)
    try:
        return await handler(request)
    except _BadRequest as error:
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


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise _BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise _BadRequest("the body is not a JSON object")
    return body


def _text(body: dict[str, Any], name: str, *, needed: bool = True) -> str | None:
    value = body.get(name)
    if value is None and not needed:
        return None
    if not isinstance(value, str) or not value:
        raise _BadRequest(f"{name}: not a text")
    return value


def _texts(body: dict[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _BadRequest(f"{name}: not a list of texts")
    return tuple(value)


def _fault(body: dict[str, Any]) -> Fault:
    """A fault out of its JSON. Raises _BadRequest, naming the member."""
    unknown = sorted(set(body) - _FAULT_FIELDS)
    if unknown:
        raise _BadRequest(f"{unknown[0]}: unknown; known are {', '.join(sorted(_FAULT_FIELDS))}")
    kind = body.get("kind")
    if kind not in list(FaultKind):
        raise _BadRequest(f"kind: not one of {', '.join(FaultKind)}")
    values: dict[str, Any] = dict(body, kind=FaultKind(kind))
    for name in ("actions", "regions"):
        if name in values:
            values[name] = _texts(values, name)
    for name in ("times", "status", "retry_after"):
        if values.get(name) is not None and (isinstance(values[name], bool) or not isinstance(values[name], int)):
            raise _BadRequest(f"{name}: not a whole number")
    for name in ("probability", "seconds"):
        if name in values and (isinstance(values[name], bool) or not isinstance(values[name], int | float)):
            raise _BadRequest(f"{name}: not a number")
    for name in ("code", "message"):
        if name in values:
            _text(values, name)
    return Fault(**values)
