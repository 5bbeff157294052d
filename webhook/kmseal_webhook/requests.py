"""Reads the broker's requests: the smallest thing that can be asked, and nothing beside it.

Called by ``broker`` before anything is asked of anybody. First what the head says, which costs nothing; then the body,
within a size and a time. What is not exactly of the form of docs/injection-protocol.md is refused: there are no
optional members, no second bearer, no compressed bodies (which grow), no duplicate names (of which two readers may
take different ones).
"""

import asyncio
import json
import re
from typing import Any, Final

from aiohttp import ClientError, ClientPayloadError, web

from kmseal.envelope import require_object_name
from kmseal.errors import Malformed
from kmseal.redacted import Redacted
from kmseal_webhook.refusals import Reason, Refusal

BODY_BYTES_MAX: Final = 64 * 1024
SECRETS_MAX: Final = 16
_TOKEN: Final = re.compile(r"Bearer ([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+){2})", re.ASCII)
_TOKEN_CHARACTERS_MAX: Final = 8000


def read_token(request: web.Request) -> Redacted:
    """Checks the head of a request and takes its token; only its outward form is known then. Raises Refusal."""
    if request.method != "POST":
        raise Refusal(Reason.METHOD_NOT_ALLOWED, "only POST is answered here")
    headers = request.headers
    types, encodings = headers.getall("Content-Type", []), headers.getall("Content-Encoding", [])
    if len(types) != 1 or encodings or not _is_json(types[0]):
        raise Refusal(Reason.UNSUPPORTED_MEDIA_TYPE, "the body must be application/json, not compressed")
    if request.content_length is not None and request.content_length > BODY_BYTES_MAX:
        raise _too_large()
    if request.query_string:
        # Where it would stand in logs of proxies.
        raise Refusal(Reason.MALFORMED, "a query is not possible here")
    bearers = headers.getall("Authorization", [])
    if len(bearers) > 1:
        raise Refusal(Reason.MALFORMED, "there is more than one Authorization header")
    bearer = bearers[0] if bearers else ""
    match = _TOKEN.fullmatch(bearer) if len(bearer) <= _TOKEN_CHARACTERS_MAX else None
    if match is None:
        raise Refusal(Reason.BAD_TOKEN, "the Authorization header holds no ServiceAccount token")
    return Redacted(match[1].encode())


async def read_names(request: web.Request, seconds: float) -> tuple[str, ...]:
    """Reads the body within that time: the names that are asked for, in order. Raises Refusal."""
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    raise _too_large()
    except TimeoutError:
        raise Refusal(Reason.TOO_SLOW, f"the body did not come within {seconds:.3g} s") from None
    except (web.RequestPayloadError, ClientPayloadError):
        raise Refusal(Reason.MALFORMED, "the body's framing is broken") from None
    except (ClientError, OSError):
        raise Refusal(Reason.ABORTED, "the client left before its body was there") from None
    return parse_names(bytes(body))


def parse_names(body: bytes) -> tuple[str, ...]:
    """The names in a body. Raises Refusal with what is wrong; nothing of the body is quoted."""
    try:
        content = json.loads(body.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise _malformed("the body is not JSON in UTF-8, or repeats a member") from None
    if not isinstance(content, dict) or set(content) != {"secrets"}:
        raise _malformed('the body must be {"secrets": [names]}, and nothing else')
    names = content["secrets"]
    if not isinstance(names, list) or not 1 <= len(names) <= SECRETS_MAX:
        raise _malformed(f"secrets must be a list of 1 to {SECRETS_MAX} names")
    for name in names:
        try:
            if not isinstance(name, str):
                raise _malformed("secrets must be a list of names")
            # The names become parts of paths and of audit lines: what cannot be an object's name goes no further.
            require_object_name(name)
        except Malformed:
            raise _malformed("secrets holds what cannot be the name of an EncryptedSecret") from None
    if len(set(names)) != len(names):
        raise _malformed("secrets repeats a name")
    return tuple(names)


def _is_json(content_type: str) -> bool:
    kind, _, parameters = content_type.partition(";")
    return kind.strip().lower() == "application/json" and parameters.strip().lower() in ("", "charset=utf-8")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate member")
    return found


def _malformed(message: str) -> Refusal:
    return Refusal(Reason.MALFORMED, message)


def _too_large() -> Refusal:
    return Refusal(Reason.TOO_LARGE, f"the body is larger than {BODY_BYTES_MAX} bytes")
