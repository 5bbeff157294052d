"""AssumeRoleWithOIDC: tokens are verified, roles trust subjects, and what is issued works until it expires."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from alibabacloud_credentials.provider.oidc import OIDCRoleArnCredentialsProvider
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kmseal.fakekms import FakeKms, Identity
from kmseal.fakekms.oidc import load_public_keys
from kmseal.fakekms.requests import Request

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
SUBJECT = "system:serviceaccount:kmseal:operator"

Exchange = Callable[..., tuple[int, dict[str, Any]]]


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8))


def jwks() -> dict[str, Any]:
    """The document that an API server gives out for its two keys."""
    rsa_numbers, ec_numbers = RSA_KEY.public_key().public_numbers(), EC_KEY.public_key().public_numbers()
    return {
        "keys": [
            {"kty": "RSA", "kid": "rsa-1", "n": number(rsa_numbers.n), "e": number(rsa_numbers.e)},
            {
                "kty": "EC",
                "crv": "P-256",
                "kid": "ec-1",
                "x": b64(ec_numbers.x.to_bytes(32)),
                "y": b64(ec_numbers.y.to_bytes(32)),
            },
        ]
    }


def token(claims: dict[str, Any], algorithm: str = "RS256", header: dict[str, Any] | None = None) -> str:
    """A signed token, as the API server writes it for a service account."""
    names = {"alg": algorithm, "kid": {"RS256": "rsa-1", "ES256": "ec-1"}.get(algorithm, "rsa-1")} | (header or {})
    signed = f"{b64(json.dumps(names).encode())}.{b64(json.dumps(claims).encode())}"
    if algorithm == "ES256":
        r, s = decode_dss_signature(EC_KEY.sign(signed.encode(), ec.ECDSA(SHA256())))
        signature = r.to_bytes(32) + s.to_bytes(32)
    else:
        signature = RSA_KEY.sign(signed.encode(), padding.PKCS1v15(), SHA256())
    return f"{signed}.{b64(signature)}"


@pytest.fixture
def claims(clock: Any) -> dict[str, Any]:
    return {
        "iss": "https://cluster.example",
        "sub": SUBJECT,
        "aud": ["sts.aliyuncs.com"],
        "exp": clock.now + 600,
        "nbf": clock.now,
    }


@pytest.fixture
def exchange(fake: FakeKms) -> Exchange:
    """Asks for AssumeRoleWithOIDC, by GET or by a POST form; names of parameters may be overridden or left out."""
    keys = load_public_keys(json.dumps(jwks()).encode())
    provider = fake.add_oidc_provider("cluster", issuer="https://cluster.example", keys=keys)
    role = fake.add_role(
        "operator", ("Decrypt", "ReEncrypt", "DescribeKey"), subjects=("system:serviceaccount:kmseal:*",)
    )

    def exchange(jwt: str, *, method: str = "GET", **changes: Any) -> tuple[int, dict[str, Any]]:
        parameters = {
            "Action": "AssumeRoleWithOIDC",
            "Version": "2015-04-01",
            "Format": "JSON",
            "RoleArn": role,
            "OIDCProviderArn": provider,
            "OIDCToken": jwt,
            "RoleSessionName": "test",
            "Timestamp": "2026-11-24T05:32:41Z",
        } | changes
        text = urlencode({name: value for name, value in parameters.items() if value is not None})
        form = {"content-type": "application/x-www-form-urlencoded"}
        request = (
            Request("GET", "/", text, {}) if method == "GET" else Request("POST", "/", "", form, body=text.encode())
        )
        answer = fake.service.answer(request)
        return answer.status, json.loads(answer.content)

    return exchange


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_good_token_is_exchanged(
    fake: FakeKms,
    exchange: Exchange,
    claims: dict[str, Any],
    sign: Callable[..., Request],
    method: str,
    algorithm: str,
) -> None:
    """A signed token becomes a temporary access key with the role's rights, by GET and by POST."""
    status, body = exchange(token(claims, algorithm), method=method)
    assert (status, body["OIDCTokenInfo"]["Subject"]) == (200, SUBJECT)
    credentials = body["Credentials"]
    assert credentials["Expiration"] == "2026-11-24T06:32:41Z"
    session = Identity(
        "session",
        credentials["AccessKeyId"],
        credentials["AccessKeySecret"],
        security_token=credentials["SecurityToken"],
    )
    arn = fake.create_key()
    assert fake.service.answer(sign(session, "DescribeKey", {"KeyId": arn})).result == "Success"
    assert fake.service.answer(sign(session, "DisableKey", {"KeyId": arn})).result == "Forbidden.NoPermission"
    assert fake.audit[-1].identity == "operator/test"


def test_credentials_expire(
    fake: FakeKms, exchange: Exchange, claims: dict[str, Any], sign: Callable[..., Request], clock: Any
) -> None:
    """What was issued for fifteen minutes is refused as expired after them."""
    credentials = exchange(token(claims), DurationSeconds=900)[1]["Credentials"]
    session = fake.identities.find(credentials["AccessKeyId"])
    assert session is not None
    clock.now += 899
    assert fake.service.answer(sign(session, "ListKeys")).result == "Forbidden.NoPermission"
    clock.now += 1
    assert fake.service.answer(sign(session, "ListKeys")).result == "InvalidSecurityToken.Expired"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": 0}, "AuthenticationFail.OIDCToken.Expired"),
        ({"exp": None}, "AuthenticationFail.OIDCToken.Invalid"),
        ({"nbf": 4e9}, "AuthenticationFail.OIDCToken.Invalid"),
        ({"aud": ["kubernetes"]}, "AuthenticationFail.OIDCToken.ClientIdNotMatch"),
        ({"aud": None}, "AuthenticationFail.OIDCToken.ClientIdNotMatch"),
        ({"iss": "https://other.example"}, "AuthenticationFail.OIDCToken.IssuerNotMatch"),
        ({"sub": None}, "AuthenticationFail.OIDCToken.Invalid"),
        ({"sub": "system:serviceaccount:default:default"}, "NoPermission"),
    ],
)
def test_claims_that_do_not_pass(
    exchange: Exchange, claims: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    """Expiry, start, audience, issuer and subject of a token are checked."""
    assert exchange(token(claims | changes))[1]["Code"] == code


def test_signatures_are_checked(exchange: Exchange, claims: dict[str, Any]) -> None:
    """A token with other claims, another key id's signature, another algorithm or none is refused."""
    header, payload, signature = token(claims).split(".")
    forged = b64(json.dumps(claims | {"sub": "system:serviceaccount:kmseal:other"}).encode())
    unsigned = b64(json.dumps({"alg": "none"}).encode())
    for jwt in (
        f"{header}.{forged}.{signature}",
        f"{unsigned}.{payload}.",
        f"{unsigned}.{payload}.{signature}",
        token(claims, header={"kid": "ec-1"}),
        token(claims, header={"alg": "HS256"}),
        f"{header}.{payload}.!!",
        f"{header}.{payload}",
        f"{b64(b'[]')}.{payload}.{signature}",
        "rubbish",
    ):
        assert exchange(jwt)[1]["Code"] == "AuthenticationFail.OIDCToken.Invalid"


def test_without_keys_the_form_is_checked(fake: FakeKms, exchange: Exchange, claims: dict[str, Any]) -> None:
    """A provider without keys takes any signature, but audience and expiry still count."""
    provider = fake.add_oidc_provider("lenient")
    header, payload, _ = token(claims).split(".")
    assert exchange(f"{header}.{payload}.AAAA", OIDCProviderArn=provider)[0] == 200
    expired = exchange(token(claims | {"exp": 0}), OIDCProviderArn=provider)
    assert expired[1]["Code"] == "AuthenticationFail.OIDCToken.Expired"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"RoleArn": "acs:ram::1000000000000001:role/other"}, (404, "EntityNotExist.Role")),
        ({"OIDCProviderArn": "acs:ram::1:oidc-provider/other"}, (404, "EntityNotExist.OIDCProvider")),
        ({"DurationSeconds": 899}, (400, "InvalidParameter")),
        ({"DurationSeconds": 43201}, (400, "InvalidParameter")),
        ({"RoleSessionName": "a/b"}, (400, "InvalidParameter.RoleSessionName")),
        ({"RoleSessionName": None}, (400, "MissingParameter")),
        ({"OIDCToken": None}, (400, "MissingParameter")),
        ({"Policy": "{}"}, (400, "UnsupportedOperation")),
        ({"Version": "2014-01-01"}, (400, "InvalidVersion")),
    ],
)
def test_parameters_that_do_not_pass(
    exchange: Exchange, claims: dict[str, Any], changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    """Unknown roles and providers, durations and names out of their limits, and gaps are refused."""
    status, body = exchange(token(claims), **changes)
    assert (status, body["Code"]) == expected


def test_a_role_may_be_tied_to_a_provider(fake: FakeKms, exchange: Exchange, claims: dict[str, Any]) -> None:
    """A role that names its provider does not take the tokens of another."""
    role = fake.add_role("tied", provider="other")
    assert exchange(token(claims), RoleArn=role)[1]["Code"] == "NoPermission"


def test_refusals_and_trail_do_not_quote_the_token(fake: FakeKms, exchange: Exchange, claims: dict[str, Any]) -> None:
    """Neither an answer nor an audit record carries the token or what was issued."""
    good, bad = token(claims), token(claims | {"exp": 0})
    credentials = exchange(good)[1]["Credentials"]
    refusal = exchange(bad)[1]
    trail = "".join(record.to_json() for record in fake.audit)
    for secret in (good, bad, credentials["AccessKeySecret"], credentials["SecurityToken"]):
        assert secret not in trail
    assert bad not in json.dumps(refusal)


def test_public_keys_in_pem() -> None:
    """A single public key may come as PEM; anything else is a ValueError."""
    pem = EC_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert len(load_public_keys(pem)) == 1
    for text in (b"{}", b"[]", b"rubbish", b'{"keys": [{"kty": "oct"}]}'):
        with pytest.raises(ValueError):  # noqa: PT011  (json and cryptography word it differently)
            load_public_keys(text)


async def test_the_credentials_library_gets_a_session(tmp_path: Path) -> None:
    """The provider of the vendor's credentials library exchanges its token with the fake over HTTP."""
    async with FakeKms(tls=False) as kms:
        provider_arn, role = kms.add_oidc_provider("cluster"), kms.add_role("operator")
        file = tmp_path / "token"
        file.write_text(token({"sub": SUBJECT, "aud": "sts.aliyuncs.com", "exp": 4e9}))
        provider = OIDCRoleArnCredentialsProvider(
            role_arn=role,
            oidc_provider_arn=provider_arn,
            oidc_token_file_path=str(file),
            role_session_name="library",
            sts_endpoint=f"http://{kms.endpoint()}",
        )
        credentials = await asyncio.to_thread(provider.get_credentials)
        issued = kms.identities.find(credentials.get_access_key_id())
        assert issued is not None
        assert credentials.get_security_token() == issued.security_token
        assert kms.calls["AssumeRoleWithOIDC", "Success"] == 1
