"""KMSEAL_CONFIG, parsed strictly: what the webhook wrote into the pod for its agent.

Called once by ``main``. A mistake is one of the webhook's or of somebody who wrote the pod by hand: it is refused with
the member's name, and nothing is guessed.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlsplit

from kmseal_agent.errors import Misconfigured

_T = TypeVar("_T")

_SECRET: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*")
_HOST: Final = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?")
_MODE: Final = re.compile(r"0[4-7][0-7][0-7]")
_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|\Z))[^/\0]+)+")
_SIGNAL: Final = re.compile(r"signal:([A-Z][A-Z0-9]*):([^/\s:]+)")
_LOOPBACK: Final = ("127.0.0.1", "localhost")


class Address(NamedTuple):
    """Where the broker is, and the name that its certificate must carry."""

    host: str
    port: int
    server_name: str


class Wanted(NamedTuple):
    """One secret: how the pod gets it. ``names`` maps values to the names they get; None leaves all as they are."""

    name: str
    files: bool
    env: bool
    mode: int
    names: Mapping[str, str] | None


class Post(NamedTuple):
    """Reload by an empty POST to this port and path of the pod itself."""

    host: str
    port: int
    path: str


class Signal(NamedTuple):
    """Reload by a signal (``HUP``) to the processes of this name."""

    signal: str
    process: str


class Config(NamedTuple):
    """All that the agent is told. ``refresh`` is None for pods that are not refreshed; all times are in seconds."""

    address: Address
    token: str
    ca: str | None
    root: str
    deadline: float
    refresh: float | None
    reload: Post | Signal | None
    secrets: tuple[Wanted, ...]


def read_config(text: str | None) -> Config:
    """Raises :class:`Misconfigured` with the member's path."""
    if not text:
        _refuse("", "is not set", "let the webhook write the pod's containers")
    try:
        members = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        _refuse("", "is not JSON, or names a member twice")
    top = _Members("", members)
    config = Config(
        address=Address(*_address(top.text("broker")), top.matching("serverName", _HOST, "a host name")),
        token=top.matching("token", _PATH, "an absolute path"),
        ca=top.optional("ca", lambda name: top.matching(name, _PATH, "an absolute path")),
        root=top.matching("root", _PATH, "an absolute path"),
        deadline=top.number("deadlineSeconds", 1, 3600),
        refresh=top.optional("refreshSeconds", lambda name: top.number(name, 1, 86_400)),
        reload=top.optional("reload", lambda name: _reload(top.text(name))),
        secrets=_secrets(top.take("secrets", list)),
    )
    top.end()
    return config


class _Members:
    """The members of one object; every one must be taken before the end."""

    def __init__(self, path: str, members: Any) -> None:
        self._path: Final = path
        if not isinstance(members, dict):
            _refuse(path, "is not an object")
        self._left: Final[dict[str, Any]] = dict(members)

    def where(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def take(self, name: str, kind: type) -> Any:
        if name not in self._left:
            _refuse(self.where(name), "is missing")
        value = self._left.pop(name)
        if type(value) is not kind:
            _refuse(self.where(name), f"is not of the type {kind.__name__}")
        return value

    def text(self, name: str) -> str:
        value: str = self.take(name, str)
        return value

    def matching(self, name: str, pattern: re.Pattern[str], what: str) -> str:
        text = self.text(name)
        if not pattern.fullmatch(text):
            _refuse(self.where(name), f"{text[:200]!a} is not {what}")
        return text

    def number(self, name: str, least: int, most: int) -> float:
        value: int = self.take(name, int)
        if not least <= value <= most:
            _refuse(self.where(name), f"{value} is not between {least} and {most}")
        return float(value)

    def optional(self, name: str, read: Callable[[str], _T]) -> _T | None:
        return read(name) if name in self._left else None

    def end(self) -> None:
        for name in self._left:
            _refuse(self.where(name[:100]), "is not known", "use an agent of the webhook's release")


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
    except ValueError:
        _refuse("broker", "is not a URL")
    if parts.scheme != "https" or not _HOST.fullmatch(host) or url.rstrip("/") != f"https://{parts.netloc}":
        _refuse("broker", f"{url[:200]!a} is not https://HOST[:PORT]")
    if parts.username is not None:
        _refuse("broker", "carries a user name", "remove it: the token says who asks")
    return host, port


def _reload(text: str) -> Post | Signal:
    signal = _SIGNAL.fullmatch(text)
    if signal:
        return Signal(signal[1].removeprefix("SIG"), signal[2])
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or 80
    except ValueError:
        _refuse("reload", "is not a URL")
    # Another host would let a pod's author make the agent call others from inside the cluster.
    if parts.scheme != "http" or host not in _LOOPBACK or parts.username is not None or parts.fragment:
        _refuse("reload", f"{text[:200]!a} is neither http://127.0.0.1[:PORT]/PATH nor signal:NAME:PROCESS")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or not path.isprintable() or " " in path:
        _refuse("reload", "its path contains characters that a URL must escape")
    return Post(host, port, path)


def _secrets(items: list[Any]) -> tuple[Wanted, ...]:
    if not 1 <= len(items) <= 16:
        _refuse("secrets", f"has {len(items)} entries and may have 1 to 16")
    secrets = tuple(_secret(f"secrets[{index}]", item) for index, item in enumerate(items))
    if len({secret.name for secret in secrets}) < len(secrets):
        _refuse("secrets", "names a secret twice")
    return secrets


def _secret(path: str, item: Any) -> Wanted:
    members = _Members(path, item)
    wanted = Wanted(
        name=members.matching("name", _SECRET, "the name of an EncryptedSecret"),
        files=members.take("files", bool),
        env=members.take("env", bool),
        mode=int(members.matching("mode", _MODE, "an octal mode between 0400 and 0777"), 8),
        names=members.optional("names", lambda name: _names(members.where(name), members.take(name, dict))),
    )
    members.end()
    if len(wanted.name) > 253:
        _refuse(f"{path}.name", "is longer than 253 characters")
    if not (wanted.files or wanted.env):
        _refuse(path, "asks for neither files nor env")
    if wanted.mode & 0o002:
        _refuse(f"{path}.mode", f"{wanted.mode:04o} lets others write")
    return wanted


def _names(path: str, names: dict[str, Any]) -> Mapping[str, str]:
    if not names or not all(isinstance(name, str) and name for name in names.values()):
        _refuse(path, "is empty or maps to something that is not a name")
    if len(set(names.values())) < len(names):
        _refuse(path, "gives two values one name")
    return names


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def _refuse(member: str, message: str, remedy: str = "") -> NoReturn:
    field = f"KMSEAL_CONFIG.{member}" if member else "KMSEAL_CONFIG"
    raise Misconfigured("BadConfiguration", message, field=field, remedy=remedy)
