"""The trial at admission, with real keys from a file."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from kmseal.cluster.keys import Keys, Listeners, Mode
from kmseal.cluster.opening import GuardedKeyring
from kmseal.cluster.reasons import Reason
from kmseal.envelope import Place, Scope, encrypt_value, new_data_key_id
from kmseal.errors import AccessDenied, KeyUnusable, Refused, TemplateFailed, Unauthentic, Unavailable
from kmseal.kms.keyring import Keyring
from kmseal.kms.local import create_key_file
from kmseal.kms.provider import Context, Unwrapped
from kmseal.kms.settings import KmsSettings
from kmseal.manifest import Algorithm, DataKey, EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.target import Target
from kmseal_webhook.trial import WRAPPINGS_MAX, Trial

PLACE = Place.of(Scope.STRICT, "prod", "db")


class Counting:
    """A keyring that counts, and that can be held at the unwrap."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.held = asyncio.Event()
        self.held.set()
        self.under_way = self.most = self.calls = 0

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context) -> Unwrapped:
        self.calls += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.held.wait()
            return await self._keyring.unwrap(wrappings, context)
        finally:
            self.under_way -= 1


class Setting:
    """A key file with the keys dev and other, and a trial over it."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring = keyring
        self.counting = Counting(keyring)
        self.opened: list[str] = []
        self.seconds: list[float] = []

    def trial(self, mode: Mode = Mode.OPEN, seconds: float = 30.0, at_once: int = 4) -> Trial:
        keys = Keys(mode, Listeners(lambda keys: None, lambda namespace: None, lambda name: None))
        guarded = GuardedKeyring(self.counting, keys, self.opened.append, lambda key_id: None)
        return Trial(
            guarded, clock=lambda: 1.0, on_unwrap=self.seconds.append, seconds=seconds, at_once=at_once
        )  # fmt: skip

    async def seal(
        self,
        *,
        keys: Sequence[str] = ("local:dev",),
        place: Place = PLACE,
        sealed_under: bytes = b"",
        template: str = "",
    ) -> EncryptedSecret:
        """An object of one value and one data key, wrapped by each of the keys.

        :param place: what the wrappings are bound to
        :param sealed_under: another data key than the one that is wrapped
        """
        fresh = await self.keyring.generate(keys[0], place.encryption_context())
        further = [await self.keyring.wrap(key, fresh.data_key, place.encryption_context()) for key in keys[1:]]
        id_ = new_data_key_id()
        data_key = Redacted(sealed_under) if sealed_under else fresh.data_key
        value = encrypt_value(data_key, id_, PLACE, "password", Redacted(b"x"))
        return EncryptedSecret(
            "prod", "db", Scope.STRICT, (DataKey(id_, PLACE, (fresh.wrapping, *further)),), {"password": value},
            Target("db", data={"a": template} if template else {}),
        )  # fmt: skip


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    """A keyring over a fresh key file."""
    path = tmp_path / "keys.json"
    create_key_file(path, ("dev", "other"))
    async with Keyring(KmsSettings(local_key_file=path), {}) as keyring:
        yield Setting(keyring)


async def test_what_opens_has_no_fault(setting: Setting) -> None:
    """By one unwrap, which is measured and told as any other."""
    assert await setting.trial().fault(await setting.seal(), ()) is None
    assert (setting.counting.calls, setting.opened, setting.seconds) == (1, ["local:dev"], [0.0])


async def test_a_wrapping_of_another_place_is_found(setting: Setting) -> None:
    """KMS refuses it for its context, although the object names the right place."""
    other = Place.of(Scope.STRICT, "test", "db")
    error = await setting.trial().fault(await setting.seal(place=other), ())
    assert isinstance(error, Refused)
    assert error.field == "spec.dataKeys[0]"


async def test_a_wrapping_of_another_data_key_is_found(setting: Setting) -> None:
    """It unwraps, but no value opens: only opening for real can tell."""
    error = await setting.trial().fault(await setting.seal(sealed_under=b"k" * 32), ())
    assert isinstance(error, Unauthentic)
    assert error.field == "spec.encryptedData.password"


async def test_a_key_that_is_not_there_is_found(setting: Setting) -> None:
    """With the reason that says so."""
    object_ = await setting.seal(keys=("local:other",))
    alone = Wrapping("local:gone", *_rest(object_.data_keys[0].wrappings[0]))
    lost = EncryptedSecret(
        "prod", "db", Scope.STRICT, (DataKey(object_.data_keys[0].id, PLACE, (alone,)),), object_.values, Target("db")
    )
    error = await setting.trial().fault(lost, ())
    assert isinstance(error, KeyUnusable)
    assert error.reason == "KeyNotFound"


async def test_a_template_that_fails_with_these_values_is_found(setting: Setting) -> None:
    """It names a value that the object does not have."""
    error = await setting.trial().fault(await setting.seal(template="{{ values.user }}"), ())
    assert isinstance(error, TemplateFailed)
    assert error.field == "spec.target.data.a"


async def test_the_rules_of_kmskeys_hold(setting: Setting) -> None:
    """What they deny is not unwrapped."""
    error = await setting.trial(Mode.REGISTERED).fault(await setting.seal(), ())
    assert isinstance(error, AccessDenied)
    assert error.reason == Reason.KEY_NOT_REGISTERED
    assert setting.counting.calls == 0


async def test_an_object_of_very_many_wrappings_is_not_tried(setting: Setting) -> None:
    """Who may create objects must not be able to use up the quota of KMS."""
    object_ = await setting.seal()
    wrappings = object_.data_keys[0].wrappings
    many = [Wrapping(f"local:k{index}", *_rest(wrappings[0])) for index in range(WRAPPINGS_MAX)]
    big = EncryptedSecret(
        "prod", "db", Scope.STRICT, (DataKey(object_.data_keys[0].id, PLACE, (*wrappings, *many)),), object_.values,
        Target("db"),
    )  # fmt: skip
    assert isinstance(await setting.trial().fault(big, ()), Unavailable)
    assert setting.counting.calls == 0


async def test_a_slow_kms_costs_only_its_time(setting: Setting) -> None:
    """When that is over, it is not known whether the object opens: no cause to refuse."""
    setting.counting.held.clear()
    error = await setting.trial(seconds=0.01).fault(await setting.seal(), ())
    assert isinstance(error, Unavailable)
    assert setting.counting.under_way == 0


async def test_only_so_many_are_opened_at_once(setting: Setting) -> None:
    """The others wait, within their own time."""
    setting.counting.held.clear()
    trial = setting.trial(at_once=2)
    object_ = await setting.seal()
    tasks = [asyncio.create_task(trial.fault(object_, ())) for _ in range(6)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert setting.counting.under_way == 2
    setting.counting.held.set()
    assert await asyncio.gather(*tasks) == [None] * 6
    assert (setting.counting.most, setting.counting.calls) == (2, 6)


def _rest(wrapping: Wrapping) -> tuple[str, Algorithm, bytes]:
    return wrapping.key_version_id, wrapping.algorithm, wrapping.wrapped
