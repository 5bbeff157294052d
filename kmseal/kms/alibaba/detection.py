"""Which credentials this process has, decided from the environment it is given.

Called once when the provider is made. In this order, the first that is there is used; a source that is there but
incomplete is refused, not skipped:

1. ``ALIBABA_CLOUD_ACCESS_KEY_ID`` and ``ALIBABA_CLOUD_ACCESS_KEY_SECRET``, with ``ALIBABA_CLOUD_SECURITY_TOKEN`` where
   the key is a temporary one;
2. RRSA: ``ALIBABA_CLOUD_ROLE_ARN``, ``ALIBABA_CLOUD_OIDC_PROVIDER_ARN`` and ``ALIBABA_CLOUD_OIDC_TOKEN_FILE``, which
   ack-pod-identity-webhook injects (``ALIBABA_CLOUD_ROLE_SESSION_NAME`` names the session, default ``kmseal``);
3. the profile ``ALIBABA_CLOUD_PROFILE``, or the current one, of ``~/.aliyun/config.json`` (not with
   ``ALIBABA_CLOUD_CLI_PROFILE_DISABLED=true``, nor when ``ALIBABA_CLOUD_CREDENTIALS_FILE`` names another file);
4. the same section of ``ALIBABA_CLOUD_CREDENTIALS_FILE`` or ``~/.alibabacloud/credentials.ini``.

The role of the ECS instance is never used: in a pod without RRSA that would silently be the node's identity.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kmseal.errors import Misconfigured
from kmseal.kms.alibaba.credentials import Credentials
from kmseal.kms.alibaba.profiles import read_cli_profile, read_ini_profile
from kmseal.kms.alibaba.sts import OidcRole
from kmseal.redacted import Redacted

_KEY_ID: Final = "ALIBABA_CLOUD_ACCESS_KEY_ID"
_KEY_SECRET: Final = "ALIBABA_CLOUD_ACCESS_KEY_SECRET"  # noqa: S105  # The name of a variable.
_TOKEN: Final = "ALIBABA_CLOUD_SECURITY_TOKEN"  # noqa: S105  # The name of a variable.
_OIDC: Final = ("ALIBABA_CLOUD_ROLE_ARN", "ALIBABA_CLOUD_OIDC_PROVIDER_ARN", "ALIBABA_CLOUD_OIDC_TOKEN_FILE")


def find_credentials(environment: Mapping[str, str]) -> Credentials | OidcRole:
    """The credentials, or the role that they are to be exchanged for. Raises Misconfigured, also for none at all."""
    found = _from_variables(environment) or _from_oidc(environment) or _from_profiles(environment)
    if found is None:
        raise Misconfigured(
            "there are no credentials for Alibaba Cloud",
            remedy=f"set {_KEY_ID} and {_KEY_SECRET}, run: aliyun configure, or, in a cluster, set RRSA up "
            "(the role of the ECS instance is not used)",
        )
    return found


def _from_variables(environment: Mapping[str, str]) -> Credentials | None:
    key_id, secret, token = (environment.get(name, "").strip() for name in (_KEY_ID, _KEY_SECRET, _TOKEN))
    if not key_id and not secret:
        return None
    for name, value in ((_KEY_ID, key_id), (_KEY_SECRET, secret)):
        if not value:
            raise Misconfigured("is not set, though its other half is", field=name, remedy="set both, or neither")
    if not token:
        return Credentials(key_id, Redacted(secret.encode()))
    return Credentials(key_id, Redacted(secret.encode()), Redacted(token.encode()), provider="static_sts")


def _from_oidc(environment: Mapping[str, str]) -> OidcRole | None:
    role_arn, provider_arn, token_file = (environment.get(name, "").strip() for name in _OIDC)
    if not token_file:
        return None  # The role's variable alone is in use for other things.
    for name, value in zip(_OIDC, (role_arn, provider_arn, token_file), strict=True):
        if not value:
            raise Misconfigured(
                "is not set, though ALIBABA_CLOUD_OIDC_TOKEN_FILE is",
                field=name,
                remedy="annotate the ServiceAccount for RRSA, so that all three variables are injected",
            )
    session = environment.get("ALIBABA_CLOUD_ROLE_SESSION_NAME", "").strip() or "kmseal"
    return OidcRole(role_arn, provider_arn, Path(token_file), session)


def _from_profiles(environment: Mapping[str, str]) -> Credentials | OidcRole | None:
    home, profile = environment.get("HOME", ""), environment.get("ALIBABA_CLOUD_PROFILE", "")
    chosen = environment.get("ALIBABA_CLOUD_CREDENTIALS_FILE", "")
    disabled = environment.get("ALIBABA_CLOUD_CLI_PROFILE_DISABLED", "").lower() == "true"
    if chosen:
        return read_ini_profile(Path(chosen), profile)
    cli, ini = Path(home, ".aliyun", "config.json"), Path(home, ".alibabacloud", "credentials.ini")
    # os.path.exists, because Path.exists raises where a folder on the way may not be searched.
    if home and not disabled and os.path.exists(cli):
        return read_cli_profile(cli, profile)
    if home and os.path.exists(ini):
        return read_ini_profile(ini, profile)
    return None
