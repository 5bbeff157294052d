"""Which keys a request is about, before anything of it has been verified: for faults that hit single keys.

``wire`` asks only while such a fault is switched on. What a request names and is not there is no target, and no error.
"""

import base64
import binascii
from contextlib import suppress
from typing import Final

from kmseal.fakekms import ciphertext
from kmseal.fakekms.keystore import KeyStore
from kmseal.fakekms.refusals import Refusal
from kmseal.fakekms.requests import Request

_NAMES: Final = ("KeyId", "DestinationKeyId", "SourceKeyId")


def targets(request: Request, store: KeyStore) -> tuple[str, ...]:
    """The ARNs of the keys that the request names, or whose ciphertext it brings."""
    found: set[str] = set()
    with suppress(Refusal):
        values = dict(request.query_pairs() + request.form_pairs())
        for name in _NAMES:
            if name in values:
                with suppress(Refusal):
                    found.add(store.resolve(request.region, values[name], alias_allowed=True).arn)
        with suppress(Refusal, binascii.Error, ValueError):
            blob = base64.b64decode(values.get("CiphertextBlob", ""), validate=True)
            found.add(store.by_version(request.region, ciphertext.version_of(blob)).arn)
    return tuple(sorted(found))
