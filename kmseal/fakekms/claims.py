"""What a signed request claims, in either generation of signatures: the value that ``authentication`` verifies."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kmseal.fakekms.refusals import Refusal


@dataclass(frozen=True, slots=True)
class Claim:
    """Who says to have signed, when, and how to tell.

    :param date: as received; nothing has been checked yet
    :param sign: the signature that the request must carry, from the secret of the access key
    """

    access_key_id: str
    date: str
    nonce: str
    signature: str = field(repr=False)
    security_token: str = field(repr=False)
    sign: Callable[[str], str] = field(repr=False)


def incomplete(why: str) -> Refusal:
    """The refusal of a request that lacks a part of a signature."""
    return Refusal(400, "IncompleteSignature", f"The request signature does not conform to the standard: {why}.")
