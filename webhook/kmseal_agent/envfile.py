"""The env file of a secret: ``NAME='value'`` lines, as the kubelet reads them for ``fileKeyRef``.

Between the quotes everything is literal, line breaks too; there is no escape. So some values have no form at all, and
they are refused here by their names, before the kubelet fails without saying why or hands over another value. Pure:
called by ``content``.
"""

import re
from collections.abc import Mapping
from typing import Final

from kmseal_agent.errors import Terminal

_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_LONGEST_LINE: Final = 65_535
"""Bytes: the kubelet reads through a buffer of 64 KiB, which must also hold the end of the line."""
_LONGEST_VARIABLE: Final = 131_072
"""Bytes of ``NAME=value`` and its final NUL: what Linux takes as one string of an environment (MAX_ARG_STRLEN)."""
REMEDY: Final = "deliver this secret as files: kmseal.dev/as: files"


def env_text(secret: str, values: Mapping[str, bytes]) -> bytes:
    """The whole file, the variables in the order of their names.

    Raises :class:`Terminal` with the name of the value that cannot be expressed.
    """
    return b"".join(_line(secret, name, values[name]) for name in sorted(values))


def _line(secret: str, name: str, value: bytes) -> bytes:
    line = b"%s='%s'\n" % (name.encode(), value)
    obstacle = _obstacle(name, value, line)
    if obstacle:
        message = f"cannot be an environment variable: {obstacle}"
        raise Terminal("NotAVariable", message, field=f"{secret}/{name}", remedy=REMEDY)
    return line


def _obstacle(name: str, value: bytes, line: bytes) -> str:
    """Why the value has no form, or nothing."""
    if not _NAME.fullmatch(name):
        return "its name is not one of a variable"
    if not value:
        return "it is empty, which counts as missing"
    if b"'" in value:
        return "it contains a single quote"
    if b"\0" in value:
        return "it contains a NUL"
    if b"\r\n" in value:
        return "it contains a carriage return before a line break, which would be lost"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8"
    if max(map(len, line.split(b"\n"))) > _LONGEST_LINE:
        return "one of its lines is longer than 64 KiB"
    if len(name) + 1 + len(value) + 1 > _LONGEST_VARIABLE:
        return "it is longer than 128 KiB"
    return ""
