"""One endpoint of KMS and everything that stands before a request to it.

Made by the provider, one per region. In order: the breaker, the budget, a slot of the region, credentials, the request
with its own time limit, and the observer; around all of it retries and one total deadline. It knows which account is
charged but no operation's meaning.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from kmseal.errors import BadCredentials, KmsealError, Throttled, Unavailable
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.client import Call, KmsClient
from kmseal.kms.alibaba.credentials import CredentialSource
from kmseal.kms.breaker import Breaker
from kmseal.kms.budget import Budget
from kmseal.kms.figures import EndpointFigures
from kmseal.kms.retries import retry
from kmseal.kms.settings import KmsSettings
from kmseal.kms.timing import Timing
from kmseal.kms.wiring import OK, Observer
from kmseal.manifest import Algorithm

_T = TypeVar("_T")
_METADATA: Final = frozenset({"DescribeKey", "ListKeyVersions", "GetPublicKey"})
_DEFAULT_PAUSE: Final = 1.0
"""Seconds without requests after KMS throttled without saying for how long: its quotas are per second."""

_LONGEST_PAUSE: Final = 60.0
"""A server that asks for hours is asked again after a minute: one wrong header must not stop everything."""

_MARGIN: Final = 0.05
"""Seconds that a request ends before the deadline: it must end by its own limit, for the breaker to learn of it. The
wait for a turn ends as early, for the caller to learn that our budget, and not KMS, had no time for it."""

_LEAST_FOR_A_RETRY: Final = 0.25
"""Seconds that a retry must have: with less it would only put a time-out in the place of what is really wrong."""


class Gateway:
    """A region's endpoint."""

    def __init__(
        self,
        region: str,
        client: KmsClient,
        *,
        credentials: CredentialSource,
        breaker: Breaker,
        budget: Budget,
        settings: KmsSettings,
        observer: Observer,
        timing: Timing,
    ) -> None:
        self._region = region
        self._client = client
        self._credentials = credentials
        self._breaker = breaker
        self._budget = budget
        self._settings = settings
        self._observer = observer
        self._timing = timing
        self.reencrypts = {Algorithm.KMS_SYMMETRIC, Algorithm.RSAES_OAEP_SHA_256}
        """The wrappings that ReEncrypt is offered for, as far as is known: for none by dedicated gateways."""
        self.describes = True
        """Whether DescribeKey is offered, as far as is known: not by dedicated gateways either."""

    @property
    def healthy(self) -> bool:
        """Whether the endpoint is thought to answer."""
        return self._breaker.closed

    @property
    def figures(self) -> EndpointFigures:
        """The breaker's, for metrics."""
        return EndpointFigures(self._breaker.endpoint, self._breaker.closed, self._breaker.failures)

    async def call(self, operation: str, key: KeyName, send: Callable[[KmsClient, Call], Awaitable[_T]]) -> _T:
        """Makes one operation within the total deadline.

        :param operation: KMS's name of it, for the budget and the observer
        :param key: the key that it is about: its account is charged, errors and the observer name it
        :param send: one request, and the reading of its answer
        """
        deadline = self._timing.clock() + self._settings.deadline_seconds
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                return await retry(
                    lambda: self._attempt(operation, key, send, deadline),
                    deadline=deadline - _LEAST_FOR_A_RETRY,
                    timing=self._timing,
                )
        except TimeoutError:
            pass
        raise self._too_late()

    async def _attempt(
        self, operation: str, key: KeyName, send: Callable[[KmsClient, Call], Awaitable[_T]], deadline: float
    ) -> _T:
        # Before anything is waited for: an open breaker must cost nothing.
        self._breaker.require_passable()
        allowance = self._budget.allowance(key.account, key.region)
        bucket = allowance.metadata if operation in _METADATA else allowance.crypto
        await bucket.take(max(0.0, deadline - self._timing.clock() - _MARGIN))
        async with self._budget.slot(key.region):
            # Outside of the breaker: a failure of STS says nothing about KMS. The client asks again, at no cost.
            credentials = await self._credentials.get()
            try:
                return await self._request(operation, key, send, deadline)
            except Throttled as throttled:
                # Said in the error too: else the retry would begin, and end at the bucket that is paused here.
                throttled.retry_after = min(throttled.retry_after or _DEFAULT_PAUSE, _LONGEST_PAUSE)
                bucket.pause(throttled.retry_after)
                raise
            except BadCredentials:
                if not await self._credentials.renew(credentials):
                    raise
            return await self._request(operation, key, send, deadline)

    async def _request(
        self, operation: str, key: KeyName, send: Callable[[KmsClient, Call], Awaitable[_T]], deadline: float
    ) -> _T:
        started = self._timing.clock()
        seconds = min(self._settings.attempt_seconds, deadline - started - _MARGIN)
        if seconds <= 0:
            raise self._too_late()
        with self._breaker.guarding():
            result = "Cancelled"
            try:
                outcome = await send(self._client, Call(key, seconds))
            except KmsealError as error:
                result = error.reason
                raise
            else:
                result = OK
                return outcome
            finally:
                self._observer(operation, key.arn, result, self._timing.clock() - started)

    def _too_late(self) -> Unavailable:
        return Unavailable(
            f"KMS in region {self._region} did not answer within {self._settings.deadline_seconds:g} s",
            remedy="it is tried again",
        )
