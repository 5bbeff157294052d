"""How each key is reached: turns what KMSKeys say into connections of the keyring.

Called before a key is used: by the operator at each poll, by the webhook when a KMSKey changes and now and then. A
Secret with an access key is read anew each time, so that a renewed one is taken up without a restart. Nothing of a
credential is kept here.
"""

import base64
import binascii
from typing import Protocol

from kmseal.cluster.entry import Entry
from kmseal.cluster.keys import Keys
from kmseal.errors import Misconfigured
from kmseal.kms.connection import AccessKey, AssumedRole, Connection
from kmseal.kube import SECRETS, KubeClient
from kmseal.redacted import Redacted


class Connector(Protocol):
    """The part of the keyring that is told."""

    def connect(self, key: str, connection: Connection | None) -> None:
        """From now on reaches a key by this connection; None means the process's own."""
        ...


class Connections:
    """The connections of all KMSKeys.

    :param namespace: the only namespace that Secrets with access keys are read from
    """

    def __init__(self, kube: KubeClient, keyring: Connector, keys: Keys, namespace: str) -> None:
        self._kube = kube
        self._keyring = keyring
        self._keys = keys
        self._namespace = namespace
        self._connected: dict[str, set[str]] = {}

    async def connect(self, entry: Entry) -> None:
        """Has the keyring reach the key as its KMSKey says. Raises Misconfigured, or what the API server answers.

        Keys that it replaces are not touched: they may be of another account, and have a KMSKey of their own.
        """
        connection = await self._connection(entry)
        wanted = {entry.key.key_id, *entry.previous, entry.key_id} - {""}
        wanted = {key_id for key_id in wanted if self._keys.speaker(key_id) in (entry, None)}
        for key_id in self._connected.get(entry.key.name, set()) - wanted:
            self._keyring.connect(key_id, None)
        for key_id in wanted:
            self._keyring.connect(key_id, connection)
        self._connected[entry.key.name] = wanted

    def disconnect(self, name: str) -> list[Entry]:
        """A KMSKey is gone; answers with those that have to say now how its keys are reached."""
        heirs: list[Entry] = []
        for key_id in self._connected.pop(name, set()):
            self._keyring.connect(key_id, None)
            heirs.extend(self._keys.covering(key_id))
        return heirs

    async def _connection(self, entry: Entry) -> Connection | None:
        key = entry.key
        credentials: AccessKey | AssumedRole | None = None
        if key.secret_name:
            credentials = await self._read_access_key(key.secret_name)
        elif key.role:
            credentials = AssumedRole(key.role.arn, key.role.oidc_provider_arn, key.role.session_name)
        if not (key.endpoint or key.ca_bundle or credentials):
            return None
        return Connection(key.endpoint, key.ca_bundle, credentials)

    async def _read_access_key(self, name: str) -> AccessKey:
        raw = await self._kube.get(SECRETS, self._namespace, name)
        if raw is None:
            raise _unreadable(f"there is no Secret {name} in the namespace {self._namespace}")
        data = raw.get("data") or {}
        try:
            key_id, secret, token = (
                base64.b64decode(data.get(member, ""), validate=True).strip()
                for member in ("accessKeyId", "accessKeySecret", "securityToken")
            )
            text = key_id.decode("ascii")
        except (binascii.Error, UnicodeDecodeError):
            raise _unreadable(f"the Secret {name} holds no access key in ASCII") from None
        if not (text and secret):
            raise _unreadable(f"the Secret {name} lacks accessKeyId or accessKeySecret")
        return AccessKey(text, Redacted(secret), Redacted(token) if token else None)


def _unreadable(message: str) -> Misconfigured:
    return Misconfigured(
        message,
        field="spec.credentials.secretName",
        remedy="create it in the namespace of kmseal-operator and kmseal-webhook, with accessKeyId and accessKeySecret",
    )
