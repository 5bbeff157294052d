"""Reading ``.env`` files: the names and values that docker compose would see, without interpolation.

Used by ``sources``. A line is ``NAME=VALUE``, with an optional ``export`` in front; ``#`` begins a comment at the start
of a line and after white space. Single quotes keep everything as it is; double quotes know the escapes of n, r, t, the
quotation mark, the backslash and the dollar sign; both may span lines. A dollar sign alone has no meaning: a secret
often holds one. Errors name the line and nothing of its text, because any piece of a broken line may be a piece of a
secret.
"""

import re
from typing import Final

from kmseal.errors import Malformed
from kmseal.redacted import Redacted

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_EXPORT: Final = re.compile(r"export[ \t]+")
_COMMENT: Final = re.compile(r"[ \t]+#.*")
_DOUBLE_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SINGLE_QUOTED: Final = re.compile(r"'([^']*)'")
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


def parse(raw: bytes) -> dict[str, Redacted]:
    """Names and values in the file's order. Raises Malformed (EnvFile) with the number of the line."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _wrong(raw[: error.start].count(b"\n"), "is not UTF-8 text", "save the file as UTF-8") from None
    text = text.replace("\r\n", "\n")
    values: dict[str, Redacted] = {}
    lines: dict[str, int] = {}
    position = 0
    while position < len(text):
        number = text.count("\n", 0, position)
        end = text.find("\n", position)
        end = len(text) if end < 0 else end
        line = text[position:end]
        stripped = line.lstrip()
        if not stripped or stripped.startswith("#"):
            position = end + 1
            continue
        start = position + len(line) - len(stripped)
        if export := _EXPORT.match(text, start, end):
            start = export.end()
        name, equals, rest = text[start:end].partition("=")
        if not equals:
            raise _wrong(number, "is not of the form NAME=VALUE", "write the value out; none is taken from elsewhere")
        if not _NAME.fullmatch(name.rstrip()):
            raise _wrong(number, "has a name that is not one of an environment variable", "correct the name")
        name = name.rstrip()
        if name in values:
            raise _wrong(number, f"repeats the name of line {lines[name] + 1}", "remove one of the two")
        lines[name] = number
        value, position = _value(text, end - len(rest), end, number)
        values[name] = Redacted(value.encode())
    return values


def write(values: dict[str, Redacted]) -> str:
    """The text that :func:`parse` reads as ``values``.

    Raises Malformed (EnvFile) for a name or a value that an environment variable cannot have.
    """
    lines = []
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise _cannot(name, "is not the name of an environment variable")
        try:
            text = value.reveal().decode("utf-8")
        except UnicodeDecodeError:
            raise _cannot(name, "is not UTF-8 text") from None
        if "\0" in text:
            raise _cannot(name, "has a zero byte")
        lines.append(f"{name}={_quoted(text)}\n")
    return "".join(lines)


def _value(text: str, start: int, end: int, number: int) -> tuple[str, int]:
    """A value and the position behind its line."""
    unquoted = text[start:end]
    quote = unquoted.lstrip(" \t")[:1]
    if quote not in ("'", '"'):
        return _COMMENT.sub("", unquoted, count=1).strip(" \t"), end + 1
    start = text.index(quote, start)
    match = (_SINGLE_QUOTED if quote == "'" else _DOUBLE_QUOTED).match(text, start)
    if match is None:
        raise _wrong(number, "opens a quotation mark that is never closed", "close it, or escape the one inside")
    end = text.find("\n", match.end())
    end = len(text) if end < 0 else end
    rest = text[match.end() : end]
    if rest.strip() and not _COMMENT.match(rest):
        raise _wrong(number, "has text behind the closing quotation mark", "put the whole value in quotes")
    value = match[1]
    if quote == '"':
        value = _ESCAPE.sub(lambda escape: _ESCAPES.get(escape[1], escape[0]), value)
    return value, end + 1


def _quoted(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=-]*", text):
        return text
    if "'" not in text and "\r" not in text:
        return f"'{text}'"
    escaped = {"\\": "\\\\", '"': '\\"', "$": "\\$", "\r": "\\r"}
    return '"' + "".join(escaped.get(character, character) for character in text) + '"'


def _wrong(number: int, message: str, remedy: str) -> Malformed:
    return Malformed(message, field=f"line {number + 1}", reason="EnvFile", remedy=remedy)


def _cannot(name: str, message: str) -> Malformed:
    return Malformed(message, field=name, reason="EnvFile", remedy="choose -o yaml or -o json")
