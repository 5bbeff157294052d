"""What one secret becomes in the pod: its files and its env file, in memory, checked before anything is written.

Called by ``rounds`` with the values of a grant; pure. Gives values the names that the pod asked for, and refuses names
that could leave the secret's folder.
"""

import re
from collections.abc import Mapping
from typing import Final

from kmseal_agent.config import Wanted
from kmseal_agent.envfile import env_text
from kmseal_agent.errors import Terminal

_FILE_NAME: Final = re.compile(r"(?!\.\.|\.\Z)[-._a-zA-Z0-9]{1,253}")
"""As the keys of a Secret; names that begin with two dots are the layout's own."""


class Content:
    """The files (None where the pod wants none) and the text of the env file (None likewise) of one secret."""

    __slots__ = ("env", "files")

    def __init__(self, files: Mapping[str, bytes] | None, env: bytes | None) -> None:
        self.files: Final = files
        self.env: Final = env

    def __repr__(self) -> str:
        return "Content(…)"


def prepare(wanted: Wanted, values: Mapping[str, bytes]) -> Content:
    """Raises :class:`Terminal`, naming the value, where the pod cannot be given what it asks for."""
    renamed = _rename(wanted, values)
    if wanted.files:
        for name in renamed:
            if not _FILE_NAME.fullmatch(name):
                raise Terminal(
                    "BadName", "is not a name for a file", field=f"{wanted.name}/{name[:253]!a}",
                    remedy=f"give it another one: kmseal.dev/names.{wanted.name}",
                )  # fmt: skip
    return Content(renamed if wanted.files else None, env_text(wanted.name, renamed) if wanted.env else None)


def _rename(wanted: Wanted, values: Mapping[str, bytes]) -> Mapping[str, bytes]:
    if wanted.names is None:
        return values
    for value in wanted.names:
        if value not in values:
            raise Terminal(
                "NoSuchValue", "the secret has no such value", field=f"{wanted.name}/{value}",
                remedy=f"correct kmseal.dev/names.{wanted.name} or add the value",
            )  # fmt: skip
    return {name: values[value] for value, name in wanted.names.items()}
