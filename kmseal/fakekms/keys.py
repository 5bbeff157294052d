"""Keys, their versions and their aliases as frozen values, and what time does to a key.

Pure: nothing here has a clock. ``keystore`` keeps these values and replaces them, the operations read them, ``state``
writes them down. Symmetric keys have a primary version, the last one; an asymmetric key has versions that callers must
name. Times are in seconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from kmseal.fakekms.refusals import key_version_not_found
from kmseal.fakekms.states import KeyState

EXTERNAL: Final = "EXTERNAL"
"""The origin of keys whose material is imported; the origin of all others is ``Aliyun_KMS``."""


class KeySpec(StrEnum):
    """The kinds of keys that the fake has, in the service's words."""

    AES_256 = "Aliyun_AES_256"
    RSA_2048 = "RSA_2048"
    RSA_3072 = "RSA_3072"
    RSA_4096 = "RSA_4096"

    @property
    def rsa_bits(self) -> int:
        """Size of the modulus; 0 for a symmetric key."""
        return 0 if self is KeySpec.AES_256 else int(self.value.removeprefix("RSA_"))


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One generation of a key's material: 32 bytes, or a private key as PKCS#8 in DER; empty when there is none."""

    version_id: str
    created: float
    material: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ImportSlot:
    """What GetParametersForImport gave out: material encrypted to its key may be imported with its token."""

    token: str = field(repr=False)
    algorithm: str
    expires: float
    private_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    """A key.

    :param rotation_interval: seconds between automatic rotations; None when it does not rotate by itself
    :param delete_at: the end of its window of deletion
    :param material_expires: when imported material is to be forgotten
    :param material_digest: SHA-256 of the first material imported; no other may follow it
    """

    key_id: str
    region: str
    account: str
    created: float
    creator: str
    versions: tuple[KeyVersion, ...]
    spec: KeySpec = KeySpec.AES_256
    state: KeyState = KeyState.ENABLED
    description: str = ""
    origin: str = "Aliyun_KMS"
    protection_level: str = "SOFTWARE"
    rotation_interval: int | None = None
    last_rotation: float | None = None
    delete_at: float | None = None
    material_expires: float | None = None
    material_digest: str = ""
    imports: tuple[ImportSlot, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"acs:kms:{self.region}:{self.account}:key/{self.key_id}"

    @property
    def asymmetric(self) -> bool:
        return self.spec is not KeySpec.AES_256

    @property
    def primary(self) -> KeyVersion:
        """The newest version: the one that wraps, if the key is symmetric."""
        return self.versions[-1]

    @property
    def has_material(self) -> bool:
        return bool(self.versions[-1].material)

    @property
    def next_rotation(self) -> float | None:
        """When it is to rotate by itself, unless that is suspended then; None when it does not at all."""
        if self.rotation_interval is None:
            return None
        return (self.last_rotation or self.created) + self.rotation_interval

    def version(self, version_id: str) -> KeyVersion:
        """The version of that id. Raises Forbidden.KeyVersionNotFound."""
        for version in self.versions:
            if version.version_id == version_id:
                return version
        raise key_version_not_found()

    # -- what time does to it

    @property
    def timeless(self) -> bool:
        """Whether time does nothing to it."""
        return self.delete_at is None and self.rotation_interval is None and self.material_expires is None

    def is_gone(self, now: float) -> bool:
        """Whether its window of deletion is over."""
        return self.delete_at is not None and self.delete_at <= now

    def has_expired_material(self, now: float) -> bool:
        return self.material_expires is not None and self.material_expires <= now

    def rotation_due(self, now: float) -> float | None:
        """The date of a rotation that has come; None when there is none or the rotation is suspended."""
        due = self.next_rotation
        return due if due is not None and due <= now and self.state is KeyState.ENABLED else None


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
