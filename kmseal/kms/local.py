"""The local provider: keys in a file, for development and for places without a network.

Made by ``kmseal.kms.keyring`` on the first key that begins with ``local:``. The file is a JSON object, mode 0600::

    {"version": 1, "keys": {"<name>": {"primary": "1", "versions": {"1": "<32 bytes in base64>"}}}}

It is read again whenever it changes. Whoever can read it can open everything sealed with it: this protects what is in
Git, not the machine that it lies on. Messages name the file and never what is in it.
"""

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmseal.envelope import DATA_KEY_BYTES, Entropy, decode_base64, encode_base64, length_prefixed, shorten
from kmseal.errors import KeyUnusable, Malformed, Misconfigured, Refused
from kmseal.kms.figures import EndpointFigures
from kmseal.kms.provider import Context, FreshDataKey, KeyDescription, KeyState, PublicHalf, Unwrapped
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted

PREFIX: Final = "local:"
VARIABLE: Final = "KMSEAL_LOCAL_KEY_FILE"
_NONCE_BYTES: Final = 12
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_VERSION: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LocalKey:
    """A key of the file: its versions' material by version id, and which one wraps."""

    primary: str
    versions: Mapping[str, Redacted]


class LocalProvider:
    """Implements ``kmseal.kms.provider.Provider`` over a key file."""

    def __init__(self, path: Path | None, *, entropy: Entropy = os.urandom) -> None:
        """:param path: the key file; None where none is set, and then every call is Misconfigured"""
        self._path = path
        self._entropy = entropy
        self._read_as: tuple[int, int, int] | None = None
        self._keys: Mapping[str, LocalKey] = {}

    async def generate(self, key: str, context: Context) -> FreshDataKey:
        """Draws a data key and wraps it."""
        data_key = Redacted(self._entropy(DATA_KEY_BYTES))
        return FreshDataKey(data_key, await self.wrap(key, data_key, context))

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        """Encrypts a data key under the primary version (docs/format.md, K6)."""
        local = self._find(key)
        nonce = self._entropy(_NONCE_BYTES)
        cipher = AESGCM(local.versions[local.primary].reveal())
        wrapped = nonce + cipher.encrypt(nonce, data_key.reveal(), _associated_data(context))
        return Wrapping(key, local.primary, Algorithm.LOCAL_AES_256_GCM, wrapped)

    async def unwrap(self, wrapping: Wrapping, context: Context) -> Unwrapped:
        """Opens a wrapping. The version that it names is only tried first: the name decides nothing (K5)."""
        local = self._find(wrapping.key_id)
        associated = _associated_data(context)
        nonce, sealed = wrapping.wrapped[:_NONCE_BYTES], wrapping.wrapped[_NONCE_BYTES:]
        if wrapping.algorithm is Algorithm.LOCAL_AES_256_GCM and len(nonce) == _NONCE_BYTES:
            for version in sorted(local.versions, key=lambda version: version != wrapping.key_version_id):
                try:
                    data_key = AESGCM(local.versions[version].reveal()).decrypt(nonce, sealed, associated)
                except InvalidTag:
                    continue
                return Unwrapped(Redacted(data_key), wrapping.key_id, version, "")
        raise Refused(
            f"{wrapping.key_id} does not open the wrapping: it was altered, sealed for another place, "
            "or by another key file",
            reason="KmsRefused",
            remedy="restore the data key's lines from Git, or use the key file it was sealed with",
        )

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        """Opens and wraps again under the primary version, which the file itself tells."""
        return await self.wrap(key, (await self.unwrap(wrapping, context)).data_key, context)

    async def describe(self, key: str) -> KeyDescription:
        """A key that is in the file is enabled."""
        return KeyDescription(key, KeyState.ENABLED, self._find(key).primary)

    async def public_key(self, key: str, version: str = "") -> PublicHalf:
        """There is none."""
        self._find(key)
        raise Refused(
            f"{key} is a symmetric key and has no public half",
            reason="NotAsymmetric",
            remedy="seal with the key file itself, which needs no network either",
        )

    def healthy(self, key: str) -> bool:
        """A file always answers."""
        return True

    def endpoints(self) -> Sequence[EndpointFigures]:
        """A file has none."""
        return ()

    async def close(self) -> None:
        """Forgets the keys."""
        self._keys, self._read_as = {}, None

    def _find(self, key: str) -> LocalKey:
        name = key.removeprefix(PREFIX)
        require_key_name(name)
        if self._path is None:
            raise Misconfigured(
                f"{key} needs a key file, and none is set",
                field=VARIABLE,
                remedy=f"set {VARIABLE} to the file that the object was sealed with",
            )
        found = self._load(self._path).get(name)
        if found is None:
            raise KeyUnusable(
                f"{key} is not in the key file {self._path}",
                reason="KeyNotFound",
                remedy="use the key file that the object was sealed with, or another key",
            )
        return found

    def _load(self, path: Path) -> Mapping[str, LocalKey]:
        """The file's keys. It is small and on this machine, so it is read in place, and only when it has changed."""
        try:
            status = path.stat()
        except OSError:
            raise _unreadable(path) from None
        read_as = (status.st_ino, status.st_mtime_ns, status.st_size)
        if read_as != self._read_as:
            self._keys = read_key_file(path)
            self._read_as = read_as
        return self._keys


def read_key_file(path: Path) -> dict[str, LocalKey]:
    """Reads a key file strictly. Raises Misconfigured naming the file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            raw = file.read()
    except OSError:
        raise _unreadable(path) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Misconfigured(
            f"the key file {path} is open to other users (mode {stat.S_IMODE(mode):04o})",
            field=VARIABLE,
            remedy=f"run: chmod 600 {path}",
        )
    try:
        keys = _parse(json.loads(raw))
    except (ValueError, RecursionError, Malformed):
        keys = None
    if keys is None:
        raise Misconfigured(
            f"the key file {path} does not have its form",
            field=VARIABLE,
            remedy="restore it from a backup; what was sealed with it opens with nothing else",
        )
    return keys


def create_key_file(path: Path, names: tuple[str, ...], *, entropy: Entropy = os.urandom) -> None:
    """Makes a key file with one version of each named key, whole or not at all.

    Raises Malformed for a bad name, Misconfigured where a file is there already or none can be made.
    """
    for name in names:
        require_key_name(name)
    version = "1"
    keys = {name: LocalKey(version, {version: Redacted(entropy(DATA_KEY_BYTES))}) for name in names}
    temporary = _write_beside(path, keys)
    try:
        os.link(temporary, path)  # Unlike a rename, this never takes the place of another file.
    except FileExistsError:
        raise Misconfigured(
            f"there is a file {path} already", field=VARIABLE, remedy="keep it, or choose another path"
        ) from None
    except OSError:
        raise _unwritable(path) from None
    finally:
        temporary.unlink()


def add_version(path: Path, name: str, *, entropy: Entropy = os.urandom) -> str:
    """Rotates a key of the file: adds a version and makes it primary. Returns the version's id.

    Raises KeyUnusable for a key that is not there, Misconfigured for a file that cannot be read or written.
    """
    keys = read_key_file(path)
    if name not in keys:
        raise KeyUnusable(
            f"{shorten(PREFIX + name)} is not in the key file {path}",
            reason="KeyNotFound",
            remedy="choose a key that it holds",
        )
    numbers = [int(version) for version in keys[name].versions if version.isascii() and version.isdigit()]
    version = str(max(numbers, default=0) + 1)
    keys[name] = LocalKey(version, {**keys[name].versions, version: Redacted(entropy(DATA_KEY_BYTES))})
    temporary = _write_beside(path, keys)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise _unwritable(path) from None
    return version


def require_key_name(name: str) -> None:
    """Refuses what cannot be a key's name (K4). Raises Malformed."""
    if not _NAME.fullmatch(name):
        raise Malformed(
            f"{shorten(PREFIX + name)} is not the name of a local key",
            reason="KeyId",
            remedy="write local:<name>, of lower-case letters, digits and '-', at most 63",
        )


def _parse(document: Any) -> dict[str, LocalKey] | None:
    if not isinstance(document, dict) or set(document) != {"version", "keys"} or document["version"] != 1:
        return None
    if not isinstance(document["keys"], dict):
        return None
    keys = {}
    for name, entry in document["keys"].items():
        if not (_NAME.fullmatch(name) and isinstance(entry, dict) and set(entry) == {"primary", "versions"}):
            return None
        primary, versions = entry["primary"], entry["versions"]
        if not isinstance(versions, dict) or not isinstance(primary, str) or primary not in versions:
            return None
        materials = {}
        for version, text in versions.items():
            if not (_VERSION.fullmatch(version) and isinstance(text, str)):
                return None
            materials[version] = Redacted(decode_base64(text))
        if any(len(material) != DATA_KEY_BYTES for material in materials.values()):
            return None
        keys[name] = LocalKey(primary, materials)
    return keys


def _write_beside(path: Path, keys: Mapping[str, LocalKey]) -> Path:
    """Writes the keys to a new file in the same folder, on disk when this returns, and gives its path."""
    document = {
        "version": 1,
        "keys": {
            name: {
                "primary": key.primary,
                "versions": {version: encode_base64(raw.reveal()) for version, raw in key.versions.items()},
            }
            for name, key in keys.items()
        },
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        raise _unwritable(path) from None
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink()
        raise _unwritable(path) from None
    return temporary


def _associated_data(context: Context) -> bytes:
    canonical = json.dumps(dict(context), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return length_prefixed("kmseal/v1/local-wrapping", canonical)


def _unreadable(path: Path) -> Misconfigured:
    return Misconfigured(
        f"the key file {path} cannot be read",
        field=VARIABLE,
        remedy="check the path and that this user may read it, or make one with: kmseal dev local-key",
    )


def _unwritable(path: Path) -> Misconfigured:
    return Misconfigured(
        f"the key file {path} cannot be written",
        field=VARIABLE,
        remedy="check that its folder exists and that this user may write there",
    )
