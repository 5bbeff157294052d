"""What the tests of the fake share: a clock, the plain SDK client as the judge, and requests that the SDK signed.

Requests are signed by the SDK's own code, never by the fake's, so that both have to agree. Most tests put such requests
straight to the service, without a socket; those of the listeners use the SDK's client over TLS.
"""

import asyncio
import json
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from alibabacloud_kms20160120 import models
from alibabacloud_kms20160120.client import Client
from alibabacloud_tea_openapi import utils_models
from alibabacloud_tea_openapi.utils import Utils
from darabonba.core import DaraCore
from darabonba.request import DaraRequest

from kmseal.fakekms import FakeKms, Identity
from kmseal.fakekms.requests import Request

for _name in ("darabonba-core", "alibabacloud-tea", "credentials"):
    # The SDK's loggers bring handlers of their own, which print URLs.
    logging.getLogger(_name).handlers.clear()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would send even loopback requests through a proxy."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 24, 5, 32, 41, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(clock: Clock) -> FakeKms:
    """A fake without listeners, in two regions, whose time stands."""
    return FakeKms(("cn-hangzhou", "cn-beijing"), clock=clock, monotonic=clock)


@pytest.fixture
def admin(fake: FakeKms) -> Identity:
    return fake.add_identity("admin")


@pytest.fixture
def sign(clock: Clock) -> Callable[..., Request]:
    """Makes a request and signs it with the SDK."""

    def sign(
        identity: Identity,
        action: str,
        parameters: dict[str, Any] | None = None,
        *,
        region: str = "cn-hangzhou",
        nonce: str = "",
        date: float | None = None,
        headers: dict[str, str] | None = None,
        body: str = "",
    ) -> Request:
        request = DaraRequest()
        request.method, request.pathname = "POST", "/"
        request.query = {
            name: json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
            for name, value in (parameters or {}).items()
        }
        seconds = clock.now if date is None else date
        request.headers = {
            "host": "kms.cn-hangzhou.aliyuncs.com",
            "x-acs-version": "2016-01-20",
            "x-acs-action": action,
            "x-acs-date": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": nonce or uuid.uuid4().hex,
            "accept": "application/json",
        }
        if body:
            request.headers["content-type"] = "application/x-www-form-urlencoded"
        payload = Utils.hash(body.encode(), "ACS3-HMAC-SHA256").hex()
        request.headers["x-acs-content-sha256"] = payload
        if identity.security_token:
            request.headers["x-acs-security-token"] = identity.security_token
            request.headers["x-acs-accesskey-id"] = identity.access_key_id
        request.headers.update(headers or {})
        authorization = Utils.get_authorization(
            request, "ACS3-HMAC-SHA256", payload, identity.access_key_id, identity.access_key_secret
        )
        signed = {name.lower(): value for name, value in request.headers.items()} | {"authorization": authorization}
        return Request("POST", "/", urlencode(request.query), signed, body.encode(), region)

    return sign


@pytest.fixture
def call(fake: FakeKms, admin: Identity, sign: Callable[..., Request]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Signs and asks without a socket: the status and the JSON of the answer. The caller is admin unless given."""

    def call(action: str, *, by: Identity | None = None, region: str = "cn-hangzhou", **parameters: Any) -> Any:
        answer = fake.service.answer(sign(by or admin, action, parameters, region=region))
        return answer.status, json.loads(answer.content)

    return call


@pytest.fixture
async def running() -> AsyncIterator[FakeKms]:
    """A fake that listens over TLS, with the real time, in one region."""
    async with FakeKms() as kms:
        yield kms


@pytest.fixture
def sdk() -> Iterator[Callable[..., Client]]:
    """Makes plain SDK clients; their connections are closed at the end, which the SDK itself never does."""

    def client(
        kms: FakeKms, identity: Identity, gateway: str | None = None, *, tls: bool = True, **config: Any
    ) -> Client:
        """A client of a region's shared gateway, or of an instance's own."""
        way = kms.gateways[gateway or kms.regions[0]]
        return Client(
            utils_models.Config(
                access_key_id=identity.access_key_id,
                access_key_secret=identity.access_key_secret,
                security_token=identity.security_token or None,
                region_id=way.wire.region,
                endpoint=way.endpoint,
                protocol="https" if tls else "http",
                ca=str(way.ca_file) if tls else None,
                connect_timeout=2000,
                read_timeout=2000,
                **config,
            )
        )

    yield client
    for session in DaraCore._sessions.values():
        session.close()
    DaraCore._sessions.clear()


@pytest.fixture
def ask() -> Callable[..., Any]:
    """Calls a blocking SDK method in a thread, as ``await ask(client, "Decrypt", ciphertext_blob=…)``."""

    async def ask(client: Client, action: str, **parameters: Any) -> Any:
        method = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in action).lstrip("_")
        request = getattr(models, f"{action}Request")(**parameters)
        return (await asyncio.to_thread(getattr(client, method), request)).body

    return ask
