"""The clock of keys: real time, moved forward as far as a test or a demonstration likes.

Everything that happens to keys by themselves runs on it: dates of creation, automatic rotation, the seven days between
versions, windows of deletion, the expiry of imported material and of import tokens. What clients live by stays on real
time: the dates of signatures, nonces, quotas, security tokens and OIDC tokens, and the audit trail. So a year may pass
for the keys while the clients' clocks, and their credentials, stay right.
"""

import math
from collections.abc import Callable


class KeyClock:
    """Seconds since 1970, as keys see them: ``clock()``.

    :param real: seconds since 1970
    :param on_move: called after each move, so that what has become due happens at once
    """

    def __init__(self, real: Callable[[], float], on_move: Callable[[], None]) -> None:
        self._real = real
        self._on_move = on_move
        self._offset = 0.0

    def __call__(self) -> float:
        return self._real() + self._offset

    @property
    def offset(self) -> float:
        """Seconds by which it is ahead of real time."""
        return self._offset

    def advance(self, seconds: float) -> None:
        """Lets time pass, and all that is due by then happen. It never goes back: ValueError."""
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError("time only goes forward")
        self._offset += seconds
        self._on_move()

    def restore(self, offset: float) -> None:
        """Takes over the offset of a saved state; nothing happens yet."""
        self._offset = offset
