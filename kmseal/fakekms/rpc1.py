"""The older RPC signature, HMAC-SHA1 over all parameters: reading it, and computing it anew.

Older SDKs and the vendor's command line sign so: everything is a parameter, in the query or in a form body, the name of
the action and the signature itself included; headers are not signed and decide nothing. ``authentication`` calls
:func:`read`. STS takes the same signature, but the one action of it that the fake plays needs none.
"""

import base64
import hmac
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from kmseal.fakekms.claims import Claim, incomplete
from kmseal.fakekms.refusals import invalid_parameter
from kmseal.fakekms.requests import Request

_NEEDED: Final = ("Action", "Version", "AccessKeyId", "Signature", "SignatureNonce", "Timestamp")
_MARKS: Final = frozenset({"Signature", "SignatureMethod", "SignatureVersion", "AccessKeyId"})

Pairs = Sequence[tuple[str, str]]


def is_signed(query: Pairs, form: Pairs) -> bool:
    """Whether there is any part of such a signature, so that what is missing is to be said in its words."""
    return any(name in _MARKS for name, _ in (*query, *form))


def read(request: Request, query: Pairs, form: Pairs) -> Claim:
    """What the request claims. Raises IncompleteSignature, InvalidParameter."""
    pairs = [*query, *form]
    values = dict(pairs)
    if len(values) != len(pairs):
        raise incomplete("a parameter is repeated")
    if not all(values.get(name) for name in _NEEDED):
        raise incomplete("a parameter that has to be there is not")
    if values.get("SignatureMethod") != "HMAC-SHA1" or values.get("SignatureVersion") != "1.0":
        raise incomplete("the signature is not one of HMAC-SHA1, version 1.0")
    if values.get("Format", "").upper() != "JSON":
        # The real default is XML, which the fake does not write.
        raise invalid_parameter("Format", "not JSON")
    return Claim(
        values["AccessKeyId"],
        values["Timestamp"],
        values["SignatureNonce"],
        values["Signature"],
        values.get("SecurityToken", ""),
        lambda secret: sign(request.method, pairs, secret),
    )


def sign(method: str, pairs: Pairs, secret: str) -> str:
    """The signature of decoded parameters, in base64; a parameter ``Signature`` among them is left out."""
    canonical = "&".join(
        f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(pairs) if name != "Signature"
    )
    text = f"{method}&%2F&{quote(canonical, safe='~')}"
    return base64.b64encode(hmac.digest(f"{secret}&".encode(), text.encode(), "sha1")).decode()
