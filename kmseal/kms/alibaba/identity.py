"""The identity that a provider signs with: the process's own, or the one that a key's connection brings.

Called once when a provider is made. It turns what was found or given into a source of credentials; where the process's
own ones come from is decided in ``detection``. Errors about what a connection brings name its field, and show nothing
of it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kmseal.errors import Misconfigured
from kmseal.kms.alibaba.credentials import Credentials, CredentialSource, RefreshedCredentials, StaticCredentials
from kmseal.kms.alibaba.detection import find_credentials
from kmseal.kms.alibaba.sts import OidcExchange, OidcRole, sts_endpoint
from kmseal.kms.alibaba.transport import Target, Transport, trust
from kmseal.kms.connection import CREDENTIALS, AccessKey, AssumedRole
from kmseal.kms.wiring import Wiring
from kmseal.redacted import Redacted

_VISIBLE: Final = re.compile(rb"[!-~]{1,8192}")
_ENVIRONMENT_ROLE: Final = "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE"


def choose_identity(wiring: Wiring, transport: Transport) -> CredentialSource:
    """The source of the connection's credentials, or of the process's own. Reads files. Raises Misconfigured."""
    found: Credentials | OidcRole
    match wiring.connection.credentials:
        case AccessKey() as key:
            found = _read_access_key(key)
        case AssumedRole() as role:
            found = _read_role(role, wiring.environment)
        case None:
            found = find_credentials(wiring.environment)
    if isinstance(found, Credentials):
        return StaticCredentials(found)
    tls = trust(wiring.settings.sts_ca_file, "KMSEAL_STS_CA_FILE")
    target = Target.of("STS", sts_endpoint(wiring.environment), tls, "KMSEAL_STS_CA_FILE")
    return RefreshedCredentials(OidcExchange(found, target, transport, wiring.timing), wiring.timing)


def _read_access_key(key: AccessKey) -> Credentials:
    secret = _strip("access key secret", key.access_key_secret)
    key_id = _strip("access key id", Redacted(key.access_key_id.encode())).reveal().decode()
    if key.security_token is None:
        return Credentials(key_id, secret)
    return Credentials(key_id, secret, _strip("security token", key.security_token), provider="static_sts")


def _strip(what: str, text: Redacted) -> Redacted:
    """Without the white space around it that editors and shells leave; all three go into headers or a signature."""
    stripped = text.reveal().strip()
    if not _VISIBLE.fullmatch(stripped):
        raise Misconfigured(
            f"the {what} is empty, or holds characters that none has",
            field=CREDENTIALS,
            remedy="copy access key id, secret and, for a temporary key, token once more",
        )
    return Redacted(stripped)


def _read_role(role: AssumedRole, environment: Mapping[str, str]) -> OidcRole:
    own_provider, token_file = (environment.get(name, "").strip() for name in _ENVIRONMENT_ROLE)
    provider_arn = role.oidc_provider_arn or own_provider
    for name, value in zip(_ENVIRONMENT_ROLE, (provider_arn, token_file), strict=True):
        if not value:
            raise Misconfigured(
                f"a role can be assumed only with RRSA, and {name} is not set",
                field=CREDENTIALS,
                remedy="annotate the ServiceAccount for RRSA, so that the variables are injected, or use an access key",
            )
    session = role.session_name or environment.get("ALIBABA_CLOUD_ROLE_SESSION_NAME", "").strip() or "kmseal"
    return OidcRole(role.role_arn, provider_arn, Path(token_file), session, named_by=CREDENTIALS)
