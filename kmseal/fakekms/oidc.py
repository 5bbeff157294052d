"""Verification of OIDC tokens, as far as STS needs it: RS256 and ES256 signatures, audience, issuer, expiry.

``sts`` calls :meth:`OidcProvider.verify`. Without keys the signature cannot be checked: form, audience and times still
are, which is enough to develop against and no more. Refusals never quote the token.
"""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from kmseal.fakekms.refusals import Refusal

AUDIENCE: Final = "sts.aliyuncs.com"
_LEEWAY: Final = 60.0

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class OidcProvider:
    """An identity provider that the account trusts.

    :param arn: ``acs:ram::<account>:oidc-provider/<name>``
    :param issuer: the ``iss`` that tokens must carry; empty accepts any
    :param keys: key id → public key; None means that signatures are not checked, an empty one that none is good
    """

    arn: str
    issuer: str = ""
    audiences: tuple[str, ...] = (AUDIENCE,)
    keys: Mapping[str, PublicKey] | None = field(default=None, repr=False)

    def verify(self, token: str, now: float) -> dict[str, object]:
        """The claims of a good token. Raises Refusal for any other."""
        parts = token.split(".")
        if len(parts) != 3:
            raise _invalid("it does not have three parts")
        header, claims = _json_part(parts[0]), _json_part(parts[1])
        if self.keys is not None and not self._is_signed(header, parts):
            raise _invalid("its signature is not good")
        if self.issuer and claims.get("iss") != self.issuer:
            raise Refusal(400, "AuthenticationFail.OIDCToken.IssuerNotMatch", "The issuer of the token is not trusted.")
        if not set(client_ids(claims)) & set(self.audiences):
            raise Refusal(
                400, "AuthenticationFail.OIDCToken.ClientIdNotMatch", "The audience of the token is not accepted."
            )
        expires, not_before = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires, int | float) or not isinstance(not_before, int | float):
            raise _invalid("it has no usable exp or nbf")
        if expires + _LEEWAY < now:
            raise Refusal(400, "AuthenticationFail.OIDCToken.Expired", "The token has expired.")
        if not_before - _LEEWAY > now:
            raise _invalid("it is not valid yet")
        if not isinstance(claims.get("sub"), str):
            raise _invalid("it has no subject")
        return claims

    def _is_signed(self, header: Mapping[str, object], parts: Sequence[str]) -> bool:
        keys = self.keys or {}
        key_id = header.get("kid")
        # A token without a key id is tried with every key, as with a single public key out of a PEM file.
        candidates = [keys[key_id]] if isinstance(key_id, str) and key_id in keys else list(keys.values())
        signed, signature = f"{parts[0]}.{parts[1]}".encode(), _decode(parts[2])
        return any(_verifies(key, header.get("alg"), signed, signature) for key in candidates)


def client_ids(claims: Mapping[str, object]) -> list[str]:
    """The audience of a token as a list."""
    audience = claims.get("aud")
    found = audience if isinstance(audience, list) else [audience]
    return [item for item in found if isinstance(item, str)]


def load_public_keys(text: bytes) -> dict[str, PublicKey]:
    """Public keys out of a JWKS document or one PEM public key. Raises ValueError for anything else."""
    if text.lstrip().startswith(b"-----BEGIN"):
        key = load_pem_public_key(text)
        if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise ValueError("the public key is neither RSA nor of an elliptic curve")
        return {"": key}
    document = json.loads(text)
    try:
        return {jwk.get("kid", str(index)): _jwk(jwk) for index, jwk in enumerate(document["keys"])}
    except (KeyError, TypeError, AttributeError):
        raise ValueError("neither a JWKS document nor a PEM public key") from None


def _jwk(jwk: Mapping[str, str]) -> PublicKey:
    if jwk["kty"] == "RSA":
        return rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
    if jwk["kty"] == "EC" and jwk["crv"] == "P-256":
        return ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), ec.SECP256R1()).public_key()
    raise ValueError("a key of the JWKS document is neither RSA nor P-256")


def _verifies(key: PublicKey, algorithm: object, signed: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm == "RS256":
            key.verify(signature, signed, padding.PKCS1v15(), SHA256())
            return True
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm == "ES256" and len(signature) == 64:
            r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(SHA256()))
            return True
    except InvalidSignature:
        return False
    return False


def _json_part(part: str) -> dict[str, object]:
    try:
        value = json.loads(_decode(part))
    except (ValueError, RecursionError):
        raise _invalid("a part of it is not JSON") from None
    if not isinstance(value, dict):
        raise _invalid("a part of it is not a JSON object")
    return value


def _decode(part: str) -> bytes:
    try:
        return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("a part of it is not base64url") from None


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _invalid(why: str) -> Refusal:
    return Refusal(400, "AuthenticationFail.OIDCToken.Invalid", f"This OIDC token is not valid: {why}.")
