"""One HTTP request as the fake sees it, and the typed reading of its parameters.

``wire`` builds a :class:`Request` from what arrives, tests build one by hand; ``authentication`` verifies it and the
operations read its :class:`Parameters`. Nothing here knows sockets. Parameters travel in the query and, for a few
actions, in a form body; on the wire they are all text, so the reading is strict here and nowhere else.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from kmseal.fakekms.refusals import Refusal, invalid_parameter, missing_parameter

CONTEXT_LIMIT: Final = 8192
"""Longest encryption context, in characters of its JSON text."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as received.

    :param query: the raw query string, still percent-encoded
    :param headers: names in lower case; repeated headers joined by a comma
    :param region: the region of the gateway that received it
    :param instance: the instance whose own gateway that is; empty for the shared gateway
    :param source: the client's address
    """

    method: str
    path: str
    query: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    region: str = "cn-hangzhou"
    source: str = "127.0.0.1"
    instance: str = ""

    def query_pairs(self) -> list[tuple[str, str]]:
        """The decoded parameters of the query, in the order received. Raises Refusal when it cannot be decoded."""
        return _pairs(self.query)

    def form_pairs(self) -> list[tuple[str, str]]:
        """The decoded parameters of a form body; empty for any other body."""
        if not self.body or not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return []
        try:
            return _pairs(self.body.decode())
        except UnicodeDecodeError:
            raise _unparsable() from None


def _pairs(text: str) -> list[tuple[str, str]]:
    if not text:
        return []
    try:
        return parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=512)
    except (ValueError, UnicodeDecodeError):
        raise _unparsable() from None


def _unparsable() -> Refusal:
    return Refusal(400, "ParseRequestParameterException", "The request's parameters cannot be parsed.")


class Parameters:
    """The parameters of one request, read by name and type. An empty value counts as not given."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str) -> str:
        """A text that has to be there. Raises MissingParameter."""
        value = self._values.get(name)
        if not value:
            raise missing_parameter(name)
        return value

    def optional(self, name: str, default: str = "") -> str:
        return self._values.get(name) or default

    def limited(self, name: str, limit: int) -> str:
        """An optional text of at most ``limit`` characters."""
        value = self.optional(name)
        if len(value) > limit:
            raise invalid_parameter(name, f"longer than {limit} characters")
        return value

    def boolean(self, name: str) -> bool:
        """True or False in any letter case (the SDK writes them capitalised); False when not given."""
        value = self.optional(name, "false").lower()
        if value not in {"true", "false"}:
            raise invalid_parameter(name, "neither true nor false")
        return value == "true"

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A decimal number within limits, or None when it is not given."""
        value = self.optional(name)
        if not value:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) <= 10 and least <= int(value) <= most):
            raise invalid_parameter(name, f"not a number from {least} to {most}")
        return int(value)

    def base64(self, name: str) -> bytes:
        """Bytes in base64 that have to be there."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except (binascii.Error, ValueError):
            raise invalid_parameter(name, "not base64") from None

    def json_value(self, name: str) -> object:
        """A JSON value in a parameter, or None when it is not given."""
        value = self.optional(name)
        if not value:
            return None
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            raise invalid_parameter(name, "not JSON") from None

    def context(self, name: str = "EncryptionContext") -> dict[str, str]:
        """An encryption context: a JSON object of strings, at most :data:`CONTEXT_LIMIT` characters."""
        self.limited(name, CONTEXT_LIMIT)
        value = self.json_value(name)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            raise invalid_parameter(name, "not a JSON object of strings")
        return value
