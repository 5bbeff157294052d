"""The refusals of KMS and STS as values: HTTP status, documented code, message.

Every other module of the fake raises a :class:`Refusal`, made by one of the functions below, and ``service`` turns it
into the JSON answer. Codes and statuses are those of the service's documentation, so this is the one place to correct
when the real service is found to differ. No message ever quotes a parameter's value: it could be a plaintext.
"""

from collections.abc import Mapping


class Refusal(Exception):
    """The service says no.

    :param status: HTTP status
    :param code: the documented error code, as ``Forbidden.KeyNotFound``
    :param message: text for a person, without any value out of the request
    :param detail: further members of the JSON answer, as ``AccessDeniedDetail``
    :param retry_after: milliseconds for the header ``x-acs-retry-after``; None leaves it out
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        detail: Mapping[str, object] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.detail = dict(detail or {})
        self.retry_after = retry_after


def missing_parameter(name: str) -> Refusal:
    return Refusal(400, "MissingParameter", f"The parameter {name} is needed but no value was given.")


def invalid_parameter(name: str, why: str = "") -> Refusal:
    because = f" ({why})" if why else ""
    return Refusal(400, "InvalidParameter", f"The specified parameter {name} is not valid.{because}")


def unsupported_operation(why: str) -> Refusal:
    return Refusal(400, "UnsupportedOperation", f"This action is not supported: {why}.")


def key_not_found() -> Refusal:
    return Refusal(404, "Forbidden.KeyNotFound", "The specified Key is not found.")


def key_version_not_found() -> Refusal:
    return Refusal(404, "Forbidden.KeyVersionNotFound", "The specified KeyVersion is not found.")


def alias_not_found() -> Refusal:
    return Refusal(404, "Forbidden.AliasNotFound", "The specified Alias is not found.")


def unsupported_alias() -> Refusal:
    return Refusal(400, "Unsupported.Alias", "An alias is not supported by this action: name the key itself.")


def unsupported_origin(why: str) -> Refusal:
    return Refusal(400, "Unsupported.Origin", f"The origin of the key does not allow this action: {why}.")


def throttled(retry_after: int | None = None) -> Refusal:
    return Refusal(429, "Rejected.Throttling", "QPS Limit Exceeded", retry_after=retry_after)


def no_permission(action: str, verdict: str, principal: str, principal_type: str, account: str) -> Refusal:
    """The answer of access control: it names the right that is lacking, never a key's material.

    ``verdict`` says why: ``ImplicitDeny`` when nothing allows it, ``ExplicitDeny`` when something denies it.
    """
    return Refusal(
        403,
        "Forbidden.NoPermission",
        "This operation is forbidden by permission system.",
        {
            "AccessDeniedDetail": {
                "AuthAction": f"kms:{action}",
                "AuthPrincipalDisplayName": principal,
                "AuthPrincipalOwnerId": account,
                "AuthPrincipalType": principal_type,
                "NoPermissionType": verdict,
                "PolicyType": "AccountLevelIdentityBasedPolicy",
            }
        },
    )
