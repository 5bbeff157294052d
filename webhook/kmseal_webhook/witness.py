"""What KMS was asked for one grant, also if it fails in the end: watched at the keyring, for the audit.

``broker`` puts a witness into each entry of the audit, ``grants`` opens through a keyring that it watches. It sees ids
of keys, versions and requests; it keeps no data key.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kmseal.cluster.holdings import KeyUse
from kmseal.cluster.opening import Opener
from kmseal.errors import KmsealError
from kmseal.kms.provider import Context, Unwrapped
from kmseal.manifest import Wrapping


@dataclass(slots=True)
class Witness:
    """The key versions that have unwrapped something, and the ids of all requests that KMS has seen."""

    keys: dict[KeyUse, None] = field(default_factory=dict)
    request_ids: list[str] = field(default_factory=list)

    def saw(self, request_id: str) -> None:
        """A request that KMS has answered, or refused."""
        if request_id:
            self.request_ids.append(request_id)


class Witnessed:
    """A keyring that is watched."""

    def __init__(self, keyring: Opener, witness: Witness) -> None:
        self._keyring = keyring
        self._witness = witness

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context, namespace: str) -> Unwrapped:
        """As the keyring does, in front of the witness."""
        try:
            unwrapped = await self._keyring.unwrap(wrappings, context, namespace)
        except KmsealError as error:
            self._witness.saw(error.request_id)
            raise
        self._witness.saw(unwrapped.request_id)
        self._witness.keys[KeyUse(unwrapped.key_id, unwrapped.key_version_id)] = None
        return unwrapped
