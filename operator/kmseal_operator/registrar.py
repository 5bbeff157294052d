"""Registers keys that are met: in open mode every key that has opened something gets a KMSKey.

Told by the guarded keyring after each unwrap. Only a key that really opened something counts: else whoever may write an
EncryptedSecret could fill the cluster, and the quota of metadata calls, with KMSKeys of keys that do not exist.
"""

import hashlib
import logging
import re
from typing import Final, Protocol

from kmseal.cluster.keys import Keys, Mode
from kmseal.cluster.names import FIELD_MANAGER, Key
from kmseal.errors import Conflict, KeyUnusable, KmsealError
from kmseal.kms.provider import KeyDescription
from kmseal.kmskey import AUTOMATIC, AUTOMATIC_LABEL
from kmseal.kube import KMS_KEYS, KubeClient
from kmseal.manifest import API_VERSION
from kmseal_operator.queue import KeyedQueue

AUTOMATIC_MAX: Final = 256
_log = logging.getLogger(__name__)


class Describer(Protocol):
    """The part of the keyring that registering needs."""

    async def describe(self, key: str) -> KeyDescription:
        """State and primary version of a key."""
        ...


class Registrar:
    """Creates KMSKeys; it never changes or deletes one."""

    def __init__(self, kube: KubeClient, keyring: Describer, keys: Keys, queue: KeyedQueue) -> None:
        self._kube = kube
        self._keyring = keyring
        self._keys = keys
        self._queue = queue
        self._met: set[str] = set()

    def met(self, key_id: str) -> None:
        """A key has opened something."""
        if key_id not in self._met and self._keys.mode is Mode.OPEN and not self._keys.covering(key_id):
            self._met.add(key_id)
            self._queue.add(Key("", key_id))

    async def work(self) -> None:
        """Serves for ever; what fails is tried again."""
        while True:
            key = await self._queue.take()
            try:
                await self._register(key.name)
            except KmsealError as error:
                delay = self._queue.failed(key, error.reason)
                _log.warning(
                    "a key could not be registered: %s", error, extra={"object": key.name, "retry_seconds": delay}
                )
            except Exception as error:  # noqa: BLE001  # The last line of defence; its text may quote anything.
                self._queue.failed(key, "Unexpected")
                _log.error("unexpected error", extra={"object": key.name, "error": type(error).__name__})
            else:
                self._queue.done(key)

    async def _register(self, key_id: str) -> None:
        if self._keys.covering(key_id):
            return
        if sum(entry.automatic for entry in self._keys.entries()) >= AUTOMATIC_MAX:
            _log.warning(
                "not registered, for there are %d automatic KMSKeys already", AUTOMATIC_MAX, extra={"object": key_id}
            )
            return
        # KMS opens by the ciphertext; only a description says that account and region in the name are true.
        try:
            is_true = (await self._keyring.describe(key_id)).key_id == key_id
        except KeyUnusable:
            is_true = False
        if not is_true:
            _log.warning("not registered, for KMS does not know the key by this name", extra={"object": key_id})
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": KMS_KEYS.kind,
            "metadata": {"name": registered_name(key_id), "labels": {AUTOMATIC_LABEL: AUTOMATIC}},
            "spec": {"keyId": key_id},
        }
        try:
            await self._kube.create(KMS_KEYS, None, body, manager=FIELD_MANAGER)
        except Conflict as conflict:
            if conflict.reason == "NotFound":
                raise
            # Somebody has registered it meanwhile: the feed will show it.
        self._met.discard(key_id)  # Should somebody delete it, its next use registers it anew.


def registered_name(key_id: str) -> str:
    """The name of the KMSKey of a key that was met: readable, and never the same for two keys."""
    words = re.sub(r"[^a-z0-9]+", "-", key_id.removeprefix("acs:kms:").lower().replace(":key/", "-")).strip("-")
    return f"{words[:200]}-{hashlib.sha256(key_id.encode()).hexdigest()[:8]}"
