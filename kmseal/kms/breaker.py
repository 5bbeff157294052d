"""A circuit breaker per endpoint: a region that is down costs a few time-outs, not one per object.

Called by a provider around each request. After enough failures in a row the breaker opens: requests are refused at
once, with the failure that opened it, so that the true cause stays in view. After a while one request may try; when it
is answered the breaker closes and tells its listener, who can retry at once what has been waiting.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from kmseal.errors import KmsealError, Misconfigured, Unavailable
from kmseal.kms.timing import Timing
from kmseal.kms.wiring import OnRecovered


class CircuitOpen(Unavailable):
    """The endpoint was not asked, because it has failed several times in a row."""


class Breaker:
    """The breaker of one endpoint. Only Unavailable counts as a failure: the other errors are answers."""

    def __init__(
        self, endpoint: str, *, failures: int, seconds: float, timing: Timing, on_recovered: OnRecovered
    ) -> None:
        self.endpoint = endpoint
        self._limit = failures
        self._seconds = seconds
        self._timing = timing
        self._on_recovered = on_recovered
        self.failures = 0
        self._last_failure: Unavailable | None = None
        self._opened_at: float | None = None
        self._probing = False

    @property
    def closed(self) -> bool:
        """Whether the endpoint is thought to answer."""
        return self._opened_at is None

    def require_passable(self) -> None:
        """Raises CircuitOpen when a request would be refused now: to be asked before queueing for anything."""
        if self._opened_at is None:
            return
        wait = self._opened_at + self._seconds - self._timing.clock()
        if wait <= 0 and not self._probing:
            return
        last = self._last_failure
        raise CircuitOpen(
            last.message if last else f"{self.endpoint} does not answer",
            reason=last.reason if last else "",
            remedy=f"{last.remedy + ', ' if last and last.remedy else ''}it is asked again within {self._seconds:g} s",
        )

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """Surrounds one request. Raises CircuitOpen instead of making it while the breaker is open."""
        self.require_passable()
        probe = self._opened_at is not None
        self._probing = self._probing or probe
        try:
            yield
        except Unavailable as failure:
            self._fail(failure, probe=probe)
            raise
        except Misconfigured:
            raise  # Refused on this side, as over an untrusted certificate: it says nothing about the endpoint.
        except KmsealError:
            self._succeed()
            raise
        else:
            self._succeed()
        finally:
            # A cancelled request says nothing about the endpoint; a cancelled probe lets the next one try.
            if probe:
                self._probing = False

    def _fail(self, failure: Unavailable, *, probe: bool) -> None:
        self.failures += 1
        # A copy of the words only: the exception itself would keep its traceback, and so its frames, alive.
        self._last_failure = Unavailable(failure.message, reason=failure.reason, remedy=failure.remedy)
        if probe or (self._opened_at is None and self.failures >= self._limit):
            self._opened_at = self._timing.clock()

    def _succeed(self) -> None:
        self.failures = 0
        self._last_failure = None
        if self._opened_at is not None:
            self._opened_at = None
            self._on_recovered(self.endpoint)
