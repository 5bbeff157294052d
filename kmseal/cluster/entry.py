"""One KMSKey in a server's memory: what its spec says, and what is known of the key it names.

Made by ``keys`` from what the feed shows, and kept up by the operator's polls. What an earlier process wrote into the
status is believed until the first poll, so that a restart knows at once which keys were shut. It asks nobody.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from kmseal.cluster.holdings import KeyUse
from kmseal.errors import KmsealError, Malformed
from kmseal.kms.provider import KeyDescription, KeyState
from kmseal.kmskey import AUTOMATIC, AUTOMATIC_LABEL, KMSKey
from kmseal.selectors import AllowedNamespaces

Json = dict[str, Any]

NOT_FOUND: Final = "NotFound"
UNKNOWN: Final = "Unknown"
_PREVIOUS_MAX: Final = 64
_VERSIONS_MAX: Final = 256
_OWN_WAY: Final = ("", "", "", None)
"""What says how a key is reached, where that is the process's own way."""
_SHUT: Final = frozenset({KeyState.DISABLED, KeyState.PENDING_DELETION, KeyState.PENDING_IMPORT})
"""States that somebody brought about on purpose, as opposed to faults and to keys that cannot be found."""


@dataclass(slots=True)
class Entry:
    """One KMSKey. Only ``keys`` and the methods here change it."""

    key: KMSKey
    uid: str
    generation: int
    version: int
    automatic: bool
    invalid: KmsealError | None = None
    """Why the spec cannot be read, as when a newer CRD knows more than this process: then nobody may use the key."""
    key_id: str = ""
    """The key that ``spec.keyId`` names now; empty for an alias that was never resolved."""
    state: str = UNKNOWN
    primary: str = ""
    previous: tuple[str, ...] = ()
    """Keys that the alias named before, oldest first."""
    versions: tuple[KeyUse, ...] = ()
    """Primary versions in the order in which they were seen."""
    status: Json = field(default_factory=dict)
    """As the API server shows it."""
    confirmed: bool = False
    """Whether the state was asked for in this process's life, and not only read from the status."""
    failure: KmsealError | None = None
    """Why the last poll failed; None when it did not."""
    polled_at: float | None = None
    """When it was last asked, by the monotonic clock."""
    ask_at: float | None = None
    """When it is to be asked although its interval is not over; None for no such wish."""
    shut_formers: frozenset[str] = frozenset()
    """Former keys that somebody has taken out of use, as last polled in this process's life."""
    unheard: set[KeyUse] = field(default_factory=set)
    """Versions of the present key that objects named for the first time after the last poll."""
    connected: bool = True
    """Whether the key is reached as the spec says now; False until the process has seen to it."""

    @classmethod
    def read(cls, raw: Json) -> "Entry | None":
        """Reads a KMSKey from the API server; None for one that names no key at all."""
        metadata, status = raw["metadata"], _dict(raw.get("status"))
        invalid = None
        try:
            key = KMSKey.parse(raw)
        except Malformed as error:
            spec = _dict(raw.get("spec"))
            key_id = spec.get("keyId")
            if not isinstance(key_id, str):
                return None
            # Failing closed: its limits cannot be read, so that nobody is within them; nor for the keys it replaces.
            replaces = tuple(item for item in _list(spec.get("replaces")) if isinstance(item, str))
            key = KMSKey(metadata["name"], key_id, replaces, allowed_namespaces=AllowedNamespaces(frozenset()))
            invalid = error
        return cls(
            key=key, uid=metadata["uid"], generation=int(metadata.get("generation", 0)),
            version=int(metadata["resourceVersion"]),
            automatic=(metadata.get("labels") or {}).get(AUTOMATIC_LABEL) == AUTOMATIC, invalid=invalid,
            key_id=str(status.get("keyId") or "") if key.is_alias else key.key_id,
            state=str(status.get("state") or UNKNOWN), primary=str(status.get("primaryVersion") or ""),
            previous=tuple(str(key_id) for key_id in _list(status.get("previousKeys")))[-_PREVIOUS_MAX:],
            versions=tuple(_versions(status))[-_VERSIONS_MAX:],
            status=status, connected=_way(key) == _OWN_WAY,
        )  # fmt: skip

    def carry_over(self, before: "Entry") -> None:
        """Takes over what an earlier entry of the same KMSKey has learned.

        Where nobody here has asked KMS, the newer status says more than the older one did: that is how a process that
        polls no key hears of one that was shut.
        """
        if before.confirmed:
            self.key_id, self.state, self.primary = before.key_id, before.state, before.primary
            self.previous, self.versions = before.previous, before.versions
        self.confirmed, self.failure, self.polled_at = before.confirmed, before.failure, before.polled_at
        self.ask_at, self.shut_formers, self.unheard = before.ask_at, before.shut_formers, set(before.unheard)
        self.connected = before.connected
        if _way(self.key) != _way(before.key):
            self.connected, self.polled_at = False, None  # Nothing is opened by the old way, nor is a poll waited for.

    def learn(self, description: KeyDescription, at: float, heard: frozenset[KeyUse] = frozenset()) -> None:
        """Takes in what KMS said of the key, and that it was asked when the versions ``heard`` had been met."""
        if self.key_id and self.key_id != description.key_id:
            kept = [key_id for key_id in self.previous if key_id not in (self.key_id, description.key_id)]
            self.previous = (*kept, self.key_id)[-_PREVIOUS_MAX:]
        told = description.primary_version
        if not told and self.key_id == description.key_id and not description.asymmetric:
            told = self.primary  # A key that cannot be used does not always tell: that is no news of its versions.
        self.key_id, self.state, self.primary = description.key_id, description.state.value, told
        use = KeyUse(self.key_id, self.primary)
        if self.primary and use not in self.versions:
            self.versions = (*self.versions, use)[-_VERSIONS_MAX:]
        self.confirmed, self.failure, self.polled_at = True, None, at
        self.unheard -= heard | {use}

    def meet(self, use: KeyUse) -> bool:
        """Takes in a version that an object names; says whether KMS should be asked about it."""
        if use.key_id != self.key_id or not self.primary or use in self.versions or use in self.unheard:
            return False
        if not self.confirmed or len(self.unheard) >= _VERSIONS_MAX:
            return False
        self.unheard.add(use)
        return True

    def fail(self, error: KmsealError, at: float) -> None:
        """Takes in that the key could not be described. Its state stays what it was last: a fault is no news of it."""
        self.failure, self.polled_at = error, at

    def miss(self, error: KmsealError, at: float) -> None:
        """Takes in that KMS does not know the key: perhaps a wrong region or account, so that nobody shut it."""
        self.state, self.confirmed = NOT_FOUND, True
        self.failure, self.polled_at = error, at

    @property
    def former(self) -> frozenset[str]:
        """Keys whose wrappings are to be moved under the present one."""
        return frozenset((*self.previous, *self.key.replaces)) - {self.key_id}

    @property
    def covered(self) -> frozenset[str]:
        """All keys that this KMSKey speaks of."""
        return self.former | ({self.key_id} if self.key_id else frozenset())

    @property
    def replaces(self) -> tuple[str, ...]:
        """Keys that its spec says it replaces."""
        return self.key.replaces

    @property
    def is_neutral(self) -> bool:
        """Whether it was registered by the operator and nobody has said anything in it since."""
        return self.automatic and self.key.is_bare

    @property
    def is_shut(self) -> bool:
        """Whether somebody has taken the present key out of use."""
        return self.state in _SHUT

    def shuts(self, key_id: str) -> bool:
        """Whether somebody has taken one of the keys that this KMSKey speaks of out of use."""
        return self.is_shut if key_id == self.key_id else key_id in self.shut_formers

    def learn_former(self, key_id: str, state: KeyState) -> bool:
        """Takes in the state of a former key; says whether that is news."""
        before = self.shut_formers
        self.shut_formers = before | {key_id} if state in _SHUT else before - {key_id}
        return self.shut_formers != before

    @property
    def description(self) -> KeyDescription | None:
        """The key as a destination of wrappings; None while it cannot be one, as for an asymmetric one."""
        known = self.confirmed and self.connected and not self.invalid
        if not known or self.state != KeyState.ENABLED or not self.primary:
            return None
        return KeyDescription(self.key_id, KeyState.ENABLED, self.primary)

    def is_outdated(self, use: KeyUse) -> bool:
        """Whether a wrapping is under another version of the present key than the primary one.

        One under a version that was first met after the last poll may be newer than what is known: the next poll says.
        """
        if use in self.unheard:
            return False
        # An asymmetric key has no primary version: each of its versions opens what it wrapped, and none is older.
        return use.key_id == self.key_id and self.primary not in ("", use.key_version_id)


def _way(key: KMSKey) -> tuple[object, ...]:
    return key.endpoint, key.ca_bundle, key.secret_name, key.role


def _versions(status: Json) -> Iterator[KeyUse]:
    for item in map(_dict, _list(status.get("versions"))):
        # One that objects named and nobody ever saw as primary may be made up.
        if item.get("keyId") and item.get("id") and not item.get("met"):
            yield KeyUse(str(item["keyId"]), str(item["id"]))


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
