"""The signature ACS3-HMAC-SHA256, in the headers of a request: reading it, and computing it anew.

``authentication`` calls :func:`read`. The signature is computed from what arrived, after decoding and encoding it once
more: that is what makes an altered query, header or body show.
"""

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from kmseal.fakekms.claims import Claim, incomplete
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.requests import Request

ALGORITHM: Final = "ACS3-HMAC-SHA256"

_ALWAYS_SIGNED: Final = frozenset(
    {"host", "x-acs-action", "x-acs-content-sha256", "x-acs-date", "x-acs-signature-nonce", "x-acs-version"}
)


def read(request: Request, query: Sequence[tuple[str, str]]) -> Claim:
    """What the request claims. Raises IncompleteSignature, or SignatureDoesNotMatch for another body."""
    access_key_id, names, signature = _parse_authorization(request.headers.get("authorization", ""))
    _check_signed_names(request, names)
    headers = request.headers
    if hashlib.sha256(request.body).hexdigest() != headers["x-acs-content-sha256"]:
        raise Refusal(400, "SignatureDoesNotMatch", "The digest of the body is not the signed one.")
    return Claim(
        access_key_id,
        headers["x-acs-date"],
        headers["x-acs-signature-nonce"],
        signature,
        headers.get("x-acs-security-token", ""),
        lambda secret: sign(request, query, names, secret),
    )


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
        raise incomplete("the Authorization header is not one of ACS3-HMAC-SHA256")
    return parts["Credential"], parts["SignedHeaders"].split(";"), parts["Signature"]


def _check_signed_names(request: Request, names: list[str]) -> None:
    if names != sorted(set(names)):
        raise incomplete("the signed headers are not in order")
    needed = {name for name in request.headers if name.startswith("x-acs-")} | _ALWAYS_SIGNED
    if request.body:
        # Without a body some HTTP clients add a content type on their own, after signing: it decides nothing then.
        needed.add("content-type")
    if not needed <= set(names):
        raise incomplete("a header that has to be signed is not")
    if not all(name in request.headers for name in _ALWAYS_SIGNED):
        raise incomplete("a header that has to be there is not")
