"""The KMS seam: what the rest of kmseal asks of a key management service, whichever it is.

Implemented by one module each (``alibaba``, ``local``), registered in ``kmseal.kms.keyring``, and used by the command
line, the operator and the broker through ``Keyring``. Nothing here knows Kubernetes or a manifest's text. All methods
are coroutines with a total deadline of the implementation's own; all raise only errors of ``kmseal.errors``:
Unavailable, Throttled, AccessDenied, BadCredentials, KeyUnusable, Misconfigured, Refused, Malformed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from kmseal.kms.figures import EndpointFigures
from kmseal.manifest import Wrapping
from kmseal.redacted import Redacted

Context = Mapping[str, str]
"""A KMS encryption context: what the key service binds a wrapping to (docs/format.md, B3)."""


class KeyState(StrEnum):
    """The state of a key, in the service's own words."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"
    PENDING_DELETION = "PendingDeletion"
    PENDING_IMPORT = "PendingImport"


UNUSABLE_STATES: Final[Mapping[str, KeyState]] = {
    "KeyDisabled": KeyState.DISABLED,
    "KeyPendingDeletion": KeyState.PENDING_DELETION,
    "KeyPendingImport": KeyState.PENDING_IMPORT,
}
"""The key's state by the reason of a KeyUnusable error, where the reason tells it.

The reasons are stable. Beside these three there are those of ``NOT_FOUND``, ``KeyVersionNotFound`` (the key is there,
the version that wrapped is not) and ``KeyUnusable`` (a refusal that the service does not explain).
"""

NOT_FOUND: Final = frozenset({"KeyNotFound", "AliasNotFound"})
"""The reasons of a KeyUnusable error which say that nothing of that name is there: deleted, or never in this region."""


@dataclass(frozen=True, slots=True)
class FreshDataKey:
    """A new data key: in plaintext for the caller to use once and drop, and wrapped to be stored."""

    data_key: Redacted
    wrapping: Wrapping


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """An unwrapped data key, and what the service said about it.

    ``key_version_id`` is the version that really wrapped it; ``request_id`` finds the call in the audit trail.
    """

    data_key: Redacted
    key_id: str
    key_version_id: str
    request_id: str


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """A key as the service describes it. ``key_id`` has the form of docs/format.md K4, whatever was asked for.

    ``primary_version`` is empty where there is none (a key without material, and asymmetric keys), or where a key that
    cannot be used now does not tell.
    """

    key_id: str
    state: KeyState
    primary_version: str
    asymmetric: bool = False


@dataclass(frozen=True, slots=True)
class PublicHalf:
    """The public half of one version of an asymmetric key, as PEM text (SubjectPublicKeyInfo)."""

    key_id: str
    key_version_id: str
    pem: str


class Provider(Protocol):
    """One key management service.

    ``key`` arguments are what a person may write: the ARN of a key or of an alias, or ``local:<name>``; wrappings
    always name the key itself.
    """

    async def generate(self, key: str, context: Context) -> FreshDataKey:
        """Draws a new data key and wraps it. Needs the right GenerateDataKey only."""
        ...

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        """Wraps a data key that the caller holds in plaintext, as for a second region. Needs the right Encrypt."""
        ...

    async def unwrap(self, wrapping: Wrapping, context: Context) -> Unwrapped:
        """Opens a wrapping. Needs the right Decrypt. Raises Refused when the context or the bytes do not fit."""
        ...

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        """Wraps the same data key under the primary version of ``key``, inside the service where it can.

        ``description`` is what the caller knows of ``key`` from an earlier ``describe``, which then is not repeated.
        That it is from before is what makes it safe: where the key was rotated since, the new wrapping names an older
        version than the true one, so that it counts as stale at worst and never as newer than it is.
        """
        ...

    async def describe(self, key: str) -> KeyDescription:
        """State and primary version of a key: a metadata call, never to be made once for each object.

        Raises KeyUnusable with a reason of ``NOT_FOUND`` for a key that is not there. A key that is there is described
        whatever its state; only behind an alias, where the service does not describe keys, KeyUnusable tells the state
        (``UNUSABLE_STATES``).
        """
        ...

    async def public_key(self, key: str, version: str = "") -> PublicHalf:
        """The public half of an asymmetric key, by default of its newest version. Raises Refused where it has none."""
        ...

    def healthy(self, key: str) -> bool:
        """Whether the key's endpoint is thought to answer, without asking it. Decides about order only."""
        ...

    def endpoints(self) -> Sequence[EndpointFigures]:
        """The endpoints that were asked up to now, for metrics; none for a provider without a network."""
        ...

    async def close(self) -> None:
        """Closes connections and background tasks; afterwards the provider is of no use."""
        ...
