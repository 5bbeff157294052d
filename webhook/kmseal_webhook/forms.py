"""The forms of single annotation values: lists, modes, directories, times, hooks, and lists of other names.

Called by ``annotations``, once for each annotation. Every refusal is Malformed with the annotation, the value in quotes
(what these annotations say is no secret) and what to write instead. It must not know what an annotation is for.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from heapq import nsmallest
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

from kmseal.envelope import require_value_name, shorten
from kmseal.errors import Malformed

PATH_CHARS_MAX: Final = 1024
COMPARED_CHARS_MAX: Final = 63
"""As a name of Kubernetes has at the most where it is a label."""
COMPARED_MAX: Final = 64
LISTED_MAX: Final = 8
REFRESH_MIN: Final = 30
REFRESH_MAX: Final = 24 * 3600
SIGNAL: Final = "signal:"
SIGNALS: Final = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH")
VARIABLE: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*", re.ASCII)
"""What can be the name of an environment variable that comes from an env file (Kubernetes 1.35)."""

_MODE: Final = re.compile(r"0[0-7]{3}", re.ASCII)
_TIME: Final = re.compile(r"([1-9][0-9]{0,4})([smh])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
_KERNEL: Final = ("/proc", "/sys", "/dev")
_URL: Final = re.compile(r"http://[!-~]{1,1024}", re.ASCII)
_PORT: Final = re.compile(r"(?:127\.0\.0\.1|localhost)(?::([1-9][0-9]{0,4}))?", re.ASCII)
_PROCESS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


def refused(field: str, message: str, remedy: str, *, reason: str = "Annotation") -> Malformed:
    """The error about one annotation."""
    return Malformed(message, field=field, reason=reason, remedy=remedy)


def nearest(name: str, known: Sequence[str]) -> str:
    """What somebody who wrote ``name`` may have meant, as the end of a remedy; empty where nothing is like it.

    Comparing takes time by the product of the lengths, and whoever writes a pod decides both names: so only short names
    are compared, and of many only those of about the same length.
    """
    if len(name) > COMPARED_CHARS_MAX:
        return ""
    short = (other for other in known if len(other) <= COMPARED_CHARS_MAX)
    near = nsmallest(COMPARED_MAX, short, key=lambda other: abs(len(other) - len(name)))
    found = get_close_matches(name, near, n=1)
    return f"; did you mean {shorten(found[0])}?" if found else ""


def listed(names: Sequence[str]) -> str:
    """Names in quotes, for a message: the first of many."""
    more = len(names) - LISTED_MAX
    return ", ".join(map(shorten, names[:LISTED_MAX])) + (f" and {more} more" if more > 0 else "")


def read_list(text: str, field: str, *, what: str, most: int) -> tuple[str, ...]:
    """Names separated by commas, in their order, none of them twice.

    :param what: what the items are, in the plural
    """
    items = tuple(item.strip() for item in text.split(","))
    if "" in items:
        raise refused(
            field,
            f"{shorten(text)} names nothing" if not any(items) else f"{shorten(text)} has an empty item",
            f"write one or more {what}, separated by commas",
        )
    if len(items) > most:
        raise refused(field, f"names {len(items)} {what}; at most {most} are possible", "name fewer")
    for index, item in enumerate(items):
        if item in items[:index]:
            raise refused(field, f"{shorten(text)} names {shorten(item)} twice", "remove one of the two")
    return items


def read_mode(text: str, field: str) -> int:
    """The permissions of files."""
    if not _MODE.fullmatch(text):
        raise refused(field, f"{shorten(text)} is not an octal mode", 'write it with four digits in quotes, as "0440"')
    mode = int(text, 8)
    if mode < 0o400:
        raise refused(field, f"{shorten(text)} forbids the owner to read", 'write "0400" or more')
    if mode & 0o002:
        raise refused(
            field, f"{shorten(text)} lets everybody write", f'write "{mode & ~0o002:04o}": others may read at the most'
        )
    return mode


def read_directory(text: str, field: str) -> str:
    """An absolute directory, written in the one way that compares equal to itself."""
    remedy = "write it as /run/secrets/app"
    if not text.startswith("/"):
        raise refused(field, f"{shorten(text)} is not an absolute path", remedy)
    if len(text) > PATH_CHARS_MAX:
        raise refused(field, f"has more than {PATH_CHARS_MAX} characters", "shorten it")
    if ":" in text or not text.isprintable():
        raise refused(field, f"{shorten(text)} has a character that a mount cannot have", remedy)
    parts = text.split("/")[1:]
    if ".." in parts:
        raise refused(field, f'{shorten(text)} goes up by ".."', remedy)
    plain = "/" + "/".join(part for part in parts if part not in ("", "."))
    if plain == "/":
        raise refused(field, f"{shorten(text)} would cover the whole file system of the container", remedy)
    if plain != text:
        raise refused(field, f"{shorten(text)} has parts that mean nothing", f"write it as {plain}")
    for root in _KERNEL:
        if PurePosixPath(text).is_relative_to(root):
            raise refused(field, f"{shorten(text)} is under {root}, which belongs to the kernel", remedy)
    return text


def overlap(one: str, other: str) -> bool:
    """Whether two absolute directories are the same, or one is inside the other."""
    one, other = _comparable(one), _comparable(other)
    return one.startswith(other) or other.startswith(one)


def _comparable(path: str) -> str:
    plain = f"/{path.strip('/')}/".replace("//", "/")
    # A link to /run in nearly every image.
    return plain.removeprefix("/var") if plain.startswith("/var/run/") else plain


def read_refresh(text: str, field: str) -> int | None:
    """Seconds between two refreshes; None for off."""
    if text == "off":
        return None
    remedy = "write off, or a time from 30s to 24h, as 5m"
    if not (match := _TIME.fullmatch(text)):
        raise refused(field, f"{shorten(text)} is not a time", remedy)
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not REFRESH_MIN <= seconds <= REFRESH_MAX:
        raise refused(field, f"{shorten(text)} is not between 30s and 24h", remedy)
    return seconds


def read_reload(text: str, field: str) -> str:
    """What to do after a refresh: an HTTP address of the pod itself, or a signal for a process of it."""
    if text.startswith(SIGNAL):
        name, colon, process = text.removeprefix(SIGNAL).partition(":")
        if name not in SIGNALS:
            remedy = f"write signal:HUP:<process>; possible are {', '.join(SIGNALS)}"
            raise refused(field, f"{shorten(name)} is not a signal that can be sent", remedy)
        if not colon or not _PROCESS.fullmatch(process):
            remedy = f"write signal:{name}:<process>, with the name of the program as ps shows it"
            raise refused(field, f"{shorten(text)} names no process", remedy)
        return text
    remedy = "write http://127.0.0.1:<port>/<path> or signal:<name>:<process>"
    if not _URL.fullmatch(text):
        raise refused(field, f"{shorten(text)} is neither an http:// address nor a signal", remedy)
    address = urlsplit(text)
    if not (match := _PORT.fullmatch(address.netloc)):
        # Anywhere else, it would make every pod with the annotation a client of whatever the address names.
        raise refused(field, f"{shorten(text)} does not name this pod", remedy)
    if int(match[1] or 80) > 65_535:
        raise refused(field, f"{shorten(text)} has a port that does not exist", remedy)
    if not address.path or "#" in text:
        raise refused(field, f"{shorten(text)} needs a path, and no fragment", remedy)
    return text


def read_names(text: str, field: str, *, variables: bool) -> dict[str, str]:
    """Other names for values, ``value=NAME, value=NAME``, by the value's own.

    :param variables: whether the names must do for environment variables as well
    """
    names: dict[str, str] = {}
    for item in read_list(text, field, what="pairs as value=NAME", most=512):
        value, equals, name = (part.strip() for part in item.partition("="))
        if not equals:
            raise refused(field, f"{shorten(item)} has no =", "write value=NAME, value=NAME")
        for part in (value, name):
            try:
                require_value_name(part)
            except Malformed as error:
                raise refused(field, f"{shorten(part)} cannot be the name of a value", error.remedy) from None
        if variables and not VARIABLE.fullmatch(name):
            raise refused(
                field, f"{shorten(name)} cannot be the name of an environment variable", "let it begin with a letter"
            )
        if value in names:
            raise refused(field, f"{shorten(value)} gets two names", "remove one of the two")
        if name in names.values():
            raise refused(field, f"{shorten(name)} is the name of two values", "choose another for one of them")
        names[value] = name
    return names
