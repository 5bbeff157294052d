"""The KMS seam: what the rest of kmseal asks of a key management service, whichever it is.

Implemented by one module each (``alibaba``, ``local``), registered in ``kmseal.kms.keyring``, and used by the command
line, the operator and the broker through ``Keyring``. Nothing here knows Kubernetes or a manifest's text. All methods
are coroutines with a total deadline of the implementation's own; all raise only errors of ``kmseal.errors``:
Unavailable, Throttled, AccessDenied, BadCredentials, KeyUnusable, Misconfigured, Refused, Malformed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

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
    """A key as the service describes it. ``key_id`` has the form of docs/format.md K4, whatever was asked for."""

    key_id: str
    state: KeyState
    primary_version: str


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

    async def rewrap(self, wrapping: Wrapping, key: str, context: Context) -> Wrapping:
        """Wraps the same data key under the primary version of ``key``, inside the service where it can."""
        ...

    async def describe(self, key: str) -> KeyDescription:
        """State and primary version of a key: a metadata call, never to be made once for each object."""
        ...

    def healthy(self, key: str) -> bool:
        """Whether the key's endpoint is thought to answer, without asking it. Decides about order only."""
        ...

    async def close(self) -> None:
        """Closes connections and background tasks; afterwards the provider is of no use."""
        ...
