"""Credentials as values, and the sources that hold them ready.

Asked by the KMS client before each request: ``get`` answers at once except for the very first exchange and after real
expiry. Which source is used is decided in ``detection``; how a token becomes credentials is in ``sts``. The SDK's own
providers are not used: they block the event loop for seconds when two calls meet a refresh, fail calls while the old
credentials are still valid, and log the token.
"""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from kmseal.errors import KmsealError, Unavailable
from kmseal.kms.timing import Timing
from kmseal.redacted import Redacted

_REFRESH_AT: Final = 0.7
"""Share of the lifetime after which new credentials are fetched: of an hour, 18 minutes are left to overcome an outage.
"""
_PAUSE_MAX: Final = 60.0
_RENEW_PAUSE: Final = 30.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What signs requests. The access key's id is not secret; it stands in every audit trail."""

    access_key_id: str
    access_key_secret: Redacted
    security_token: Redacted | None = None
    expires: float | None = None
    """Unix time in seconds; None for those that do not expire."""
    provider: str = "static_ak"
    """How they came about, in the SDK's words: sent as ``x-acs-credentials-provider``."""


class CredentialSource(Protocol):
    """Where requests get their credentials."""

    async def get(self) -> Credentials:
        """Valid credentials. Raises Unavailable, Throttled, BadCredentials or Misconfigured when there are none."""
        ...

    async def renew(self, refused: Credentials) -> bool:
        """After the service refused ``refused``: whether other ones can be had now, so that a new try makes sense."""
        ...

    async def close(self) -> None:
        """Ends background work."""
        ...


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """A source of credentials that nobody refreshes: an access key, or a token from elsewhere until it expires."""

    credentials: Credentials

    async def get(self) -> Credentials:
        """The credentials."""
        return self.credentials

    async def renew(self, refused: Credentials) -> bool:
        """There are no others."""
        return False

    async def close(self) -> None:
        """Has nothing to end."""


class RefreshedCredentials:
    """A source that exchanges something for short-lived credentials and keeps them fresh in the background.

    One exchange is in flight at most, whoever waits for it. A failed one is not repeated before its pause is over;
    until then callers get its error at once. Belongs to one event loop.
    """

    def __init__(self, exchange: Callable[[], Awaitable[Credentials]], timing: Timing) -> None:
        """:param exchange: fetches new credentials with ``expires`` set, within a deadline of its own"""
        self._exchange = exchange
        self._timing = timing
        self._current: Credentials | None = None
        self._lifetime = 0.0
        self._failure: KmsealError | None = None
        self._failures = 0
        self._not_before = timing.clock()
        self._renewed_at = timing.clock() - _RENEW_PAUSE
        self._running: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def get(self) -> Credentials:
        """The current credentials for as long as they are really valid, else the outcome of one exchange."""
        current = self._valid()
        if current is not None:
            return current
        if self._failure is None or self._timing.clock() >= self._not_before:
            await self._exchange_once()
        current = self._valid()
        if current is not None:
            return current
        # A copy for each caller: one exception raised in several tasks would collect the tracebacks of all.
        raise (
            copy.copy(self._failure)
            if self._failure
            else Unavailable(
                "STS gave credentials that have expired already", reason="ClockSkew", remedy="set the clock"
            )
        )

    async def renew(self, refused: Credentials) -> bool:
        """Exchanges again, unless that was done for another caller, or a moment ago."""
        running = self._running is not None and not self._running.done()
        if self._current is refused and (running or self._timing.clock() - self._renewed_at >= _RENEW_PAUSE):
            self._renewed_at = self._timing.clock()
            await self._exchange_once()
        return self._current is not None and self._current is not refused

    async def close(self) -> None:
        """Cancels the refresh and an exchange in flight."""
        tasks = [task for task in (self._keeper, self._running) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._keeper = self._running = None

    def _valid(self) -> Credentials | None:
        current = self._current
        if current is None or (current.expires is not None and self._timing.wall() >= current.expires):
            return None
        return current

    async def _exchange_once(self) -> None:
        """Joins the exchange in flight, or starts one. Its outcome is in the fields; a caller may be cancelled."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run_exchange(), name="kmseal credentials exchange")
        await asyncio.shield(self._running)

    async def _run_exchange(self) -> None:
        try:
            fresh = await self._exchange()
        except KmsealError as error:
            self._failures += 1
            self._failure = copy.copy(error)
            longest = min(_PAUSE_MAX, 2.0 ** (self._failures - 1))
            self._not_before = self._timing.clock() + longest * (0.5 + 0.5 * self._timing.chance())
            return
        self._failure, self._failures = None, 0
        self._current = fresh
        self._lifetime = (fresh.expires or 0.0) - self._timing.wall()
        if self._keeper is None and fresh.expires is not None:
            self._keeper = asyncio.create_task(self._keep_fresh(), name="kmseal credentials refresh")

    async def _keep_fresh(self) -> None:
        while True:
            if self._failure is None:
                # Up to a tenth earlier by chance: replicas that started together must not meet at STS for ever.
                pause = self._lifetime * _REFRESH_AT * (1.0 - 0.1 * self._timing.chance())
            else:
                pause = self._not_before - self._timing.clock()
            await self._timing.sleep(max(1.0, pause))
            await self._exchange_once()
