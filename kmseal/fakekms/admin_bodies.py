"""Reading the JSON bodies of the switches: each reader names the member that is wrong.

Used by ``admin`` and ``admin_keys`` only; what a :class:`BadRequest` says goes back with status 400.
"""

import re
from dataclasses import fields
from typing import Any, Final

from aiohttp import web

from kmseal.fakekms.faults import Fault, FaultKind

_FAULT_FIELDS: Final = {item.name for item in fields(Fault)}
_DURATION: Final = re.compile(r"([0-9]{1,9})([dhms])", re.ASCII)
_UNITS: Final = {"d": 86400, "h": 3600, "m": 60, "s": 1}


class BadRequest(Exception):
    """The body is not what the table of ``admin`` says."""


async def read_body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("the body is not a JSON object")
    return body


def optional_text(body: dict[str, Any], name: str) -> str | None:
    """A text that is not empty, or None when it is not given."""
    return None if body.get(name) is None else text(body, name)


def text(body: dict[str, Any], name: str) -> str:
    """A text that is not empty."""
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{name}: not a text")
    return value


def texts(body: dict[str, Any], name: str) -> tuple[str, ...]:
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRequest(f"{name}: not a list of texts")
    return tuple(value)


def seconds(body: dict[str, Any], name: str) -> float:
    """A length of time: a number of seconds, or a text as ``30d``, ``12h``, ``5m``, ``90s``."""
    value = body.get(name)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        return float(int(match[1]) * _UNITS[match[2]])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 10**10:
        raise BadRequest(f"{name}: neither a number of seconds nor a text as 30d, 12h, 5m or 90s")
    return float(value)


def read_fault(body: dict[str, Any]) -> Fault:
    """A fault out of its JSON."""
    unknown = sorted(set(body) - _FAULT_FIELDS)
    if unknown:
        raise BadRequest(f"{unknown[0]}: unknown; known are {', '.join(sorted(_FAULT_FIELDS))}")
    kind = body.get("kind")
    if kind not in list(FaultKind):
        raise BadRequest(f"kind: not one of {', '.join(FaultKind)}")
    values: dict[str, Any] = dict(body, kind=FaultKind(kind))
    for name in ("actions", "regions", "keys"):
        if name in values:
            values[name] = texts(values, name)
    for name in ("times", "status", "retry_after"):
        if values.get(name) is not None and (isinstance(values[name], bool) or not isinstance(values[name], int)):
            raise BadRequest(f"{name}: not a whole number")
    for name in ("probability", "seconds"):
        if name in values and (isinstance(values[name], bool) or not isinstance(values[name], int | float)):
            raise BadRequest(f"{name}: not a number")
    for name in ("code", "message"):
        if name in values:
            text(values, name)
    return Fault(**values)
