"""What can be told of the KMS layer at any moment, for metrics: values only, read without waiting for anything.

Made by ``Keyring.figures`` from what budget and providers count anyway. Counts of requests and their results are not
here: those are told one by one to the observer (``kmseal.kms.wiring``).
"""

from dataclasses import dataclass
from typing import Final

CRYPTO: Final = "crypto"
METADATA: Final = "metadata"


@dataclass(frozen=True, slots=True)
class AllowanceFigures:
    """One token bucket."""

    account: str
    region: str
    kind: str
    """``crypto`` or ``metadata``."""
    tokens: float
    """Requests that could be made now; below zero, how many foreground callers wait for turns that they have."""
    rate: float
    """Requests per second."""
    waiting_in_background: int


@dataclass(frozen=True, slots=True)
class RegionFigures:
    """The requests of one region that are under way, to whichever endpoints."""

    region: str
    in_flight: int
    limit: int
    waiting: int
    """Callers that have their turn and wait for a place."""


@dataclass(frozen=True, slots=True)
class EndpointFigures:
    """The circuit breaker of one endpoint."""

    endpoint: str
    """``host[:port]``."""
    closed: bool
    """Whether it is thought to answer, and so is asked."""
    failures: int
    """In a row, up to now."""

    def joined(self, other: "EndpointFigures") -> "EndpointFigures":
        """Of two breakers for the same endpoint the worse: a metric has one value for it."""
        return EndpointFigures(self.endpoint, self.closed and other.closed, max(self.failures, other.failures))


@dataclass(frozen=True, slots=True)
class Figures:
    """All of them, each kind ordered by name."""

    allowances: tuple[AllowanceFigures, ...]
    regions: tuple[RegionFigures, ...]
    endpoints: tuple[EndpointFigures, ...]
