"""What a grant leaves behind in its witness."""

from collections.abc import Sequence

import pytest

from kmseal.cluster.holdings import KeyUse
from kmseal.errors import KeyUnusable
from kmseal.kms.provider import Context, Unwrapped
from kmseal.manifest import Wrapping
from kmseal.redacted import Redacted
from kmseal_webhook.witness import Witness, Witnessed


class Keyring:
    """Opens, or refuses, as told."""

    def __init__(self, outcome: Unwrapped | KeyUnusable) -> None:
        self.outcome = outcome

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context, namespace: str) -> Unwrapped:
        if isinstance(self.outcome, KeyUnusable):
            raise self.outcome
        return self.outcome


async def test_a_witness_sees_what_opened() -> None:
    """Each version once, each request always."""
    witness = Witness()
    keyring = Witnessed(Keyring(Unwrapped(Redacted(b"k" * 32), "local:dev", "v1", "r1")), witness)
    for _ in range(2):
        await keyring.unwrap((), {}, "prod")
    assert list(witness.keys) == [KeyUse("local:dev", "v1")]
    assert witness.request_ids == ["r1", "r1"]


async def test_a_witness_sees_what_was_refused() -> None:
    """A request that KMS has refused is in its trail as well; one that was never sent has no id."""
    witness = Witness()
    for request_id in ("r1", ""):
        with pytest.raises(KeyUnusable):
            await Witnessed(Keyring(KeyUnusable("x", request_id=request_id)), witness).unwrap((), {}, "prod")
    assert (witness.keys, witness.request_ids) == ({}, ["r1"])
