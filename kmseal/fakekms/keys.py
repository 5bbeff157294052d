"""Keys, their versions and their aliases: the part of the fake that holds key material.

Pure and synchronous: the clock and the randomness are passed in, nothing is read or written. ``operations`` and
``control`` work on a :class:`KeyStore`, ``state`` saves and restores it, and tests drive it directly. Keys are
immutable values that the store replaces. A key belongs to one region, and the others see nothing of it. What time does
to a key (an automatic rotation, the end of a deletion window) happens when the key is next looked at.
"""

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmseal.fakekms.refusals import (
    Refusal,
    alias_not_found,
    invalid_parameter,
    key_not_found,
    key_version_not_found,
    unsupported_alias,
)
from kmseal.fakekms.states import KeyState

_ARN: Final = re.compile(r"acs:kms:([a-z0-9-]+):([0-9]+):((?:key|alias)/.+)", re.ASCII)
_ALIAS: Final = re.compile(r"alias/[A-Za-z0-9_/-]{1,249}", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One generation of a key's material: 32 bytes. ``created`` is in seconds since 1970."""

    version_id: str
    created: float
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    """A symmetric key. The last of its versions is the primary one. Times are in seconds since 1970."""

    key_id: str
    region: str
    account: str
    created: float
    creator: str
    versions: tuple[KeyVersion, ...]
    state: KeyState = KeyState.ENABLED
    description: str = ""
    origin: str = "Aliyun_KMS"
    protection_level: str = "SOFTWARE"
    rotation_interval: int | None = None
    last_rotation: float | None = None
    delete_at: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"acs:kms:{self.region}:{self.account}:key/{self.key_id}"

    @property
    def primary(self) -> KeyVersion:
        return self.versions[-1]

    @property
    def next_rotation(self) -> float | None:
        """When the key is to be rotated by itself; None when it is not."""
        if self.rotation_interval is None or self.state is not KeyState.ENABLED:
            return None
        return (self.last_rotation or self.created) + self.rotation_interval

    def version(self, version_id: str) -> KeyVersion:
        """The version of that id. Raises Forbidden.KeyVersionNotFound."""
        for version in self.versions:
            if version.version_id == version_id:
                return version
        raise key_version_not_found()


@dataclass(frozen=True, slots=True)
class Alias:
    """A second name of a key, with its prefix ``alias/``."""

    name: str
    region: str
    account: str
    key_id: str

    @property
    def arn(self) -> str:
        return f"acs:kms:{self.region}:{self.account}:{self.name}"


class KeyStore:
    """All keys and aliases of one account.

    :param account: the account's number
    :param clock: seconds since 1970
    :param random_bytes: cryptographic randomness, as ``os.urandom``
    :param on_change: called after each change, so that the state can be saved
    """

    def __init__(
        self,
        account: str,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        on_change: Callable[[], None],
    ) -> None:
        self.account = account
        self.random_bytes = random_bytes
        self._clock = clock
        self._on_change = on_change
        self._keys: dict[tuple[str, str], Key] = {}
        self._aliases: dict[tuple[str, str], Alias] = {}
        # Decrypt finds everything by the version id: the key and the cipher, built once for each version.
        self._by_version: dict[tuple[str, str], tuple[str, AESGCM]] = {}

    # -- looking up

    def keys_of(self, region: str | None = None) -> list[Key]:
        """The keys of one region, or of all, oldest first."""
        found = [self._settle(key) for key in self.stored() if region in {None, key.region}]
        return [key for key in found if key is not None]

    def stored(self) -> list[Key]:
        """All keys exactly as they are stored, for saving: nothing is done to them."""
        return list(self._keys.values())

    def aliases(self, region: str | None = None, key_id: str | None = None) -> list[Alias]:
        """The aliases of one region, or of all; only those of one key, if it is given."""
        return [
            alias
            for alias in self._aliases.values()
            if region in {None, alias.region} and key_id in {None, alias.key_id}
        ]

    def resolve(self, region: str, name: str, *, alias_allowed: bool = False) -> Key:
        """The key that a KeyId parameter names: an id, an alias, or the ARN of either.

        Raises Forbidden.KeyNotFound or Forbidden.AliasNotFound, also for an ARN of another region or account, and
        Unsupported.Alias where the action takes none.
        """
        local = self._local_name(region, name)
        is_alias = name.startswith("alias/") or (local or name.rpartition(":")[2]).startswith("alias/")
        if is_alias and not alias_allowed:
            raise unsupported_alias()
        if local is None:
            raise alias_not_found() if is_alias else key_not_found()
        if is_alias:
            local = self.alias(region, local).key_id
        key = self._keys.get((region, local))
        settled = key and self._settle(key)
        if settled is None:
            raise key_not_found()
        return settled

    def alias(self, region: str, name: str) -> Alias:
        """The alias of that name. Raises InvalidParameter or Forbidden.AliasNotFound."""
        if not _ALIAS.fullmatch(name):
            raise invalid_parameter("AliasName", "not alias/ and letters, digits, /, _ or -")
        alias = self._aliases.get((region, name))
        if alias is None:
            raise alias_not_found()
        return alias

    def by_version(self, region: str, version_id: str) -> tuple[Key, AESGCM]:
        """The key that a version belongs to, and the version's cipher. Raises Forbidden.KeyNotFound.

        A ciphertext of another region is unknown here, as in the real service.
        """
        found = self._by_version.get((region, version_id))
        key = self._keys.get((region, found[0])) if found else None
        settled = key and self._settle(key)
        if found is None or settled is None:
            raise key_not_found()
        return settled, found[1]

    def cipher(self, key: Key) -> AESGCM:
        """The cipher of the primary version."""
        return self._by_version[key.region, key.primary.version_id][1]

    # -- changing

    def create(
        self,
        region: str,
        creator: str,
        *,
        description: str = "",
        origin: str = "Aliyun_KMS",
        protection_level: str = "SOFTWARE",
        rotation_interval: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Key:
        """A new key with one version; one of external origin waits for its material."""
        key = Key(
            key_id=self._new_id(),
            region=region,
            account=self.account,
            created=self._clock(),
            creator=creator,
            versions=(self._new_version(),),
            state=KeyState.PENDING_IMPORT if origin == "EXTERNAL" else KeyState.ENABLED,
            description=description,
            origin=origin,
            protection_level=protection_level,
            rotation_interval=rotation_interval,
            tags=dict(tags or {}),
        )
        return self.put(key)

    def put(self, key: Key) -> Key:
        """Stores a key in place of the one with the same id."""
        self._index(key)
        self._on_change()
        return key

    def rotate(self, key: Key) -> Key:
        """Gives the key a new primary version; the old ones keep opening what they sealed."""
        version = self._new_version()
        return self.put(replace(key, versions=(*key.versions, version), last_rotation=version.created))

    def set_state(self, key: Key, state: KeyState, *, delete_at: float | None = None) -> Key:
        """Moves the key to another state; whether that is allowed has been checked before."""
        return self.put(replace(key, state=state, delete_at=delete_at))

    def create_alias(self, key: Key, name: str) -> Alias:
        """A new alias. Raises AliasAlreadyExists, InvalidParameter."""
        if not _ALIAS.fullmatch(name) or name.startswith("alias/acs/"):
            raise invalid_parameter("AliasName", "not alias/ and letters, digits, /, _ or -; alias/acs/ is reserved")
        if (key.region, name) in self._aliases:
            raise Refusal(400, "AliasAlreadyExists", "The specified alias already exists.")
        return self._put_alias(Alias(name, key.region, self.account, key.key_id))

    def move_alias(self, alias: Alias, key: Key) -> Alias:
        """Points an alias to another key."""
        return self._put_alias(replace(alias, key_id=key.key_id))

    def delete_alias(self, alias: Alias) -> None:
        del self._aliases[alias.region, alias.name]
        self._on_change()

    def restore(self, keys: Iterable[Key], aliases: Iterable[Alias]) -> None:
        """Takes over keys and aliases from a saved state."""
        self._keys, self._by_version = {}, {}
        for key in keys:
            self._index(key)
        self._aliases = {(alias.region, alias.name): alias for alias in aliases}

    # -- inside

    def _local_name(self, region: str, name: str) -> str | None:
        """The id or the alias without its ARN; None when the ARN is one of another region or account."""
        if not name.startswith("acs:"):
            return name
        match = _ARN.fullmatch(name)
        if match is None:
            raise invalid_parameter("KeyId", "neither an id, nor an alias, nor an ARN")
        if (match[1], match[2]) != (region, self.account):
            return None
        return match[3].removeprefix("key/")

    def _settle(self, key: Key) -> Key | None:
        """What time has made of the key: the same, rotated, or gone (None)."""
        if key.delete_at is None and key.rotation_interval is None:
            return key
        now = self._clock()
        if key.delete_at is not None and key.delete_at <= now:
            self._forget(key)
            return None
        due = key.next_rotation
        return self.rotate(key) if due is not None and due <= now else key

    def _forget(self, key: Key) -> None:
        del self._keys[key.region, key.key_id]
        for version in key.versions:
            del self._by_version[key.region, version.version_id]
        for alias in self.aliases(key.region, key.key_id):
            del self._aliases[alias.region, alias.name]
        self._on_change()

    def _index(self, key: Key) -> None:
        self._keys[key.region, key.key_id] = key
        for version in key.versions:
            place = (key.region, version.version_id)
            if place not in self._by_version:
                self._by_version[place] = (key.key_id, AESGCM(version.material))

    def _put_alias(self, alias: Alias) -> Alias:
        self._aliases[alias.region, alias.name] = alias
        self._on_change()
        return alias

    def _new_version(self) -> KeyVersion:
        return KeyVersion(self._new_id(), self._clock(), self.random_bytes(32))

    def _new_id(self) -> str:
        return str(uuid.UUID(bytes=self.random_bytes(16), version=4))
