"""Keeps a certificate served and the cluster trusting it: asks the source, tells the cluster, then serves. For ever.

The order is the point: what is new is published before it is served, and what fails leaves everything as it was. The
rest of the process reads ``ca_pem()`` and ``serves_trust_bundle``, which say how pods come to trust the broker.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta

from kmseal.cluster.names import Backoff
from kmseal.errors import KmsealError
from kmseal_webhook.material import Source
from kmseal_webhook.registration import Registration
from kmseal_webhook.tls import ServingTls

_log = logging.getLogger(__name__)


class Certificates:
    """The certificates of this process.

    :param ports: what serves the certificate
    :param settle: how long to go on with the old certificate after the cluster was told of a new bundle
    :param pause: seconds between two looks at the source
    """

    def __init__(
        self, source: Source, registration: Registration, ports: Sequence[ServingTls], *, settle: timedelta,
        pause: float, now: Callable[[], datetime], backoff: Backoff,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._source = source
        self._registration = registration
        self._ports = ports
        self._settle = settle
        self._pause = pause
        self._now = now
        self._backoff = backoff
        self._sleep = sleep
        self._bundle = b""
        self._served = b""
        self._settled_at: datetime | None = None
        self.loaded = asyncio.Event()
        """Set once there is a certificate to serve."""
        self.expires_at: datetime | None = None
        """When the one that is served expires."""

    def ca_pem(self) -> str:
        """The authorities that pods are to trust, PEM; empty before the first certificate was loaded."""
        return self._bundle.decode("ascii")

    @property
    def serves_trust_bundle(self) -> bool:
        """Whether the API serves ClusterTrustBundles and ours is there, for signer kmseal.dev/broker."""
        return self._registration.serves_trust_bundle

    @property
    def is_valid(self) -> bool:
        """Whether what is served has not expired."""
        return self.expires_at is not None and self._now() < self.expires_at

    async def run(self) -> None:
        """Keeps them until cancelled."""
        failures = 0
        while True:
            try:
                wait = await self.renew()
                failures = 0
            except KmsealError as error:
                failures += 1
                wait = self._backoff.delay(failures)
                _log.warning(
                    "certificates could not be seen to: %s", error,
                    extra={"reason": error.reason, "retry_seconds": round(wait, 1)},
                )  # fmt: skip
            await self._sleep(wait)

    async def renew(self) -> float:
        """One turn; answers with the seconds until the next."""
        material = await self._source.current()
        changed = await self._registration.publish(material.bundle)
        # Another replica may have published it a moment ago: what is new to us counts as new to the cluster.
        changed = changed or material.bundle != self._bundle
        self._bundle = material.bundle
        if material.chain == self._served:
            return self._pause
        now = self._now()
        if changed:
            self._settled_at = now + self._settle
        # An API server that has not heard of the bundle yet, or a kubelet, would not trust the new certificate. There
        # is no hurry while the old one is good.
        if self.is_valid and self._settled_at and now < self._settled_at:
            return min(self._pause, (self._settled_at - now).total_seconds())
        for port in self._ports:
            port.load(material.chain, material.key)
        self._served, self.expires_at = material.chain, material.expires_at
        self.loaded.set()
        _log.info("serving a certificate that expires on %s", f"{material.expires_at:%Y-%m-%d %H:%M:%S}")
        return self._pause
