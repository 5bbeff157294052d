"""Each key is reached as its KMSKey says, without asking KMS for anything; what fails is refused with its reason."""

import asyncio
import base64
from contextlib import suppress
from typing import Any, cast

import pytest

from kmseal.cluster.connections import Connections
from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.names import Backoff, Key
from kmseal.errors import KmsealError, Unavailable
from kmseal.kms.connection import Connection
from kmseal.kube import KubeClient
from kmseal_webhook.connecting import Connecting

Json = dict[str, Any]
A = "acs:kms:cn-hangzhou:1:key/a"


class Setting:
    """Keys, a keyring that remembers its connections, an API server that holds Secrets, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.version = 0
        self.secrets: dict[str, Json] = {}
        self.fails = False
        self.reads = 0
        self.connected: dict[str, Connection | None] = {}
        self.keys = Keys(Mode.OPEN, Listeners(lambda keys: None, lambda name: None, self.on_entry))
        connections = Connections(cast(KubeClient, self), self, self.keys, "kmseal-system")
        self.work = Connecting(
            connections, self.keys, backoff=Backoff(10.0, 60.0, lambda: 1.0), clock=lambda: self.now, again=300.0
        )

    def on_entry(self, name: str) -> None:
        self.work.touch(name)

    def connect(self, key: str, connection: Connection | None) -> None:
        self.connected[key] = connection

    async def get(self, resource: object, namespace: str, name: str) -> Json | None:
        self.reads += 1
        if self.fails:
            raise Unavailable("down")
        return self.secrets.get(name)

    def show(self, name: str, key_id: str = A, status: Json | None = None, **spec: Any) -> None:
        self.version += 1
        metadata = {"name": name, "uid": f"u-{name}", "resourceVersion": str(self.version)}
        kind = {"apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey"}
        self.keys.observe({**kind, "metadata": metadata, "spec": {"keyId": key_id, **spec}, "status": status or {}})

    def store(self, name: str, key_id: str) -> None:
        content = {"accessKeyId": key_id, "accessKeySecret": "s"}
        self.secrets[name] = {"data": {k: base64.b64encode(v.encode()).decode() for k, v in content.items()}}

    async def turn(self) -> None:
        """Lets the worker do what is due now."""
        task = asyncio.create_task(self.work.run())
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    def obstacle(self, key_id: str = A) -> KmsealError | None:
        entry = self.keys.speaker(key_id)
        return None if entry is None or entry.connected else entry.failure or Unavailable("not tried yet")


@pytest.fixture
async def setting() -> Setting:
    return Setting()


async def test_a_new_kmskey_is_connected_at_once(setting: Setting) -> None:
    """Until then its key is not used by the process's own way."""
    setting.store("team", "LTAI1")
    setting.show("one", credentials={"secretName": "team"})
    assert setting.obstacle()
    await setting.turn()
    assert setting.obstacle() is None
    assert setting.connected[A]


async def test_news_of_a_status_keep_the_connection_and_take_the_state(setting: Setting) -> None:
    """The operator polls and writes; here a state is read, and a key that was connected stays so."""
    setting.store("team", "LTAI1")
    setting.show("one", credentials={"secretName": "team"})
    await setting.turn()
    reads = setting.reads
    setting.show("one", credentials={"secretName": "team"}, status={"state": "Disabled", "keyId": A})
    await setting.turn()
    assert (setting.obstacle(), setting.reads) == (None, reads)
    refusal = setting.keys.refusal(A, "team")
    assert refusal
    assert refusal.message.endswith("Disabled")
    setting.show("one", credentials={"secretName": "team"}, status={"state": "Enabled", "keyId": A})
    assert setting.keys.refusal(A, "team") is None


async def test_a_failure_is_tried_again_and_says_why(setting: Setting) -> None:
    """A Secret that is missing, and an API server that is down, heal by themselves."""
    setting.show("one", credentials={"secretName": "team"})
    await setting.turn()
    assert "no Secret team" in str(setting.obstacle())
    setting.store("team", "LTAI1")
    setting.fails = True
    await setting.turn()
    assert setting.reads == 1
    setting.now = 10.0
    await setting.turn()
    setting.fails, setting.now = False, 29.0
    await setting.turn()
    assert setting.reads == 2
    setting.now = 30.0
    await setting.turn()
    assert setting.obstacle() is None


async def test_a_renewed_access_key_is_taken_up(setting: Setting) -> None:
    """Without a restart and without a change of the KMSKey; while the Secret cannot be read the old one is used."""
    setting.store("team", "LTAI1")
    setting.show("one", credentials={"secretName": "team"})
    await setting.turn()
    before = setting.connected[A]
    setting.store("team", "LTAI2")
    setting.now, setting.fails = 300.0, True
    await setting.turn()
    assert (setting.connected[A], setting.obstacle()) == (before, None)
    setting.now, setting.fails = 310.0, False
    await setting.turn()
    assert setting.connected[A] != before


async def test_a_kmskey_that_is_gone_leaves_the_process_s_own_way(setting: Setting) -> None:
    """Or that of another KMSKey of the same key, which is connected in its place."""
    setting.store("team", "LTAI1")
    setting.show("one", credentials={"secretName": "team"})
    setting.show("two", credentials={"secretName": "team"})
    await setting.turn()
    setting.keys.vanish(Key("", "one"))
    await setting.turn()
    assert setting.connected[A]
    assert setting.obstacle() is None
    setting.keys.vanish(Key("", "two"))
    await setting.turn()
    assert setting.connected[A] is None
