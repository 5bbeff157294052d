"""What the feeds fill: the ledger's side for EncryptedSecrets and Secrets, and the side of the keys for namespaces.

Made by the runtime, one for each feed; they hold nothing of their own. KMSKeys go to ``keys`` directly.
"""

from typing import Any

from kmseal_operator.backlog import Key
from kmseal_operator.keys import Keys
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


class NamespaceSink:
    """The side of the keys for the labels of namespaces."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def observe(self, raw: dict[str, Any]) -> None:
        """A namespace is there, new or changed."""
        metadata = raw["metadata"]
        self._keys.label(metadata["name"], metadata.get("labels") or {})

    def vanish(self, key: Key, version: int = 0) -> None:
        """A namespace is gone."""
        self._keys.label(key.name, None)

    def present(self) -> set[Key]:
        """All that are believed to be there."""
        return {Key("", name) for name in self._keys.labelled()}


class SecretSink:
    """The ledger's side for Secrets."""

    def __init__(self, ledger: Ledger) -> None:
        self.observe = ledger.observe_secret
        self.vanish = ledger.vanish_secret
        self._ledger = ledger

    def present(self) -> set[Key]:
        """All that are believed to be there."""
        return set(self._ledger.secret_keys())
