"""The one translation of what Alibaba Cloud answers into ``kmseal.errors``.

Called by the KMS client with every answer. Codes and statuses are those of the KMS documentation ("Common error codes"
and "Key state"); what a refusal means is decided by its code where we know it and by its status otherwise, because the
documentation does not name the code of a ciphertext that does not open. Messages are our own words: of an answer they
repeat nothing but a code of letters and full stops, and the request id.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kmseal.errors import AccessDenied, BadCredentials, KeyUnusable, KmsealError, Refused, Throttled, Unavailable
from kmseal.kms.alibaba.arns import KeyName
from kmseal.kms.alibaba.transport import Answer

UNSUPPORTED: Final = "UnsupportedOperation"
"""The reason of a Refused error when the endpoint does not offer the operation at all."""

KMS_REFUSED: Final = "KmsRefused"
"""The reason of a Refused error when KMS does not open a wrapping."""

_OPENING: Final = frozenset({"Decrypt", "ReEncrypt", "AsymmetricDecrypt"})
_CODE: Final = re.compile(r"[A-Z][A-Za-z]{1,40}(\.[A-Z][A-Za-z]{1,40}){0,3}", re.ASCII)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)

_KEY_STATES: Final = {
    "Rejected.Disabled": ("KeyDisabled", "is disabled", "enable the key in KMS; it heals by itself then"),
    "Rejected.PendingDeletion": (
        "KeyPendingDeletion",
        "is scheduled for deletion",
        "cancel the deletion and enable the key, if anything sealed with it is still needed",
    ),
    "Rejected.PendingImport": (
        "KeyPendingImport",
        "has no key material",
        "import the same material again; it heals by itself then",
    ),
    "Forbidden.AliasNotFound": (
        "AliasNotFound",
        "is not found in region {region}",
        "check the alias, and region and account of the ARN",
    ),
    "Forbidden.KeyVersionNotFound": (
        "KeyVersionNotFound",
        "does not have the version that wrapped",
        "check region and account of the key, and whether it was made anew",
    ),
}
_KEY_NOT_FOUND: Final = (
    "KeyNotFound",
    "is not found in region {region}",
    "check region and account of the key's ARN, and that the endpoint set for the region is the region's",
)
_DENIALS: Final = {
    "Forbidden.KmsServiceNotEnabled": "open the KMS service for the account",
    "Forbidden.Opened": "open the KMS service for the account",
    "Forbidden.NoRealNameAuthentication": "finish the account's real-name registration",
    "Forbidden.InDebt": "the account is in debt: settle it",
    "Forbidden.InDebtOverdue": "the account is in debt: settle it",
    "Forbidden.ProhibitedByRiskControl": "the account is stopped by risk control: ask Alibaba Cloud",
}
_RIGHTS: Final = {"ReEncrypt": "ReEncrypt*"}
"""Where the right is not called as the operation: ReEncryptFrom on the old key, ReEncryptTo on the new one."""

_CREDENTIALS: Final = (
    "InvalidAccessKeyId",
    "InvalidSecurityToken",
    "MissingSecurityToken",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "Forbidden.AccessKey",
)
_CLOCK: Final = ("InvalidTimeStamp", "IllegalTimestamp")
_UNSUPPORTED: Final = (
    "UnsupportedOperation",
    "Rejected.UnsupportedOperation",
    "InvalidAction",
    "InvalidApiName",
    "UnsupportedApi",
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an answer with an error says: its status, the code and the request id, each empty when not usable."""

    status: int
    code: str
    request_id: str
    retry_after: float | None
    """Seconds; None when the server did not say."""

    @classmethod
    def read(cls, answer: Answer, members: Mapping[str, Any]) -> "Refusal":
        """Reads the error answer; both spellings of its members are in use."""
        code = members.get("Code", members.get("code"))
        milliseconds = int(answer.retry_after) if re.fullmatch(r"[0-9]{1,9}", answer.retry_after) else 0
        return cls(
            answer.status,
            code if isinstance(code, str) and _CODE.fullmatch(code) else "",
            request_id_of(members),
            milliseconds / 1000 if milliseconds > 0 else None,
        )

    @property
    def throttled(self) -> bool:
        """Whether it asks for fewer requests: by header, by status, or by code, each of which occurs alone."""
        return (
            self.retry_after is not None
            or self.status == 429
            or self.code == "Rejected.Throttling"
            or self.is_one_of(("Throttling",))
        )

    def is_one_of(self, codes: tuple[str, ...]) -> bool:
        """Whether its code is one of these, or a special case of one (``Throttling.User``)."""
        return any(self.code == code or self.code.startswith(code + ".") for code in codes)

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.code}".rstrip()


def read_members(answer: Answer) -> dict[str, Any] | None:
    """The JSON object of an answer's body, None when it is anything else."""
    try:
        members = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return members if isinstance(members, dict) else None


def request_id_of(members: Mapping[str, Any]) -> str:
    """The request id of an answer, empty when there is none of the right form."""
    text = members.get("RequestId", members.get("requestId"))
    return text if isinstance(text, str) and _REQUEST_ID.fullmatch(text) else ""


def require_success(answer: Answer, server: str, operation: str, key: KeyName) -> dict[str, Any]:
    """The members of a successful answer of KMS; raises the error that any other answer means.

    :param server: the server's name for messages
    :param key: the key that the operation is about, as far as we know
    """
    members = read_members(answer)
    if members is None or not (answer.status == 200 or 400 <= answer.status <= 599):
        raise Unavailable(
            f"{server} answers with HTTP {answer.status} and nothing that is an answer of KMS",
            remedy="check that the endpoint is one of KMS and what is between; it is tried again",
        )
    if answer.status == 200:
        return members
    raise translate(Refusal.read(answer, members), server, operation, key)


def translate(refusal: Refusal, server: str, operation: str, key: KeyName) -> KmsealError:
    """The error that a refusal of KMS means."""
    request_id = refusal.request_id
    if refusal.throttled:
        return Throttled(f"{server} asks for fewer requests", retry_after=refusal.retry_after, request_id=request_id)
    if refusal.is_one_of(_CLOCK):
        return Unavailable(
            f"the clock of this machine differs from that of {server} by more than 15 minutes",
            reason="ClockSkew",
            remedy="set the clock",
            request_id=request_id,
        )
    if refusal.status == 401 or refusal.is_one_of(_CREDENTIALS):
        return BadCredentials(
            f"{server} does not accept the credentials ({refusal})",
            remedy="check that the access key exists and is enabled, and that its secret and token belong to it",
            request_id=request_id,
        )
    if refusal.is_one_of(("SignatureNonceUsed",)) or refusal.status >= 500:
        return Unavailable(f"{server} fails ({refusal})", remedy="it is tried again", request_id=request_id)
    if refusal.is_one_of(_UNSUPPORTED):
        return Refused(
            f"{server} does not offer {operation}",
            reason=UNSUPPORTED,
            remedy="use the region's shared endpoint for it",
            request_id=request_id,
        )
    if refusal.status == 403 or refusal.code in _DENIALS:
        return AccessDenied(
            f"{operation} with {key.arn} is denied ({refusal})",
            remedy=_DENIALS.get(
                refusal.code, f"grant kms:{_RIGHTS.get(operation, operation)} on the key to this identity in RAM"
            ),
            request_id=request_id,
        )
    if refusal.status in {404, 409} or refusal.code in _KEY_STATES:
        return _key_unusable(refusal, key)
    if operation in _OPENING:
        return Refused(
            f"KMS refuses the wrapping by {key.arn} ({refusal}): it was altered, or sealed for another place",
            reason=KMS_REFUSED,
            remedy="restore the data key's lines from Git, or seal the values again for this place",
            request_id=request_id,
        )
    return Refused(
        f"{server} refuses {operation} with {key.arn} ({refusal})",
        remedy=f"check that it is {'an RSA' if operation == 'GetPublicKey' else 'a symmetric'} key for ENCRYPT/DECRYPT",
        request_id=request_id,
    )


def _key_unusable(refusal: Refusal, key: KeyName) -> KeyUnusable:
    unknown = ("KeyUnusable", f"cannot be used now ({refusal})", "look at the key's state in KMS")
    reason, state, remedy = _KEY_STATES.get(refusal.code, _KEY_NOT_FOUND if refusal.status == 404 else unknown)
    return KeyUnusable(
        f"{key.arn} {state.format(region=key.region)}", reason=reason, remedy=remedy, request_id=refusal.request_id
    )
