"""Who may call: access keys, permanent and temporary, and the policy that each carries.

``authentication`` looks access keys up here, ``sts`` issues temporary ones, ``calls`` asks the policy of the one that
signed. Security tokens expire in real time, however far the clock of keys has been moved.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from kmseal.fakekms.policies import ANYTHING, Policy

DEVELOPER_ACTIONS: Final = ("GenerateDataKey",)
"""All that somebody needs who seals values and must not read them."""

OPERATOR_ACTIONS: Final = ("Decrypt", "AsymmetricDecrypt", "ReEncrypt", "DescribeKey")
"""What the process in the cluster needs: to open, to re-wrap and to look at keys."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One access key and its owner.

    ``security_token`` and ``expires`` (seconds since 1970) are set for temporary keys only.
    """

    name: str
    access_key_id: str
    access_key_secret: str = field(repr=False)
    policy: Policy = ANYTHING
    security_token: str = field(default="", repr=False)
    expires: float | None = None

    @property
    def principal_type(self) -> str:
        return "AssumedRoleUser" if self.security_token else "SubUser"


class Identities:
    """All access keys. ``on_change`` is called after each change, so that the state can be saved."""

    def __init__(
        self, clock: Callable[[], float], random_bytes: Callable[[int], bytes], on_change: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._random = random_bytes
        self._on_change = on_change
        self._by_id: dict[str, Identity] = {}

    def __iter__(self) -> Iterator[Identity]:
        return iter(self._by_id.values())

    def find(self, access_key_id: str) -> Identity | None:
        """The identity of an access key id, expired or not; None when there is none."""
        return self._by_id.get(access_key_id)

    def named(self, name: str) -> Identity | None:
        """The permanent identity of that name; None when there is none."""
        return next((item for item in self if item.name == name and not item.security_token), None)

    def add(self, name: str, policy: Policy) -> Identity:
        """A new permanent access key."""
        identity = Identity(name, "LTAI5t" + self._letters(18), self._letters(30), policy)
        self._keep(identity)
        return identity

    def add_temporary(self, name: str, policy: Policy, lifetime: float) -> Identity:
        """A new temporary access key that expires ``lifetime`` seconds from now."""
        now = self._clock()
        for expired in [item for item in self if item.expires is not None and item.expires < now - 3600]:
            # An hour is enough for a client to be told that its token has expired and not that it is unknown.
            del self._by_id[expired.access_key_id]
        identity = Identity(
            name, "STS.NU" + self._letters(22), self._letters(44), policy, "CAIS" + self._letters(120), now + lifetime
        )
        self._keep(identity)
        return identity

    def replace(self, identity: Identity) -> None:
        """Takes the identity in place of the one with the same access key id, as with another policy."""
        self._keep(identity)

    def remove(self, access_key_id: str) -> None:
        """Deletes an access key; one that is not there is no error."""
        if self._by_id.pop(access_key_id, None) is not None:
            self._on_change()

    def restore(self, identities: Iterable[Identity]) -> None:
        """Takes over identities from a saved state."""
        self._by_id = {item.access_key_id: item for item in identities}

    def _keep(self, identity: Identity) -> None:
        self._by_id[identity.access_key_id] = identity
        self._on_change()

    def _letters(self, count: int) -> str:
        text = base64.b64encode(self._random(count)).decode()
        return text.replace("+", "x").replace("/", "y")[:count]
