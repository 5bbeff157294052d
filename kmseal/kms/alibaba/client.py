"""The SDK's client with another way out: its models and its signature, our transport, deadline and errors.

Made by ``gateway``, one per endpoint. The SDK's own asynchronous transport opens a TLS connection with a fresh context
for every call, which takes 30 ms of processor time in the event loop, and its errors quote URLs that hold data keys.
So exactly one method is replaced, ``call_api_async``, through which every ``*_async`` operation goes. A contract test
compares each request with what the plain SDK client sends.

Importing this module imports the SDK (0.6 s) and silences its loggers.
"""

import hashlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Final
from urllib.parse import urlencode

from alibabacloud_kms20160120.client import Client
from alibabacloud_tea_openapi.utils import Utils
from alibabacloud_tea_openapi.utils_models import Config
from darabonba.request import DaraRequest

from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.credentials import CredentialSource
from kmseal.kms.alibaba.errors import require_success
from kmseal.kms.alibaba.transport import Target, Transport
from kmseal.kms.timing import Timing

_SIGNATURE: Final = "ACS3-HMAC-SHA256"
_SDK_LOGGERS: Final = ("darabonba-core", "alibabacloud-tea", "credentials")


def _silence_sdk_loggers() -> None:
    """Takes away the handlers that the SDK gives its loggers at import: they print URLs and tokens."""
    for name in _SDK_LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.addHandler(logging.NullHandler())
        logger.propagate = False
        logger.setLevel(logging.CRITICAL)


_silence_sdk_loggers()
USER_AGENT: Final[str] = Utils.get_user_agent("kmseal")
"""The SDK's own, which reads the platform, so it is made once; and our name."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one call needs beside its request. Takes the place of the SDK's RuntimeOptions, which are handed through."""

    key: KeyName
    """The key that errors name."""
    seconds: float
    """The time that the request has, with connecting."""


class KmsClient(Client):  # type: ignore[misc]  # The SDK ships no types, so its class is Any to mypy.
    """The operations of the SDK's client; of them only those ending in ``_with_options_async`` are to be used.

    They take a ``Call`` as runtime and raise only errors of ``kmseal.errors``.
    """

    def __init__(
        self, region: str, target: Target, transport: Transport, credentials: CredentialSource, timing: Timing
    ) -> None:
        super().__init__(Config(region_id=region, endpoint=target.host, protocol=target.scheme))
        self._target = target
        self._transport = transport
        self._credentials = credentials
        self._timing = timing

    async def call_api_async(self, params: Any, request: Any, runtime: Call) -> dict[str, Any]:
        """Signs and sends one request, as the SDK's ``do_request_async`` does, and returns the answer's members."""
        credentials = await self._credentials.get()
        query = request.query or {}
        headers = {
            "host": self._target.host,
            "x-acs-version": params.version,
            "x-acs-action": params.action,
            "user-agent": USER_AGENT,
            "x-acs-date": datetime.fromtimestamp(self._timing.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": token_hex(16),
            "accept": "application/json",
        }
        body = b""
        if request.body is not None:
            body = Utils.to_form(request.body).encode()
            headers["content-type"] = "application/x-www-form-urlencoded"
        digest = hashlib.sha256(body).hexdigest()
        headers["x-acs-content-sha256"] = digest
        headers["x-acs-credentials-provider"] = credentials.provider
        if credentials.security_token is not None:
            headers["x-acs-accesskey-id"] = credentials.access_key_id
            headers["x-acs-security-token"] = credentials.security_token.reveal().decode()
        signed = DaraRequest()
        signed.method, signed.pathname, signed.query, signed.headers = params.method, params.pathname, query, headers
        headers["Authorization"] = Utils.get_authorization(
            signed, _SIGNATURE, digest, credentials.access_key_id, credentials.access_key_secret.reveal().decode()
        )
        answer = await self._transport.request(
            self._target,
            path=f"{params.pathname}?{urlencode(query)}",
            headers=headers,
            body=body,
            seconds=runtime.seconds,
        )
        members = require_success(answer, str(self._target), params.action, runtime.key)
        return {"body": members, "headers": {}, "statusCode": answer.status}
