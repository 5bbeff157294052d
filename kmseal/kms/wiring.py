"""What a provider is built from: settings, environment, time and chance, and who is told about requests.

Made once by ``kmseal.kms.keyring`` and handed to each provider's factory. Everything that a test must hold in its hands
(clocks, sleep, randomness, environment) is here, so that no module below reads them on its own. It has no behaviour.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from kmseal.kms.settings import KmsSettings

OK: Final = "ok"
"""The result that an observer is told of a request that succeeded."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks, sleep and chance. ``clock`` is monotonic, ``wall`` is Unix time; both, and ``sleep``, in seconds."""

    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    """A number from 0 up to but without 1. It spreads retries and decides nothing that must be secret."""


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
    observer: Observer = observe_nothing
    on_recovered: OnRecovered = ignore_recovery
    timing: Timing = field(default_factory=Timing)
