"""Verification of ACS3-HMAC-SHA256 signed requests: signature, date, nonce and security token.

``service`` calls :meth:`Verifier.verify` before anything else happens to a KMS request. The signature is computed anew
from what arrived, after decoding and encoding it once more: that is what makes an altered query, header or body show.
The checks are those of the real gateway, with its error codes; where the documentation is silent the common code of
Alibaba's gateways is used. Nothing of the request is quoted in a refusal.
"""

import hashlib
import hmac
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import quote

from kmseal.fakekms.identities import Identity
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.requests import Request

ALGORITHM: Final = "ACS3-HMAC-SHA256"
MAX_SKEW: Final = 900.0
"""Seconds by which the client's clock may differ from ours."""

_ALWAYS_SIGNED: Final = frozenset(
    {"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"}
)


class Verifier:
    """Verifies requests and remembers their nonces.

    :param find: the identity of an access key id, or None
    :param clock: seconds since 1970
    """

    def __init__(self, find: Callable[[str], Identity | None], clock: Callable[[], float]) -> None:
        self._find = find
        self._clock = clock
        self._nonces: set[str] = set()
        self._nonces_by_age: deque[tuple[float, str]] = deque()

    def verify(self, request: Request, query: Sequence[tuple[str, str]]) -> Identity:
        """The identity that signed the request, whose decoded query is given too, so that it is decoded only once.

        Raises Refusal with the code of the first check that fails.
        """
        access_key_id, names, signature = _parse_authorization(request.headers.get("authorization", ""))
        _check_signed_names(request, names)
        self._check_date(request.headers["x-acs-date"])
        identity = self._find(access_key_id)
        if identity is None:
            raise Refusal(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        self._check_token(request, identity)
        if hashlib.sha256(request.body).hexdigest() != request.headers["x-acs-content-sha256"]:
            raise _mismatch()
        expected = sign(request, query, names, identity.access_key_secret)
        if not hmac.compare_digest(expected.encode(), signature.encode()):
            raise _mismatch()
        # The nonce is used up only by a request that is genuine: nobody can use up those of others.
        self._use_nonce(f"{access_key_id} {request.headers['x-acs-signature-nonce']}")
        return identity

    def _check_date(self, text: str) -> None:
        try:
            if len(text) != 20 or text[-1] != "Z":
                raise ValueError
            then = datetime.fromisoformat(text).timestamp()
        except ValueError:
            raise Refusal(400, "IllegalTimestamp", "The input parameter x-acs-date is not well formed.") from None
        if abs(self._clock() - then) > MAX_SKEW:
            raise Refusal(
                400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired or too far ahead."
            )

    def _check_token(self, request: Request, identity: Identity) -> None:
        token = request.headers.get("x-acs-security-token", "")
        if not identity.security_token:
            if token:
                raise Refusal(400, "InvalidSecurityToken.Malformed", "A security token does not go with this key.")
            return
        if not token:
            raise Refusal(400, "MissingSecurityToken", "SecurityToken is mandatory for this access key.")
        if not hmac.compare_digest(token.encode(), identity.security_token.encode()):
            raise Refusal(400, "InvalidSecurityToken.Malformed", "Specified SecurityToken is malformed.")
        if identity.expires is not None and self._clock() >= identity.expires:
            raise Refusal(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")

    def _use_nonce(self, nonce: str) -> None:
        now = self._clock()
        # Older requests fail by their date, so their nonces need not be remembered.
        while self._nonces_by_age and self._nonces_by_age[0][0] < now - 2 * MAX_SKEW:
            self._nonces.discard(self._nonces_by_age.popleft()[1])
        if nonce in self._nonces:
            raise Refusal(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces.add(nonce)
        self._nonces_by_age.append((now, nonce))


def sign(request: Request, query: Sequence[tuple[str, str]], names: Sequence[str], secret: str) -> str:
    """The signature that a request must carry, over the signed header ``names`` (lower case, sorted)."""
    parameters = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(query))
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in names)
    payload = request.headers["x-acs-content-sha256"]
    canonical = f"{request.method}\n{request.path}\n{parameters}\n{headers}\n{';'.join(names)}\n{payload}"
    text = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.digest(secret.encode(), text.encode(), "sha256").hex()


def _parse_authorization(header: str) -> tuple[str, list[str], str]:
    """Access key id, signed header names and signature out of the Authorization header."""
    algorithm, _, rest = header.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    if algorithm != ALGORITHM or not all(parts.get(name) for name in ("Credential", "SignedHeaders", "Signature")):
        raise _incomplete("the Authorization header is not one of ACS3-HMAC-SHA256")
    return parts["Credential"], parts["SignedHeaders"].split(";"), parts["Signature"]


def _check_signed_names(request: Request, names: list[str]) -> None:
    if names != sorted(set(names)):
        raise _incomplete("the signed headers are not in order")
    needed = {name for name in request.headers if name.startswith("x-acs-")} | _ALWAYS_SIGNED
    if request.body:
        # Without a body some HTTP clients add a content type on their own, after signing: it decides nothing then.
        needed.add("content-type")
    if not needed <= set(names):
        raise _incomplete("a header that has to be signed is not")
    if not all(name in request.headers for name in _ALWAYS_SIGNED):
        raise _incomplete("a header that has to be there is not")


def _incomplete(why: str) -> Refusal:
    return Refusal(400, "IncompleteSignature", f"The request signature does not conform to the standard: {why}.")


def _mismatch() -> Refusal:
    return Refusal(400, "SignatureDoesNotMatch", "Specified signature is not matched with our calculation.")
