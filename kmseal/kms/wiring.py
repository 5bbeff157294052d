"""What a provider is built from: settings, environment, connection, budget, time, and who is told about requests.

Made by ``kmseal.kms.keyring`` and handed to each provider's factory. Everything that a test must hold in its hands
(clocks, sleep, randomness, environment) is here, so that no module below reads them on its own. It has no behaviour.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from kmseal.kms.budget import Budget
from kmseal.kms.connection import OWN, Connection
from kmseal.kms.settings import KmsSettings
from kmseal.kms.timing import Timing

OK: Final = "ok"
"""The result that an observer is told of a request that succeeded."""


class Observer(Protocol):
    """Is told of every request that really went to a key service, retries included: for metrics."""

    def __call__(self, operation: str, key_id: str, result: str, seconds: float) -> None:
        """``result`` is ``ok`` or the reason of the error; must return at once and must not raise."""
        ...


OnRecovered = Callable[[str], None]
"""Is called with the host of an endpoint that answers again after its circuit breaker had opened."""


def observe_nothing(operation: str, key_id: str, result: str, seconds: float) -> None:
    """The observer of those who want none."""


def ignore_recovery(endpoint: str) -> None:
    """The recovery listener of those who want none."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """All that a provider's factory gets."""

    settings: KmsSettings
    environment: Mapping[str, str]
    budget: Budget
    """Of the whole keyring: quotas belong to an account, by however many connections it is reached."""
    observer: Observer = observe_nothing
    on_recovered: OnRecovered = ignore_recovery
    connection: Connection = OWN
    timing: Timing = field(default_factory=Timing)
