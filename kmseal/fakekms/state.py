"""The state on disk: keys with their versions and imports, aliases, access keys, roles and the clock, in one JSON file.

``account`` loads it at start and saves it after each change, atomically and readable by the owner only: the file holds
key material and secrets in clear, as befits a fake and nothing else. A file that cannot be read stops the start with
Misconfigured; it is never overwritten by an empty state.
"""

import base64
import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from kmseal.errors import Misconfigured
from kmseal.fakekms.clock import KeyClock
from kmseal.fakekms.identities import Identities, Identity
from kmseal.fakekms.keys import Alias, ImportSlot, Key, KeySpec, KeyVersion
from kmseal.fakekms.keystore import KeyStore
from kmseal.fakekms.policies import parse_policy
from kmseal.fakekms.states import KeyState
from kmseal.fakekms.sts import Role, TokenService

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_FORMAT: Final = 2


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept on disk: the parts of an account that outlive its process."""

    store: KeyStore
    identities: Identities
    tokens: TokenService
    clock: KeyClock


def state_file(path: Path) -> Path:
    """The file itself: the path, or ``state.json`` in it when it is a folder."""
    return path / "state.json" if path.is_dir() else path


def save(path: Path, kept: Kept) -> None:
    """Writes the state beside the file and moves it into place, so that a crash leaves the old one.

    Raises Misconfigured when it cannot be written.
    """
    document = {
        "format": _FORMAT,
        "account": kept.store.account,
        "clock_offset": kept.clock.offset,
        "keys": [_key_to_json(key) for key in kept.store.stored()],
        "aliases": [_members(alias) for alias in kept.store.aliases()],
        "identities": [_members(item) | {"policy": item.policy.document()} for item in kept.identities],
        "roles": [_members(role) | {"policy": role.policy.document()} for role in kept.tokens.roles],
    }
    beside = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        raise Misconfigured(
            f"the state file {path} cannot be written ({os.strerror(error.errno or 0)})",
            field="--state",
            reason="StateFile",
            remedy="name a file in a folder that is there and writable",
        ) from None


def load(path: Path, kept: Kept) -> bool:
    """Restores what was saved; False when there is no file yet. Raises Misconfigured."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        raise _unreadable(path, "cannot be read as JSON") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise _unreadable(path, "is not a state of this version")
    if document.get("account") != kept.store.account:
        raise _unreadable(path, "belongs to another account")
    try:
        _restore(document, kept)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unreadable(path, "lacks a member or has one of the wrong form") from None
    return True


def _restore(document: dict[str, Any], kept: Kept) -> None:
    kept.clock.restore(float(document["clock_offset"]))
    keys = [_key_from_json(item) for item in document["keys"]]
    kept.store.restore(keys, [Alias(**item) for item in document["aliases"]])
    kept.identities.restore(
        Identity(**(item | {"policy": parse_policy(item["policy"])})) for item in document["identities"]
    )
    kept.tokens.restore(
        Role(**(item | {"policy": parse_policy(item["policy"]), "subjects": tuple(item["subjects"])}))
        for item in document["roles"]
    )


def _members(value: "DataclassInstance") -> dict[str, Any]:
    """The fields of a dataclass, with nothing done to them."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _key_to_json(key: Key) -> dict[str, Any]:
    return _members(key) | {
        "versions": [_members(item) | {"material": _text(item.material)} for item in key.versions],
        "imports": [_members(slot) | {"private_key": _text(slot.private_key)} for slot in key.imports],
    }


def _key_from_json(item: dict[str, Any]) -> Key:
    versions = tuple(KeyVersion(**(old | {"material": _bytes(old["material"])})) for old in item["versions"])
    imports = tuple(ImportSlot(**(old | {"private_key": _bytes(old["private_key"])})) for old in item["imports"])
    parsed = {"versions": versions, "imports": imports, "state": KeyState(item["state"]), "spec": KeySpec(item["spec"])}
    return Key(**(item | parsed))


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _unreadable(path: Path, why: str) -> Misconfigured:
    return Misconfigured(
        f"the state file {path} {why}",
        field="--state",
        reason="StateFile",
        remedy="name another file, or remove this one to begin with no keys",
    )
