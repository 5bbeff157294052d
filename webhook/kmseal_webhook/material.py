"""What a source of certificates gives: a certificate to serve and a bundle to trust, as one value."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from kmseal.redacted import Redacted


@dataclass(frozen=True, slots=True)
class Material:
    """All PEM. ``chain`` may have intermediate certificates after the first; ``bundle`` is what clients need."""

    chain: bytes
    key: Redacted
    bundle: bytes
    expires_at: datetime


class Source(Protocol):
    """Where certificates come from."""

    async def current(self) -> Material:
        """What to serve and to trust now; may renew it first. Raises KmsealError where there is none."""
        ...
