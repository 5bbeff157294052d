"""The RRSA exchange: a ServiceAccount's OIDC token becomes short-lived credentials of a RAM role.

Called by ``RefreshedCredentials``. The token file is read anew each time, because the kubelet replaces it. Parameters
travel in the form body, so that the token is in no URL and in nobody's access log. Unsigned by design: the token is
the proof. Settings come from the variables that ack-pod-identity-webhook injects.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from urllib.parse import urlencode

from kmseal.errors import BadCredentials, Misconfigured, Throttled, Unavailable
from kmseal.kms.alibaba.credentials import Credentials
from kmseal.kms.alibaba.errors import Refusal, read_members
from kmseal.kms.alibaba.transport import Target, Transport
from kmseal.kms.settings import require_endpoint
from kmseal.kms.timing import Timing
from kmseal.redacted import Redacted

_LIFETIME_SECONDS: Final = 3600
"""What every role allows."""
_EXCHANGE_SECONDS: Final = 3.0
_ACCESS_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_TOKEN: Final = re.compile(r"[!-~]{1,8192}", re.ASCII)


@dataclass(frozen=True, slots=True)
class OidcRole:
    """A role to assume and where the token for it lies."""

    role_arn: str
    provider_arn: str
    token_file: Path
    session_name: str = "kmseal"
    named_by: str = "ALIBABA_CLOUD_OIDC_TOKEN_FILE"
    """The variable or field that errors about the token file name."""


def sts_endpoint(environment: Mapping[str, str]) -> str:
    """The STS endpoint that the injected variables name, as ``host[:port]``. Raises Misconfigured."""
    endpoint = environment.get("ALIBABA_CLOUD_STS_ENDPOINT", "")
    if endpoint:
        return require_endpoint(endpoint.removeprefix("https://").rstrip("/"), "ALIBABA_CLOUD_STS_ENDPOINT")
    region = environment.get("ALIBABA_CLOUD_STS_REGION", "")
    if not region:
        return "sts.aliyuncs.com"
    vpc = "-vpc" if environment.get("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED", "").lower() == "true" else ""
    return require_endpoint(f"sts{vpc}.{region}.aliyuncs.com", "ALIBABA_CLOUD_STS_REGION")


@dataclass(frozen=True, slots=True)
class OidcExchange:
    """One call of AssumeRoleWithOIDC for each call of it."""

    role: OidcRole
    target: Target
    transport: Transport
    timing: Timing

    async def __call__(self) -> Credentials:
        """Fetches credentials for an hour. Raises Unavailable, Throttled, BadCredentials, Misconfigured."""
        token = await asyncio.to_thread(_read_token, self.role)
        form = {
            "Action": "AssumeRoleWithOIDC",
            "DurationSeconds": str(_LIFETIME_SECONDS),
            "Format": "JSON",
            "OIDCProviderArn": self.role.provider_arn,
            "OIDCToken": token,
            "RoleArn": self.role.role_arn,
            "RoleSessionName": self.role.session_name,
            "SignatureNonce": token_hex(16),
            "Timestamp": datetime.fromtimestamp(self.timing.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "Version": "2015-04-01",
        }
        answer = await self.transport.request(
            self.target,
            path="/",
            headers={
                "host": self.target.host,
                "accept": "application/json",
                "content-type": "application/x-www-form-urlencoded",
            },
            body=urlencode(form).encode(),
            seconds=_EXCHANGE_SECONDS,
        )
        members = read_members(answer)
        if members is not None and 400 <= answer.status <= 499:
            self._refuse(Refusal.read(answer, members))
        credentials = _read_credentials(members) if members is not None and answer.status == 200 else None
        if credentials is None:
            raise Unavailable(
                f"{self.target} answers with HTTP {answer.status} and no credentials", remedy="it is tried again"
            )
        return credentials

    def _refuse(self, refusal: Refusal) -> None:
        if refusal.throttled:
            raise Throttled(
                f"{self.target} asks for fewer requests",
                retry_after=refusal.retry_after,
                request_id=refusal.request_id,
            )
        raise BadCredentials(
            f"{self.target} does not give the role {self.role.role_arn} ({refusal})",
            remedy="check the role's trust policy (OIDC provider, ServiceAccount, audience) and the role's name",
            request_id=refusal.request_id,
        )


def _read_token(role: OidcRole) -> str:
    try:
        token = role.token_file.read_text("ascii").strip()
    except (OSError, ValueError):
        token = ""
    if not token:
        raise Misconfigured(
            f"the token file {role.token_file} cannot be read, or is empty",
            field=role.named_by,
            remedy="check that the pod's ServiceAccount is annotated for RRSA and that the volume is mounted",
        )
    return token


def _read_credentials(members: Mapping[str, Any]) -> Credentials | None:
    """Reads the answer's ``Credentials``, None where it does not have its form."""
    raw = members.get("Credentials")
    if not isinstance(raw, dict):
        return None
    texts = [raw.get(name) for name in ("AccessKeyId", "AccessKeySecret", "SecurityToken", "Expiration")]
    match texts:
        case [str(access_key_id), str(secret), str(token), str(expiration)] if secret and token:
            pass
        case _:
            return None
    try:
        expires = datetime.strptime(expiration, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    # Checked by their form, because both go into headers.
    if not _ACCESS_KEY_ID.fullmatch(access_key_id) or not _TOKEN.fullmatch(token):
        return None
    return Credentials(access_key_id, Redacted(secret.encode()), Redacted(token.encode()), expires, "oidc_role_arn")
