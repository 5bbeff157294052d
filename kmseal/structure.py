"""Strict reading of JSON-like structures: every member is asked for by name and type, and what is left over is refused.

Used by ``kmseal.manifest`` (and by whatever parses a file of ours) at the border, once; inside, everything is typed. It
never quotes a value in an error, only member names: a manifest may hold a plain value where it should not.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from kmseal.envelope import shorten
from kmseal.errors import KmsealError, Malformed

_PLAIN_MEMBER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,252}", re.ASCII)


def member_path(path: str, name: str) -> str:
    """``path.name``, or ``path["na.me"]`` where the name is not a plain word."""
    if _PLAIN_MEMBER.fullmatch(name):
        return f"{path}.{name}" if path else name
    return f"{path}[{shorten(name, 253)}]"


class Fields:
    """The members of one JSON object; used as a context manager, it refuses unknown members at the end.

    ``path`` is where the object stands, as ``spec.dataKeys[0]``. All methods raise Malformed with the reason
    MissingField, WrongType or UnknownField and the full path of the field.
    """

    def __init__(self, raw: object, path: str) -> None:
        if not isinstance(raw, Mapping):
            raise _wrong_type(path, "an object", raw)
        for name in raw:
            if not isinstance(name, str):
                raise Malformed(
                    "has a member name that is not a string", field=path, reason="WrongType", remedy="quote the name"
                )
        self._raw: Mapping[str, Any] = raw
        self._path = path
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            for name in self._raw:
                if name not in self._seen:
                    raise Malformed(
                        "is not a field that this kmseal knows",
                        field=self.path(name),
                        reason="UnknownField",
                        remedy=f"remove it, or correct its name; known here: {', '.join(sorted(self._seen))}",
                    )

    @property
    def raw(self) -> Mapping[str, Any]:
        """The object itself, for a parser of its own."""
        return self._raw

    def path(self, name: str) -> str:
        """The full path of a member."""
        return member_path(self._path, name)

    def ignore(self, *names: str) -> None:
        """Accepts members that somebody else reads."""
        self._seen.update(names)

    def has(self, name: str) -> bool:
        """Whether a member is there, of whatever type."""
        return self._take(name) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """A string; required when there is no default. An explicit null counts as missing."""
        value = self._take(name)
        if value is None:
            if default is None:
                raise self._missing(name)
            return default
        if not isinstance(value, str):
            raise _wrong_type(self.path(name), "a string", value)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong_type(self.path(name), "true or false", value)
        return value

    def integer(self, name: str, default: int = 0) -> int:
        """An integer."""
        value = self._take(name)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong_type(self.path(name), "a number", value)
        return value

    def items(self, name: str, *, required: bool = False) -> list[tuple[str, Any]]:
        """The items of a list, each with its path; an absent list is empty, unless it is required."""
        value = self._take(name)
        if value is None:
            if required:
                raise self._missing(name)
            return []
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise _wrong_type(self.path(name), "a list", value)
        return [(f"{self.path(name)}[{index}]", item) for index, item in enumerate(value)]

    def texts(self, name: str, *, required: bool = False) -> dict[str, str]:
        """An object of strings; an absent one is empty, unless it is required."""
        value = self._take(name)
        if value is None:
            if required:
                raise self._missing(name)
            return {}
        with Fields(value, self.path(name)) as fields:
            return {member: fields.text(member) for member in value}

    def fields(self, name: str, *, optional: bool = False) -> "Fields":
        """A nested object; an absent optional one is empty."""
        value = self._take(name)
        if value is None:
            if not optional:
                raise self._missing(name)
            value = {}
        return Fields(value, self.path(name))

    def _take(self, name: str) -> Any:
        self._seen.add(name)
        return self._raw.get(name)

    def _missing(self, name: str) -> KmsealError:
        return Malformed("is missing", field=self.path(name), reason="MissingField", remedy="add it")


def choice(text: str, options: type[Any], path: str, reason: str) -> Any:
    """The member of the StrEnum ``options`` that ``text`` names."""
    try:
        return options(text)
    except ValueError:
        known = ", ".join(option.value for option in options)
        raise Malformed(
            f"is not one of {known}", field=path, reason=reason, remedy="correct the word; case matters"
        ) from None


def _wrong_type(path: str, wanted: str, value: object) -> Malformed:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    kind = next((name for cls, name in names.items() if isinstance(value, cls)), "something else")
    return Malformed(
        f"must be {wanted}, not {kind}",
        field=path,
        reason="WrongType",
        remedy="check the indentation, and quote texts that look like numbers",
    )
