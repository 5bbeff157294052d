"""Certificates of our own, kept in a Secret that all replicas share and any of them renews.

One of the sources that ``certificates`` turns to. What is to be done is ``rollover``'s to say; here it is read, done
and written under a precondition, and read again where another replica was faster.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from kmseal.errors import Conflict
from kmseal_webhook.authority import fingerprint
from kmseal_webhook.material import Material
from kmseal_webhook.rollover import Chain, Step, Terms, carry_out, decide
from kmseal_webhook.tlssecret import TlsSecret

_ATTEMPTS: Final = 5
_log = logging.getLogger(__name__)


class OwnSource:
    """The Secret as a source of certificates.

    :param names: the DNS names that the certificate has to cover
    :param chance: in [0, 1), this replica's place in the spread of renewals
    """

    def __init__(
        self, secret: TlsSecret, names: Sequence[str], *, terms: Terms, now: Callable[[], datetime], chance: float
    ) -> None:
        self._secret = secret
        self._names = names
        self._terms = terms
        self._now = now
        self._chance = chance
        self._held: Chain | None = None
        self._held_at: datetime | None = None

    async def current(self) -> Material:
        """What to serve and to trust now. Raises what the API server answers."""
        for _ in range(_ATTEMPTS):
            found = await self._secret.read()
            chain = found.chain if found else None
            if found and found.problem:
                _log.error("the Secret of the certificates is of no use and made anew: %s", found.problem)
            now, held = self._now(), self._lately_held()
            step = decide(chain, held, self._names, self._terms, now, self._chance)
            if step is not Step.KEEP:
                chain = carry_out(step, chain, held, self._names, self._terms, now)
                try:
                    await self._secret.write(chain, found)
                except Conflict:
                    continue
                _log.info(
                    "certificates: %s; signer %s, serving %s until %s", step.value,
                    fingerprint(chain.signer.certificate), fingerprint(chain.leaf.certificate),
                    f"{chain.leaf.certificate.expires_at:%Y-%m-%d}",
                )  # fmt: skip
            if chain:
                self._held, self._held_at = chain, now
                return Material(
                    chain.leaf.certificate.pem, chain.leaf.key, chain.bundle, chain.leaf.certificate.expires_at
                )
        raise Conflict("other replicas change the certificates all the time", remedy="it is tried again")

    def _lately_held(self) -> Chain | None:
        """What was held at the last look. After a long blindness it bridges nothing: it is not trusted any more, and
        trusting an authority anew that somebody is rid of would be worse than a failed handshake."""
        is_fresh = self._held_at and self._now() - self._held_at <= self._terms.overlap
        return self._held if is_fresh else None
