"""Reads what the broker answered: a grant, or one of the errors of the contract.

Called by ``broker`` with status, Retry-After and body; pure. Only an answer in the broker's own form is believed: a
page of some proxy in between, whatever its status, is a fault, and never a reason to remove values.
"""

import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kmseal_agent.errors import AgentError, Denied, Retryable, Terminal

_DENIALS: Final = frozenset({401, 403, 404})
_LONGEST_PAUSE: Final = 3600.0
"""Seconds: a longer Retry-After is a mistake, and would look like an agent that hangs."""
_REASON: Final = re.compile(r"[A-Z][A-Za-z]{1,63}")


class Grant:
    """The values of every secret asked for, by secret and name, and the seconds for which they may be kept."""

    __slots__ = ("lifetime", "secrets")

    def __init__(self, lifetime: float, secrets: Mapping[str, Mapping[str, bytes]]) -> None:
        self.lifetime: Final = lifetime
        self.secrets: Final = secrets

    def __repr__(self) -> str:
        return "Grant(…)"


def read_answer(status: int, retry_after: str | None, body: bytes, *, asked: Sequence[str]) -> Grant:
    """The grant.

    Raises :class:`Retryable`, :class:`Denied` or :class:`Terminal`.
    """
    if status == 200:
        try:
            return _grant(_decode(body), asked)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Without the cause: its text quotes the answer.
            raise Retryable("AnswerUnreadable", "the broker's grant cannot be read") from None
    raise _refusal(status, _seconds(retry_after), body)


def _grant(answer: Any, asked: Sequence[str]) -> Grant:
    lifetime = answer["expiresInSeconds"]
    secrets = answer["secrets"]
    if type(lifetime) not in {int, float} or not 0 < lifetime < float("inf") or secrets.keys() != set(asked):
        raise ValueError
    return Grant(float(lifetime), {name: _values(secret["values"]) for name, secret in secrets.items()})


def _values(values: dict[str, str]) -> dict[str, bytes]:
    return {name: binascii.a2b_base64(text.encode("ascii"), strict_mode=True) for name, text in values.items()}


def _refusal(status: int, retry_after: float | None, body: bytes) -> AgentError:
    try:
        answer = _decode(body)
        reason, message = answer["reason"], answer["message"][:1000]
        retry, wipe = answer["retry"] is True, answer["wipe"] is True
        if not _REASON.fullmatch(reason):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Retryable(
            "UnexpectedAnswer",
            f"status {status}, not in the broker's form",
            retry_after=retry_after,
            remedy="check that nothing answers in the broker's place",
        )
    if status < 400 or status == 429 or status >= 500 or retry:
        return Retryable(reason, message, retry_after=retry_after)
    if status in _DENIALS:
        return Denied(reason, message, wipe=wipe)
    return Terminal(reason, message)


def _decode(body: bytes) -> Any:
    return json.loads(body.decode())


def _seconds(header: str | None) -> float | None:
    """Seconds only: the broker sends no dates, and the pod's clock may be wrong."""
    text = (header or "").strip()
    return min(float(text), _LONGEST_PAUSE) if text.isascii() and text.isdigit() else None
