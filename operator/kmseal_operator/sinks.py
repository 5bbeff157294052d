"""What the feeds of EncryptedSecrets and Secrets fill: the two sides of the ledger.

Made by the runtime, one for each feed; they hold nothing of their own.
"""

from kmseal.cluster.names import Key
from kmseal_operator.ledger import Ledger


class ObjectSink:
    """The ledger's side for EncryptedSecrets."""

    def __init__(self, ledger: Ledger) -> None:
        self.observe = ledger.observe_object
        self.vanish = ledger.vanish_object
        self._ledger = ledger

    def present(self) -> set[Key]:
        """All that are believed to be there."""
        return set(self._ledger.keys())


class SecretSink:
    """The ledger's side for Secrets."""

    def __init__(self, ledger: Ledger) -> None:
        self.observe = ledger.observe_secret
        self.vanish = ledger.vanish_secret
        self._ledger = ledger

    def present(self) -> set[Key]:
        """All that are believed to be there."""
        return set(self._ledger.secret_keys())
