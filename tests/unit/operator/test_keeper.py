"""When the keeper looks at a KMSKey again. What it asks and writes is tested on a real API server."""

import asyncio
from datetime import UTC, datetime
from typing import Any, NoReturn

from kmseal.cluster.connections import Connections
from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.names import Backoff, Key
from kmseal.kms.connection import Connection
from kmseal.kms.provider import KeyDescription
from kmseal_operator.backlog import Backlog
from kmseal_operator.keeper import Keeper
from kmseal_operator.ledger import Ledger
from kmseal_operator.metrics import Metrics
from kmseal_operator.queue import KeyedQueue

KEY_ID = "acs:kms:cn-hangzhou:1:key/a"


class Unasked:
    """A keyring that must not be asked for a key: only told how keys are reached."""

    def connect(self, key: str, connection: Connection | None) -> None:
        """Takes it in."""

    async def describe(self, key: str) -> KeyDescription:
        """Fails the test."""
        raise AssertionError(f"{key} was asked for")


def nobody(*_: object) -> None:
    """A listener who does nothing."""


def no_api(*_: object, **__: object) -> NoReturn:
    raise AssertionError("the API server was asked")


async def test_a_kmskey_that_cannot_be_read_is_not_looked_at_without_end() -> None:
    """Also one that was reached in a way of its own, before somebody wrote what this operator does not know."""
    queue = KeyedQueue(Backlog(Backoff(1, 60, lambda: 0)), clock=lambda: 100.0)
    keys = Keys(Mode.OPEN, Listeners(nobody, nobody, nobody))
    absent: Any = no_api
    keeper = Keeper(
        absent, Unasked(), Connections(absent, Unasked(), keys, "kmseal-system"), keys, Ledger(queue), queue,
        announcer=absent, metrics=Metrics(), pause=5.0, is_complete=lambda: False, sees_all=lambda: True,
        failed=frozenset, on_rotation=nobody, now=lambda: datetime.now(UTC), clock=lambda: 100.0, chance=lambda: 0.0,
    )  # fmt: skip
    kind = {"apiVersion": "kmseal.dev/v1alpha1", "kind": "KMSKey"}
    for version, more in (("1", {"endpoint": "kms.example.com:443"}), ("2", {"notYetInvented": True})):
        metadata = {"name": "one", "uid": "u", "resourceVersion": version}
        keys.observe({**kind, "metadata": metadata, "spec": {"keyId": KEY_ID, **more}})
    entry = keys.get("one")
    assert entry is not None
    assert entry.invalid
    worker = asyncio.create_task(keeper.work())
    keeper.touch("one")
    for _ in range(20):
        await asyncio.sleep(0)
    worker.cancel()
    due = queue.backlog.next_due()
    assert due is not None
    assert due > 110.0
    assert queue.backlog.ready == 0
    assert keys.covering(KEY_ID) == [entry]
    assert queue.backlog.take(100.0) is None
    assert Key("", "one") in keys.present()
