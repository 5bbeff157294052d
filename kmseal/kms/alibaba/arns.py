"""The names by which people and wrappings call a KMS key: ARNs of keys and of aliases.

Called by the provider on everything it is given. A bare key id or ``alias/x`` is refused: it would mean another key in
another region or account, and cross-account use needs the ARN anyway.
"""

import re
from dataclasses import dataclass
from typing import Final

from kmseal.envelope import shorten
from kmseal.errors import Malformed

PREFIX: Final = "acs:kms:"
_ARN: Final = re.compile(
    r"acs:kms:(?P<region>[a-z0-9-]{2,32}):(?P<account>[0-9]{1,32}):"
    r"(?P<resource>key/[A-Za-z0-9-]{1,64}|alias/[A-Za-z0-9_/-]{1,249})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class KeyName:
    """A parsed ARN. ``resource`` is ``key/<id>`` or ``alias/<name>``."""

    region: str
    account: str
    resource: str

    @classmethod
    def parse(cls, text: str) -> "KeyName":
        """Raises Malformed with the reason KeyId."""
        match = _ARN.fullmatch(text)
        if match is None:
            raise Malformed(
                f"{shorten(text)} is not the ARN of a KMS key or of an alias",
                reason="KeyId",
                remedy="give the ARN: acs:kms:<region>:<account>:key/<id>, or alias/<name> in place of key/<id>",
            )
        return cls(match["region"], match["account"], match["resource"])

    @property
    def arn(self) -> str:
        """The name as text."""
        return f"{PREFIX}{self.region}:{self.account}:{self.resource}"

    @property
    def is_alias(self) -> bool:
        """Whether it may name another key tomorrow."""
        return self.resource.startswith("alias/")

    def key(self, key_id: str) -> "KeyName":
        """The key ``key_id`` of the same region and account: what an alias turned out to name."""
        return KeyName(self.region, self.account, f"key/{key_id}")
