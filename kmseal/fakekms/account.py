"""The account that the fake plays, behind its gateways, and what an administrator does to it.

An :class:`Account` has everything but sockets: tests may put requests straight to its ``service``. ``server`` adds the
gateways. What an administrator could do to the real service in a console, tests do here directly; what a client does
goes over the wire.
"""

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from kmseal.fakekms import rotation, state
from kmseal.fakekms.audit import AuditTrail, CallCounter
from kmseal.fakekms.clock import KeyClock
from kmseal.fakekms.faults import Faults
from kmseal.fakekms.identities import Identities, Identity
from kmseal.fakekms.keys import EXTERNAL, Key, KeySpec
from kmseal.fakekms.keystore import KeyStore
from kmseal.fakekms.oidc import OidcProvider, PublicKey
from kmseal.fakekms.policies import Policy
from kmseal.fakekms.quotas import Quotas
from kmseal.fakekms.refusals import unsupported_origin
from kmseal.fakekms.service import Service
from kmseal.fakekms.states import KeyState
from kmseal.fakekms.sts import Role, TokenService

ACCOUNT: Final = "1000000000000001"


class Account:
    """One account in one or more regions.

    :param regions: names of the regions; the first one is the default of the methods below
    :param state_path: file, or folder, that the state is kept in; in memory only by default
    :param allow_symmetric_versions: CreateKeyVersion rotates symmetric keys, as on a software instance
    :param dedicated_gateway: all gateways behave like that of an instance, which has neither ReEncrypt nor management
    :param clock: real time, in seconds since 1970; keys see it through :attr:`clock`, which can be moved
    :param monotonic: seconds that never go back, for quotas

    Raises Misconfigured when the state cannot be read or written.
    """

    def __init__(
        self,
        regions: Sequence[str] = ("cn-hangzhou",),
        *,
        state_path: Path | None = None,
        account: str = ACCOUNT,
        allow_symmetric_versions: bool = False,
        dedicated_gateway: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random_bytes: Callable[[int], bytes] = os.urandom,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.regions = tuple(regions)
        self._state_file = None if state_path is None else state.state_file(state_path)
        self.clock = KeyClock(clock, self._moved)
        self.store = KeyStore(account, self.clock, random_bytes, self._save)
        self.identities = Identities(clock, random_bytes, self._save)
        self.tokens = TokenService(account, self.identities, clock)
        self.audit = AuditTrail()
        self.quotas = Quotas(monotonic)
        self.faults = Faults(chance)
        self.service = Service(
            self.store,
            self.identities,
            self.tokens,
            self.audit,
            self.quotas,
            clock,
            allow_symmetric_versions,
            dedicated_gateway,
        )
        if self._state_file is not None:
            state.load(self._state_file, self._kept())
            # Saving at once shows a folder that cannot be written now, and not in the middle of a request.
            self._save()

    @property
    def calls(self) -> CallCounter:
        """``calls["Decrypt"]``, ``calls["Decrypt", "Success"]``."""
        return self.audit.calls

    # -- keys

    def create_key(
        self,
        alias: str | None = None,
        region: str | None = None,
        *,
        spec: str = KeySpec.AES_256,
        origin: str = "Aliyun_KMS",
        rotate_every: int | None = None,
    ) -> str:
        """A new key, with an alias if one is named; its ARN.

        :param spec: ``RSA_2048``, ``RSA_3072`` or ``RSA_4096`` for an asymmetric key
        :param origin: ``EXTERNAL`` for a key whose material is to be imported
        :param rotate_every: seconds between rotations on the clock of keys
        """
        key = self.store.create(
            region or self.regions[0], "admin", spec=KeySpec(spec), origin=origin, rotation_interval=rotate_every
        )
        if alias is not None:
            self.store.create_alias(key, alias if alias.startswith("alias/") else f"alias/{alias}")
        return key.arn

    def key(self, arn: str) -> Key:
        """A key by its ARN or the ARN of an alias. Raises Refusal when there is none."""
        region = arn.split(":")[2] if arn.startswith("acs:kms:") else self.regions[0]
        return self.store.resolve(region, arn, alias_allowed=True)

    def rotate(self, arn: str) -> str:
        """Makes a new version now, the primary one of a symmetric key; its id."""
        key = self.key(arn)
        if key.origin == EXTERNAL:
            raise unsupported_origin("imported material has one version")
        return self.store.rotate(key).primary.version_id

    def rotate_every(self, arn: str, seconds: int | None) -> None:
        """Lets a symmetric key rotate on schedule, or no more; at once if the date has passed."""
        rotation.set_rotation_policy(self.store, self.key(arn), seconds)

    def enable(self, arn: str) -> None:
        """Puts the key into the state Enabled, from any other; one without material waits for it still."""
        self.store.set_state(self.key(arn), KeyState.ENABLED)

    def disable(self, arn: str) -> None:
        """Puts the key into the state Disabled, from any other."""
        self.store.set_state(self.key(arn), KeyState.DISABLED)

    def schedule_deletion(self, arn: str, delete_at: float) -> None:
        """Puts the key into the state PendingDeletion until the given time, in seconds since 1970."""
        self.store.set_state(self.key(arn), KeyState.PENDING_DELETION, delete_at=delete_at)

    def import_material(self, arn: str, material: bytes, expires: float | None = None) -> None:
        """Gives a key of external origin its 32 bytes at once. Raises Refusal for others than the first."""
        key = self.key(arn)
        if key.origin != EXTERNAL:
            raise unsupported_origin("its material is the service's own")
        self.store.import_material(key, material, expires)

    def delete_material(self, arn: str) -> None:
        """Makes a key of external origin wait for its material again."""
        key = self.key(arn)
        if key.origin != EXTERNAL:
            raise unsupported_origin("its material is the service's own")
        self.store.forget_material(key)

    def move_alias(self, alias: str, arn: str) -> None:
        """Points an alias of the key's region to the key."""
        key = self.key(arn)
        self.store.move_alias(self.store.alias(key.region, alias), key)

    # -- who may call

    def add_identity(
        self, name: str, actions: Sequence[str] = ("*",), keys: Sequence[str] = ("*",), *, policy: Policy | None = None
    ) -> Identity:
        """A new access key that is allowed the actions on the keys, or what a policy says."""
        return self.identities.add(name, policy or Policy.allow(actions, keys))

    def add_temporary_identity(self, name: str, lifetime: float, actions: Sequence[str] = ("*",)) -> Identity:
        """A new temporary access key with a security token, as STS issues them. ``lifetime`` in seconds."""
        return self.identities.add_temporary(name, Policy.allow(actions), lifetime)

    def set_policy(
        self,
        identity: Identity,
        actions: Sequence[str] = ("*",),
        keys: Sequence[str] = ("*",),
        *,
        policy: Policy | None = None,
    ) -> None:
        """Grants an access key other rights than before, at once."""
        self.identities.replace(replace(identity, policy=policy or Policy.allow(actions, keys)))

    def add_role(
        self,
        name: str,
        actions: Sequence[str] = ("*",),
        *,
        subjects: Sequence[str] = ("*",),
        provider: str = "",
        policy: Policy | None = None,
    ) -> str:
        """A role that AssumeRoleWithOIDC gives out to the subjects; its ARN."""
        return self.tokens.add_role(Role(name, policy or Policy.allow(actions), tuple(subjects), provider))

    def add_oidc_provider(self, name: str, *, issuer: str = "", keys: Mapping[str, PublicKey] | None = None) -> str:
        """An identity provider whose tokens are taken; its ARN. Without keys, signatures are not checked."""
        arn = self.tokens.provider_arn(name)
        self.tokens.add_provider(OidcProvider(arn, issuer=issuer, keys=keys))
        return arn

    # -- inside

    def _moved(self) -> None:
        self.store.settle()
        self._save()

    def _kept(self) -> state.Kept:
        return state.Kept(self.store, self.identities, self.tokens, self.clock)

    def _save(self) -> None:
        if self._state_file is not None:
            state.save(self._state_file, self._kept())
