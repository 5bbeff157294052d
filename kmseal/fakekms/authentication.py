"""Who asks: the checks that both generations of signatures have in common, around the one that differs.

``service`` calls :meth:`Authenticator.authenticate` before anything else happens to a KMS request. ``acs3`` and
``rpc1`` read what a request claims; here its date, access key, security token, signature and nonce are verified, with
the error codes of the real gateway, or the common ones of Alibaba's gateways where its documentation is silent. All of
it is on real time. Nothing of the request is quoted in a refusal.
"""

import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from kmseal.fakekms import acs3, rpc1
from kmseal.fakekms.claims import Claim
from kmseal.fakekms.identities import Identity
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.requests import Request

MAX_SKEW: Final = 900.0
"""Seconds by which the client's clock may differ from ours."""


@dataclass(slots=True)
class Authenticator:
    """Verifies requests and remembers their nonces.

    :param find: the identity of an access key id, or None
    :param clock: seconds since 1970, in real time
    """

    find: Callable[[str], Identity | None]
    clock: Callable[[], float]
    _nonces: set[str] = field(default_factory=set)
    _nonces_by_age: deque[tuple[float, str]] = field(default_factory=deque)

    def authenticate(self, request: Request, query: list[tuple[str, str]], form: list[tuple[str, str]]) -> Identity:
        """The identity that signed the request, whose decoded parameters are given, to be decoded only once.

        Raises Refusal with the code of the first check that fails.
        """
        if "authorization" not in request.headers and rpc1.is_signed(query, form):
            claim = rpc1.read(request, query, form)
        else:
            claim = acs3.read(request, query)
        now = self.clock()
        if abs(now - _seconds(claim.date)) > MAX_SKEW:
            raise Refusal(
                400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired or too far ahead."
            )
        identity = self.find(claim.access_key_id)
        if identity is None:
            raise Refusal(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        _check_token(claim, identity, now)
        if not hmac.compare_digest(claim.sign(identity.access_key_secret).encode(), claim.signature.encode()):
            raise Refusal(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation.")
        # The nonce is used up only by a request that is genuine: nobody can use up those of others.
        self._use_nonce(f"{claim.access_key_id} {claim.nonce}", now)
        return identity

    def _use_nonce(self, nonce: str, now: float) -> None:
        # Older requests fail by their date, so their nonces need not be remembered.
        while self._nonces_by_age and self._nonces_by_age[0][0] < now - 2 * MAX_SKEW:
            self._nonces.discard(self._nonces_by_age.popleft()[1])
        if nonce in self._nonces:
            raise Refusal(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces.add(nonce)
        self._nonces_by_age.append((now, nonce))


def _seconds(text: str) -> float:
    """A date in the one form that is taken, ``2026-11-24T05:32:41Z``, in seconds since 1970."""
    try:
        if len(text) != 20 or text[-1] != "Z":
            raise ValueError
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Refusal(400, "IllegalTimestamp", "The date of the request is not well formed.") from None


def _check_token(claim: Claim, identity: Identity, now: float) -> None:
    token = claim.security_token
    if not identity.security_token:
        if token:
            raise Refusal(400, "InvalidSecurityToken.Malformed", "A security token does not go with this key.")
        return
    if not token:
        raise Refusal(400, "MissingSecurityToken", "SecurityToken is mandatory for this access key.")
    if not hmac.compare_digest(token.encode(), identity.security_token.encode()):
        raise Refusal(400, "InvalidSecurityToken.Malformed", "Specified SecurityToken is malformed.")
    if identity.expires is not None and now >= identity.expires:
        raise Refusal(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")
