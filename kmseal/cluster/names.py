"""How objects and we ourselves are called, and how long to wait: what everything in this package uses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

FIELD_MANAGER: Final = "kmseal"
"""The name under which the API server keeps what we write."""


class Key(NamedTuple):
    """Namespace and name of an object; the namespace of a cluster-scoped one is empty."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the n-th failure in a row: full jitter below an exponential ceiling.

    ``base`` and ``cap`` are in seconds; ``random`` gives numbers in [0, 1). A delay is at least half the ceiling, so
    that retries spread out without coming too early.
    """

    base: float
    cap: float
    random: Callable[[], float]

    def delay(self, failures: int) -> float:
        """Seconds to wait after ``failures`` (1 or more) failures in a row."""
        ceiling = min(self.cap, self.base * 2.0 ** min(failures - 1, 32))
        return ceiling * (0.5 + self.random() / 2)
