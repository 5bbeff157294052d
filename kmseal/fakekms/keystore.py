"""All keys and aliases of one account: found by name or by version, and replaced when something happens to them.

Synchronous: the clock and the randomness are passed in, nothing is read or written. The operations work on a
:class:`KeyStore`, ``state`` saves and restores it, and tests drive it directly. A key belongs to one region, and the
others see nothing of it. What time does to a key (a rotation, the end of its material or of its window of deletion)
happens when the clock is moved or, at the latest, when the key is next looked at.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmseal.fakekms import rsakeys
from kmseal.fakekms.keys import EXTERNAL, Alias, Key, KeySpec, KeyVersion
from kmseal.fakekms.refusals import (
    Refusal,
    alias_not_found,
    invalid_parameter,
    key_not_found,
    unsupported_alias,
)
from kmseal.fakekms.states import KeyState

_ARN: Final = re.compile(r"acs:kms:([a-z0-9-]+):([0-9]+):((?:key|alias)/.+)", re.ASCII)
_MADE_UP_FOR: Final = 200
_ALIAS: Final = re.compile(r"alias/[A-Za-z0-9_/-]{1,249}", re.ASCII)


class KeyStore:
    """All keys and aliases of one account.

    :param account: the account's number
    :param clock: seconds since 1970, as keys see them
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
        self.now = clock
        self.random_bytes = random_bytes
        self._on_change = on_change
        self._keys: dict[tuple[str, str], Key] = {}
        self._aliases: dict[tuple[str, str], Alias] = {}
        # Decrypt finds everything by the version id: the key and the cipher, built once for each version.
        self._by_version: dict[tuple[str, str], tuple[str, AESGCM | None]] = {}
        self._private_keys: dict[str, RSAPrivateKey] = {}

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

    def by_version(self, region: str, version_id: str) -> Key:
        """The key that a version belongs to. Raises Forbidden.KeyNotFound.

        A ciphertext of another region is unknown here, as in the real service.
        """
        found = self._by_version.get((region, version_id))
        key = self._keys.get((region, found[0])) if found else None
        settled = key and self._settle(key)
        if settled is None:
            raise key_not_found()
        return settled

    def cipher(self, key: Key, version_id: str) -> AESGCM | None:
        """The cipher of a version; None when the version is an asymmetric one or has no material."""
        return self._by_version[key.region, version_id][1]

    def private_key(self, version: KeyVersion) -> RSAPrivateKey:
        """The private key of a version of an asymmetric key."""
        found = self._private_keys.get(version.version_id)
        if found is None:
            found = self._private_keys[version.version_id] = rsakeys.load(version.material)
        return found

    # -- changing

    def create(
        self,
        region: str,
        creator: str,
        *,
        spec: KeySpec = KeySpec.AES_256,
        description: str = "",
        origin: str = "Aliyun_KMS",
        protection_level: str = "SOFTWARE",
        rotation_interval: int | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Key:
        """A new key with one version; one of external origin waits for its material."""
        now = self.now()
        key_id, version_id = self._new_id(), self._new_id()
        material = b"" if origin == EXTERNAL else self._material(spec)
        key = Key(
            key_id=key_id,
            region=region,
            account=self.account,
            created=now,
            creator=creator,
            versions=(KeyVersion(version_id, now, material),),
            spec=spec,
            state=KeyState.PENDING_IMPORT if origin == EXTERNAL else KeyState.ENABLED,
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
        """Gives the key a new version, now; the old ones keep opening what they sealed."""
        return self.put(self._rotated(key, self.now()))

    def rotate_if_overdue(self, key: Key) -> Key:
        """Rotates now if the date has passed; for keys whose rotation was off or suspended until this moment."""
        return key if key.rotation_due(self.now()) is None else self.rotate(key)

    def set_state(self, key: Key, state: KeyState, *, delete_at: float | None = None) -> Key:
        """Moves the key to another state; whether that is allowed has been checked before.

        A key without material cannot be enabled or disabled: it waits for its material then.
        """
        if not key.has_material and state is not KeyState.PENDING_DELETION:
            state = KeyState.PENDING_IMPORT
        return self.rotate_if_overdue(self.put(replace(key, state=state, delete_at=delete_at)))

    def import_material(self, key: Key, material: bytes, expires: float | None) -> Key:
        """Gives a key of external origin its material (32 bytes). Raises InvalidKeyMaterial.

        Only the material that was imported first is taken: what it sealed must open again.
        """
        digest = hashlib.sha256(material).hexdigest()
        if len(material) != 32 or key.material_digest not in {"", digest}:
            raise Refusal(400, "InvalidKeyMaterial", "The key material is invalid, or not the one imported before.")
        state = KeyState.ENABLED if key.state is KeyState.PENDING_IMPORT else key.state
        version = replace(key.primary, material=material)
        return self.put(
            replace(key, versions=(version,), state=state, material_expires=expires, material_digest=digest)
        )

    def forget_material(self, key: Key) -> Key:
        """Deletes imported material; the key waits for it again, or for its deletion."""
        state = key.state if key.state is KeyState.PENDING_DELETION else KeyState.PENDING_IMPORT
        version = replace(key.primary, material=b"")
        return self.put(replace(key, versions=(version,), state=state, material_expires=None))

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

    def settle(self) -> None:
        """Lets happen what time has made due, for all keys."""
        self.keys_of()

    def restore(self, keys: Iterable[Key], aliases: Iterable[Alias]) -> None:
        """Takes over keys and aliases from a saved state."""
        self._keys, self._by_version, self._private_keys = {}, {}, {}
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
        """What time has made of the key: the same, rotated, without its material, or gone (None)."""
        if key.timeless:
            return key
        now, before = self.now(), key
        if key.is_gone(now):
            self._forget(key)
            return None
        if key.has_expired_material(now):
            return self.forget_material(key)
        while (due := key.rotation_due(now)) is not None:
            # Each date that has passed made its version, whether or not somebody looked; of very many, the last ones.
            interval = key.rotation_interval or 1
            key = self._rotated(key, max(due, due + ((now - due) // interval - _MADE_UP_FOR) * interval))
        return key if key is before else self.put(key)

    def _forget(self, key: Key) -> None:
        del self._keys[key.region, key.key_id]
        for version in key.versions:
            del self._by_version[key.region, version.version_id]
            self._private_keys.pop(version.version_id, None)
        for alias in self.aliases(key.region, key.key_id):
            del self._aliases[alias.region, alias.name]
        self._on_change()

    def _index(self, key: Key) -> None:
        old = self._keys.get((key.region, key.key_id))
        self._keys[key.region, key.key_id] = key
        for version in key.versions:
            if old is None or version not in old.versions:
                symmetric = not key.asymmetric and version.material
                cipher = AESGCM(version.material) if symmetric else None
                self._by_version[key.region, version.version_id] = (key.key_id, cipher)

    def _put_alias(self, alias: Alias) -> Alias:
        self._aliases[alias.region, alias.name] = alias
        self._on_change()
        return alias

    def _rotated(self, key: Key, now: float) -> Key:
        version = KeyVersion(self._new_id(), now, self._material(key.spec))
        return replace(key, versions=(*key.versions, version), last_rotation=now)

    def _material(self, spec: KeySpec) -> bytes:
        return rsakeys.generate(spec.rsa_bits) if spec.rsa_bits else self.random_bytes(32)

    def _new_id(self) -> str:
        return str(uuid.UUID(bytes=self.random_bytes(16), version=4))
