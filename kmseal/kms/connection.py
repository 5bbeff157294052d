"""How one key is reached, where that is not the process's own way.

Given to ``Keyring.connect`` by the operator, from a KMSKey's spec, and read by the provider that is made for it. Fields
are named here as they are there, so that an error that names a field can be shown as it is. Values only: nothing is
opened or checked here.
"""

from dataclasses import dataclass, field
from typing import Final

from kmseal.redacted import Redacted

ENDPOINT: Final = "endpoint"
CA_BUNDLE: Final = "caBundle"
CREDENTIALS: Final = "credentials"
"""What Misconfigured errors about a connection name as their field."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key of its own, with a security token where it is a temporary one.

    Equal only where the secrets are; the hash leaves them out, because it must not say anything about them.
    """

    access_key_id: str
    access_key_secret: Redacted = field(hash=False)
    security_token: Redacted | None = field(default=None, hash=False)


@dataclass(frozen=True, slots=True)
class AssumedRole:
    """Another RAM role that the process's own OIDC token is exchanged for.

    Empty fields mean those of the process: ``ALIBABA_CLOUD_OIDC_PROVIDER_ARN`` and
    ``ALIBABA_CLOUD_ROLE_SESSION_NAME``. The token file is always the process's (``ALIBABA_CLOUD_OIDC_TOKEN_FILE``).
    """

    role_arn: str
    oidc_provider_arn: str = ""
    session_name: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """Endpoint (``host[:port]``), PEM text of the only authorities, and identity; empty ones mean the process's own."""

    endpoint: str = ""
    ca_pem: str = field(default="", repr=False)
    credentials: AccessKey | AssumedRole | None = None


OWN: Final = Connection()
"""The process's own way: what its settings and its environment say."""
