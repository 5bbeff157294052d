"""Which provider a key is reached by, and how long a provider lives."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from kmseal.errors import KmsealError, Malformed, Misconfigured, Unavailable
from kmseal.kms.connection import OWN, AccessKey, AssumedRole, Connection
from kmseal.kms.figures import EndpointFigures
from kmseal.kms.keyring import Keyring
from kmseal.kms.provider import Context, KeyDescription, KeyState, Unwrapped
from kmseal.kms.settings import KmsSettings
from kmseal.kms.wiring import Wiring
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted

FIRST, SECOND = Connection(endpoint="first.example.com"), Connection(endpoint="second.example.com")


class Recorder:
    """A provider that writes down what it is asked, and answers when it may."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.asked: list[str] = []
        self.closed = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.ill = False

    async def describe(self, key: str) -> KeyDescription:
        self.asked.append(f"describe {key}")
        await self.may_answer.wait()
        assert not self.closed
        return KeyDescription(key, KeyState.ENABLED, "1")

    async def unwrap(self, wrapping: Wrapping, context: Context) -> Unwrapped:
        self.asked.append(f"unwrap {wrapping.key_id}")
        if self.ill:
            raise Unavailable("down")
        return Unwrapped(Redacted(b"k" * 32), wrapping.key_id, "1", "")

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        self.asked.append(f"wrap {key}")
        return Wrapping(key, "1", Algorithm.KMS_SYMMETRIC, data_key.reveal())

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        self.asked.append(f"rewrap {wrapping.key_id} {key} {description.primary_version if description else ''}")
        return wrapping

    def healthy(self, key: str) -> bool:
        return not self.ill

    def endpoints(self) -> Sequence[EndpointFigures]:
        return [EndpointFigures("shared.example.com", not self.ill, 3 if self.ill else 0)]

    async def close(self) -> None:
        self.closed += 1


class Factory:
    """Makes recorders, and remembers them by their connection."""

    def __init__(self) -> None:
        self.made: list[Recorder] = []
        self.failure: KmsealError | None = None

    def __call__(self, wiring: Wiring) -> Any:
        if self.failure is not None and wiring.connection != OWN:
            raise self.failure
        self.made.append(Recorder(wiring))
        return self.made[-1]

    def of(self, connection: Connection) -> Recorder:
        """The living one of a connection."""
        (found,) = [one for one in self.made if one.wiring.connection == connection and not one.closed]
        return found


@pytest.fixture
def factory() -> Factory:
    return Factory()


@pytest.fixture
def keyring(factory: Factory) -> Keyring:
    return Keyring(KmsSettings(), {}, providers={"test:": factory})


def wrapping(key: str) -> Wrapping:
    return Wrapping(key, "1", Algorithm.KMS_SYMMETRIC, b"w")


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_connected_key_is_reached_its_own_way_and_the_others_are_not(
    keyring: Keyring, factory: Factory
) -> None:
    """Keys that nobody connected use the process's own, before and after."""
    await keyring.describe("test:a")
    keyring.connect("test:a", FIRST)
    await keyring.describe("test:a")
    await keyring.describe("test:b")
    assert factory.of(FIRST).asked == ["describe test:a"]
    assert factory.of(OWN).asked == ["describe test:a", "describe test:b"]


async def test_keys_of_equal_connections_share_a_provider(keyring: Keyring, factory: Factory) -> None:
    """With its connections, credentials and breakers."""
    for key in ("test:a", "test:b"):
        keyring.connect(key, Connection(credentials=AccessKey("id", Redacted(b"secret"))))
        await keyring.describe(key)
    assert len(factory.made) == 1


@pytest.mark.parametrize("restored", [None, Connection()])
async def test_taking_a_connection_back_restores_the_own_way_and_closes_the_provider(
    keyring: Keyring, factory: Factory, restored: Connection | None
) -> None:
    """As soon as the last key that used it is gone."""
    for key in ("test:a", "test:b"):
        keyring.connect(key, FIRST)
        await keyring.describe(key)
    first = factory.of(FIRST)
    keyring.connect("test:a", restored)
    await settle()
    assert first.closed == 0
    keyring.connect("test:b", restored)
    await settle()
    assert first.closed == 1
    await keyring.describe("test:b")
    assert factory.of(OWN).asked == ["describe test:b"]


async def test_connecting_the_same_way_again_changes_nothing(keyring: Keyring, factory: Factory) -> None:
    """The operator says it at every poll, and then takes it back once."""
    for _ in range(3):
        keyring.connect("test:a", Connection(endpoint="first.example.com"))
        await keyring.describe("test:a")
    assert len(factory.made) == 1
    keyring.connect("test:a", None)
    await settle()
    assert factory.made[0].closed == 1


async def test_a_provider_in_use_is_closed_after_its_last_call(keyring: Keyring, factory: Factory) -> None:
    """A call that is under way ends by the connection that it began with; the next one goes the new way."""
    keyring.connect("test:a", FIRST)
    await keyring.describe("test:a")
    first = factory.of(FIRST)
    first.may_answer.clear()
    calls = [asyncio.create_task(keyring.describe("test:a")) for _ in range(2)]
    await settle()
    keyring.connect("test:a", SECOND)
    await keyring.describe("test:a")
    assert factory.of(SECOND).asked == ["describe test:a"]
    calls[0].cancel()
    await settle()
    assert first.closed == 0
    first.may_answer.set()
    await calls[1]
    await settle()
    assert first.closed == 1


async def test_a_provider_that_comes_too_late_is_closed_after_its_call(keyring: Keyring, factory: Factory) -> None:
    """The connection was taken back while its provider was being made."""
    keyring.connect("test:a", FIRST)
    call = asyncio.create_task(keyring.describe("test:a"))
    await settle()
    keyring.connect("test:a", None)
    await call
    await settle()
    assert [one.closed for one in factory.made] == [1]


async def test_a_provider_is_kept_when_its_key_comes_back_meanwhile(keyring: Keyring, factory: Factory) -> None:
    """Taken away and given again during a call: nothing is closed under anybody."""
    keyring.connect("test:a", FIRST)
    await keyring.describe("test:a")
    first = factory.of(FIRST)
    first.may_answer.clear()
    call = asyncio.create_task(keyring.describe("test:a"))
    await settle()
    keyring.connect("test:a", None)
    keyring.connect("test:b", FIRST)
    first.may_answer.set()
    await call
    await settle()
    assert first.closed == 0
    await keyring.describe("test:b")
    assert len(factory.made) == 1


async def test_closing_the_keyring_closes_every_provider_once(keyring: Keyring, factory: Factory) -> None:
    """Those of connections, the own one, and the one that is just being closed."""
    for key, connection in (("test:a", FIRST), ("test:b", SECOND), ("test:c", None)):
        keyring.connect(key, connection)
        await keyring.describe(key)
    keyring.connect("test:b", None)
    await keyring.close()
    assert [one.closed for one in factory.made] == [1, 1, 1]


async def test_a_connection_that_cannot_be_made_harms_only_its_key_and_heals(
    keyring: Keyring, factory: Factory
) -> None:
    """Every call says what is wrong; the first one after it was put right succeeds."""
    keyring.connect("test:a", FIRST)
    factory.failure = Misconfigured("no file", field="credentials")
    for _ in range(2):
        with pytest.raises(Misconfigured) as caught:
            await keyring.describe("test:a")
        assert caught.value.field == "credentials"
    await keyring.describe("test:b")
    factory.failure = None
    await keyring.describe("test:a")
    assert factory.of(FIRST).asked == ["describe test:a"]


async def test_rewrapping_between_connections_opens_by_one_and_wraps_by_the_other(
    keyring: Keyring, factory: Factory
) -> None:
    """Two accounts may know nothing of each other; within one connection it is that provider's rewrap."""
    keyring.connect("test:new", FIRST)
    await keyring.rewrap(wrapping("test:old"), "test:new", {})
    assert factory.of(OWN).asked == ["unwrap test:old"]
    assert factory.of(FIRST).asked == ["wrap test:new"]
    keyring.connect("test:old", FIRST)
    await keyring.rewrap(
        wrapping("test:old"), "test:new", {}, description=KeyDescription("test:new", KeyState.ENABLED, "7")
    )
    assert factory.of(FIRST).asked[1:] == ["rewrap test:old test:new 7"]


async def test_the_order_of_unwrapping_looks_at_the_key_s_own_provider(keyring: Keyring, factory: Factory) -> None:
    """The same service is down by one way and up by the other."""
    keyring.connect("test:a", FIRST)
    await keyring.describe("test:a")
    await keyring.describe("test:b")
    factory.of(FIRST).ill = True
    opened = await keyring.unwrap([wrapping("test:a"), wrapping("test:b")], {})
    assert opened.key_id == "test:b"
    assert factory.of(FIRST).asked == ["describe test:a"]
    keyring.connect("test:a", None)
    assert (await keyring.unwrap([wrapping("test:a"), wrapping("test:b")], {})).key_id == "test:a"


async def test_all_providers_share_one_budget_and_one_endpoint_has_one_figure(
    keyring: Keyring, factory: Factory
) -> None:
    """Quotas belong to the account; of two breakers for an endpoint the worse is shown."""
    keyring.connect("test:a", FIRST)
    await keyring.describe("test:a")
    await keyring.describe("test:b")
    assert factory.made[0].wiring.budget is factory.made[1].wiring.budget
    factory.of(FIRST).ill = True
    assert keyring.figures().endpoints == (EndpointFigures("shared.example.com", False, 3),)


async def test_a_name_of_no_provider_can_be_connected_and_not_used(keyring: Keyring) -> None:
    """The calls say what is wrong with it."""
    keyring.connect("nonsense", FIRST)
    with pytest.raises(Malformed):
        await keyring.describe("nonsense")
    keyring.connect("nonsense", None)


@pytest.mark.parametrize(
    ("connection", "field"),
    [
        (Connection(endpoint="kms.example.com"), "endpoint"),
        (Connection(ca_pem="-----BEGIN CERTIFICATE-----"), "caBundle"),
        (Connection(credentials=AssumedRole("acs:ram::1:role/a")), "credentials"),
    ],
)
async def test_a_local_key_has_no_connection(connection: Connection, field: str) -> None:
    """It is in a file: the field that cannot be meant is named."""
    async with Keyring(KmsSettings(), {}) as keyring:
        keyring.connect("local:a", connection)
        with pytest.raises(Misconfigured, match="leave it out") as caught:
            await keyring.describe("local:a")
    assert caught.value.field == field
