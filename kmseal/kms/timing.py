"""Time and chance of the KMS layer, so that tests can hold both in their hands.

Made once by ``kmseal.kms.keyring`` and handed to all that waits, measures or spreads. No other module of the layer
reads a clock, sleeps or draws a random number on its own.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Clocks, sleep and chance. ``clock`` is monotonic, ``wall`` is Unix time; both, and ``sleep``, in seconds."""

    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    """A number from 0 up to but without 1. It spreads retries and decides nothing that must be secret."""
