"""Reads env files by the kubelet's rules for ``fileKeyRef``, as they were found by trying them on Kubernetes 1.37.

``kubelet`` starts containers with it. It shares nothing with the agent, which writes these files: a mistake about the
rules that both made would go unseen.
"""

import re
from typing import Final

_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*", re.ASCII)
_LONGEST_LINE: Final = 64 * 1024


class EnvFileError(Exception):
    """The variable cannot be had of this file."""


def find_variable(content: bytes, key: str) -> str:
    """The value of a variable. Whatever stands behind it in the file is not looked at.

    Raises EnvFileError where it is missing or empty, or where a line before it is not of the form ``NAME='value'``.
    """
    lines = iter(content.split(b"\n"))
    for first in lines:
        line = _plain(first)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, rest = line.partition("=")
        if not equals or not _NAME.fullmatch(name) or not rest.startswith("'"):
            raise EnvFileError("a line is not of the form NAME='value'")
        value = rest[1:]
        while "'" not in value:
            following = next(lines, None)
            if following is None:
                raise EnvFileError(f"the quote of {name} is never closed")
            value += "\n" + _plain(following)
        value, _, after = value.partition("'")
        if after.strip() and not after.lstrip().startswith("#"):
            raise EnvFileError(f"something stands behind the value of {name}")
        if name == key:
            if not value:
                break
            return value
    raise EnvFileError(f"there is no {key}")


def _plain(line: bytes) -> str:
    if len(line) >= _LONGEST_LINE:
        raise EnvFileError("a line is longer than 64 KiB")
    return line.removesuffix(b"\r").decode()
