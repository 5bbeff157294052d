"""The state on disk: keys with their versions, aliases, access keys and roles, in one JSON file.

``server`` loads it at start and saves it after each change, atomically and readable by the owner only: the file holds
key material and secrets in clear, as befits a fake and nothing else. A file that cannot be read stops the start with
Misconfigured; it is never overwritten by an empty state.
"""

import base64
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from kmseal.errors import Misconfigured
from kmseal.fakekms.identities import Identities, Identity, Policy
from kmseal.fakekms.keys import Alias, Key, KeyStore, KeyVersion
from kmseal.fakekms.states import KeyState
from kmseal.fakekms.sts import Role, TokenService

_FORMAT: Final = 1


def state_file(path: Path) -> Path:
    """The file itself: the path, or ``state.json`` in it when it is a folder."""
    return path / "state.json" if path.is_dir() else path


def save(path: Path, store: KeyStore, identities: Identities, tokens: TokenService) -> None:
    """Writes the state beside the file and moves it into place, so that a crash leaves the old one.

    Raises Misconfigured when it cannot be written.
    """
    document = {
        "format": _FORMAT,
        "account": store.account,
        "keys": [_key_to_json(key) for key in store.stored()],
        "aliases": [asdict(alias) for alias in store.aliases()],
        "identities": [asdict(identity) for identity in identities],
        "roles": [asdict(role) for role in tokens.roles],
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


def load(path: Path, store: KeyStore, identities: Identities, tokens: TokenService) -> bool:
    """Restores what was saved; False when there is no file yet. Raises Misconfigured."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        raise _unreadable(path, "cannot be read as JSON") from None
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise _unreadable(path, "is not a state of this version")
    if document.get("account") != store.account:
        raise _unreadable(path, "belongs to another account")
    try:
        _restore(document, store, identities, tokens)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _unreadable(path, "lacks a member or has one of the wrong form") from None
    return True


def _restore(document: dict[str, Any], store: KeyStore, identities: Identities, tokens: TokenService) -> None:
    keys = [_key_from_json(item) for item in document["keys"]]
    store.restore(keys, [Alias(**item) for item in document["aliases"]])
    identities.restore(Identity(**(item | {"policy": _policy(item["policy"])})) for item in document["identities"])
    tokens.restore(
        Role(**(item | {"policy": _policy(item["policy"]), "subjects": tuple(item["subjects"])}))
        for item in document["roles"]
    )


def _key_to_json(key: Key) -> dict[str, object]:
    versions = [
        {
            "version_id": version.version_id,
            "created": version.created,
            "material": base64.b64encode(version.material).decode(),
        }
        for version in key.versions
    ]
    return asdict(key) | {"versions": versions, "state": key.state.value}


def _key_from_json(item: dict[str, Any]) -> Key:
    versions = tuple(
        KeyVersion(version["version_id"], version["created"], base64.b64decode(version["material"], validate=True))
        for version in item["versions"]
    )
    return Key(**(item | {"versions": versions, "state": KeyState(item["state"])}))


def _policy(item: dict[str, list[str]]) -> Policy:
    return Policy(tuple(item["actions"]), tuple(item["keys"]))


def _unreadable(path: Path, why: str) -> Misconfigured:
    return Misconfigured(
        f"the state file {path} {why}",
        field="--state",
        reason="StateFile",
        remedy="name another file, or remove this one to begin with no keys",
    )
