"""STS: AssumeRoleWithOIDC, the exchange of a service account's token for a temporary access key (RRSA).

``service`` calls :meth:`TokenService.assume_role_with_oidc` for the one action that needs no signature. A role has a
policy, and may name the subjects that it trusts. Other actions of STS and RAM are not played here.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from kmseal.fakekms.calls import Body
from kmseal.fakekms.identities import Identities
from kmseal.fakekms.oidc import OidcProvider, client_ids
from kmseal.fakekms.policies import ANYTHING, Policy
from kmseal.fakekms.refusals import Refusal, unsupported_operation
from kmseal.fakekms.requests import Parameters
from kmseal.fakekms.shapes import timestamp

ACTION: Final = "AssumeRoleWithOIDC"
API_VERSION: Final = "2015-04-01"
_SESSION_NAME: Final = re.compile(r"[A-Za-z0-9.@_-]{2,64}", re.ASCII)
_LEAST: Final = 900
_MOST: Final = 43200


@dataclass(frozen=True, slots=True)
class Role:
    """A role that tokens of some subjects may assume.

    :param name: the last part of ``acs:ram::<account>:role/<name>``
    :param subjects: patterns of ``sub``, as ``system:serviceaccount:kmseal:*``
    :param provider: name of the OIDC provider whose tokens it takes; empty takes those of any
    """

    name: str
    policy: Policy = ANYTHING
    subjects: tuple[str, ...] = ("*",)
    provider: str = ""


class TokenService:
    """Roles and identity providers of one account."""

    def __init__(self, account: str, identities: Identities, clock: Callable[[], float]) -> None:
        self._account = account
        self._identities = identities
        self._clock = clock
        self._roles: dict[str, Role] = {}
        self._providers: dict[str, OidcProvider] = {}

    @property
    def roles(self) -> tuple[Role, ...]:
        return tuple(self._roles.values())

    def role_arn(self, name: str) -> str:
        return f"acs:ram::{self._account}:role/{name}"

    def provider_arn(self, name: str) -> str:
        return f"acs:ram::{self._account}:oidc-provider/{name}"

    def add_role(self, role: Role) -> str:
        """Adds or replaces a role; its ARN."""
        arn = self.role_arn(role.name)
        self._roles[arn] = role
        return arn

    def add_provider(self, provider: OidcProvider) -> None:
        """Adds or replaces an identity provider."""
        self._providers[provider.arn] = provider

    def restore(self, roles: Iterable[Role]) -> None:
        """Takes over roles from a saved state; those that are there already stay."""
        self._roles = {self.role_arn(role.name): role for role in roles} | self._roles

    def assume_role_with_oidc(self, parameters: Parameters) -> tuple[Body, str]:
        """The answer with the temporary access key, and the name under which the audit trail knows its holder."""
        if parameters.text("Version") != API_VERSION:
            raise Refusal(400, "InvalidVersion", "Specified parameter Version is not valid.")
        role_arn, provider_arn = parameters.text("RoleArn"), parameters.text("OIDCProviderArn")
        session = parameters.text("RoleSessionName")
        if not _SESSION_NAME.fullmatch(session):
            raise Refusal(400, "InvalidParameter.RoleSessionName", "The parameter RoleSessionName is wrongly formed.")
        if parameters.optional("Policy"):
            # To ignore it would grant more than the real service does.
            raise unsupported_operation("policies of sessions are not played here")
        lifetime = parameters.integer("DurationSeconds", _LEAST, _MOST) or 3600
        provider, role = self._providers.get(provider_arn), self._roles.get(role_arn)
        if provider is None:
            raise Refusal(404, "EntityNotExist.OIDCProvider", "The OIDC provider does not exist.")
        claims = provider.verify(parameters.text("OIDCToken"), self._clock())
        if role is None:
            raise Refusal(404, "EntityNotExist.Role", "The role does not exist.")
        subject = str(claims["sub"])
        trusted = any(fnmatchcase(subject, pattern) for pattern in role.subjects)
        if not trusted or role.provider not in {"", provider_arn.rpartition("/")[2]}:
            raise Refusal(403, "NoPermission", "The role does not trust this subject.")
        identity = self._identities.add_temporary(f"{role.name}/{session}", role.policy, lifetime)
        body: Body = {
            "AssumedRoleUser": {
                "Arn": f"{role_arn}/{session}",
                "AssumedRoleId": f"3{self._account}:{session}",
            },
            "Credentials": {
                "AccessKeyId": identity.access_key_id,
                "AccessKeySecret": identity.access_key_secret,
                "SecurityToken": identity.security_token,
                "Expiration": timestamp(identity.expires or 0),
            },
            "OIDCTokenInfo": {
                "Subject": subject,
                "Issuer": str(claims.get("iss", "")),
                "ClientIds": ",".join(client_ids(claims)),
            },
        }
        return body, identity.name
