"""The RRSA exchange on the wire, and every answer that is not what it should be."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from kmseal.errors import BadCredentials, KmsealError, Throttled, Unavailable
from kmseal.kms.alibaba.sts import OidcExchange, OidcRole
from kmseal.kms.alibaba.transport import Target, Transport, trust
from kmseal.kms.timing import Timing

TOKEN = "eyJhbGciOi.J3W7Tcanary.c2ln"
CREDENTIALS = {
    "AccessKeyId": "STS.abc",
    "AccessKeySecret": "canary-secret",
    "SecurityToken": "CAIScanary/+=",
    "Expiration": "2030-01-02T03:04:05Z",
}


@pytest.fixture
async def exchange_with(tmp_path: Path) -> Any:
    """Makes the exchange against a raw server."""
    transport = Transport(1)
    (tmp_path / "token").write_text(TOKEN + "\n")

    def make(server: Any) -> OidcExchange:
        target = Target.of("STS", server.endpoint, trust(None, "x"), "KMSEAL_STS_CA_FILE")
        role = OidcRole("acs:ram::1:role/r", "acs:ram::1:oidc-provider/p", tmp_path / "token", "session")
        return OidcExchange(role, target, transport, Timing(wall=lambda: 1_800_000_000.0))

    yield make
    await transport.close()


async def test_the_token_travels_in_the_body_and_the_file_is_read_each_time(
    raw_server: Callable[..., Awaitable[Any]], respond: Any, exchange_with: Any, tmp_path: Path
) -> None:
    """The URL holds nothing; all parameters of AssumeRoleWithOIDC are in the form."""
    server = await raw_server(respond(200, json.dumps({"Credentials": CREDENTIALS}).encode()))
    exchange = exchange_with(server)
    credentials = await exchange()
    assert credentials.access_key_id == "STS.abc"
    assert credentials.access_key_secret.reveal() == b"canary-secret"
    assert credentials.security_token is not None
    assert credentials.security_token.reveal() == b"CAIScanary/+="
    assert credentials.expires == 1893553445.0
    assert credentials.provider == "oidc_role_arn"
    (tmp_path / "token").write_text("another")
    await exchange()
    first, second = server.requests
    assert (first.method, first.target) == ("POST", "/")
    form = {name: value for name, (value,) in parse_qs(first.body.decode(), strict_parsing=True).items()}
    assert re.fullmatch("[0-9a-f]{32}", form.pop("SignatureNonce"))
    assert form == {
        "Action": "AssumeRoleWithOIDC",
        "DurationSeconds": "3600",
        "Format": "JSON",
        "OIDCProviderArn": "acs:ram::1:oidc-provider/p",
        "OIDCToken": TOKEN,
        "RoleArn": "acs:ram::1:role/r",
        "RoleSessionName": "session",
        "Timestamp": "2027-01-15T08:00:00Z",
        "Version": "2015-04-01",
    }
    assert b"OIDCToken=another" in second.body


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (400, {"Code": "AuthenticationFail.OIDCToken.Expired", "Message": TOKEN}, BadCredentials),
        (403, {"Code": "NoPermission"}, BadCredentials),
        (404, {"Code": "EntityNotExist.Role"}, BadCredentials),
        (400, {"Code": "Throttling.User"}, Throttled),
        (429, {}, Throttled),
        (500, {"Code": "InternalError"}, Unavailable),
        (200, {"Credentials": None}, Unavailable),
        (200, {"Credentials": []}, Unavailable),
        (200, {}, Unavailable),
        *[(200, {"Credentials": CREDENTIALS | {name: None}}, Unavailable) for name in CREDENTIALS],
        *[(200, {"Credentials": CREDENTIALS | {name: ""}}, Unavailable) for name in CREDENTIALS],
        (200, {"Credentials": CREDENTIALS | {"Expiration": "tomorrow canary"}}, Unavailable),
        (200, {"Credentials": CREDENTIALS | {"SecurityToken": "a\r\nX-Injected: canary"}}, Unavailable),
        (200, {"Credentials": CREDENTIALS | {"AccessKeyId": "a\r\nb"}}, Unavailable),
        (302, {"Credentials": CREDENTIALS}, Unavailable),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_no_credentials_becomes_an_error_without_any_secret(
    status: int, content: Any, kind: type[KmsealError], raw_server: Any, respond: Any, exchange_with: Any
) -> None:
    """Refusals of the role are BadCredentials; answers of the wrong form are Unavailable."""
    server = await raw_server(respond(status, json.dumps(content).encode()))
    with pytest.raises(KmsealError) as caught:
        await exchange_with(server)()
    assert type(caught.value) is kind
    assert caught.value.__context__ is None
    assert not re.search("canary|eyJ|http:", f"{caught.value} {caught.value.__dict__}")


@pytest.mark.parametrize("content", [b"<html>canary</html>", b'{"Credentials": {"AccessKeySecret": "can'])
async def test_a_body_that_is_no_json_is_unavailable(
    content: bytes, raw_server: Any, respond: Any, exchange_with: Any
) -> None:
    """Whatever its status."""
    for status in (200, 400, 502):
        server = await raw_server(respond(status, content))
        with pytest.raises(Unavailable):
            await exchange_with(server)()
