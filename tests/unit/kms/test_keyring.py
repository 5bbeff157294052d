"""The keyring: which provider, which wrapping first, and which error when none opens."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kmseal.errors import (
    AccessDenied,
    KeyUnusable,
    KmsealError,
    Malformed,
    Misconfigured,
    Refused,
    Throttled,
    Unavailable,
)
from kmseal.kms.figures import EndpointFigures
from kmseal.kms.keyring import Keyring
from kmseal.kms.provider import Context, FreshDataKey, KeyDescription, KeyState, PublicHalf, Unwrapped
from kmseal.kms.settings import KmsSettings
from kmseal.kms.wiring import Wiring
from kmseal.manifest import Algorithm, Wrapping
from kmseal.redacted import Redacted


class ScriptedProvider:
    """A provider whose keys do what the test says: a third one beside alibaba and local, by one registration."""

    def __init__(self) -> None:
        self.outcomes: dict[str, KmsealError] = {}
        self.ill: set[str] = set()
        self.asked: list[str] = []
        self.closed = 0

    async def generate(self, key: str, context: Context) -> FreshDataKey:
        return FreshDataKey(Redacted(b"k" * 32), await self.wrap(key, Redacted(b""), context))

    async def wrap(self, key: str, data_key: Redacted, context: Context) -> Wrapping:
        self.asked.append(f"wrap {key}")
        return Wrapping(key, "1", Algorithm.LOCAL_AES_256_GCM, data_key.reveal())

    async def unwrap(self, wrapping: Wrapping, context: Context) -> Unwrapped:
        self.asked.append(wrapping.key_id)
        if wrapping.key_id in self.outcomes:
            raise self.outcomes[wrapping.key_id]
        return Unwrapped(Redacted(b"k" * 32), wrapping.key_id, "1", "")

    async def rewrap(
        self, wrapping: Wrapping, key: str, context: Context, *, description: KeyDescription | None = None
    ) -> Wrapping:
        self.asked.append(f"rewrap {wrapping.key_id} {key}")
        return wrapping

    async def describe(self, key: str) -> KeyDescription:
        return KeyDescription(key, KeyState.ENABLED, "1")

    async def public_key(self, key: str, version: str = "") -> PublicHalf:
        return PublicHalf(key, version or "newest", "PEM")

    def healthy(self, key: str) -> bool:
        return key not in self.ill

    def endpoints(self) -> Sequence[EndpointFigures]:
        return [EndpointFigures(key, False, 5) for key in sorted(self.ill)]

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def provider() -> ScriptedProvider:
    return ScriptedProvider()


@pytest.fixture
def keyring(provider: ScriptedProvider) -> Keyring:
    return Keyring(KmsSettings(), {}, providers={"test:": lambda wiring: provider})


def wrappings(*names: str) -> list[Wrapping]:
    return [Wrapping(f"test:{name}", "1", Algorithm.KMS_SYMMETRIC, b"w") for name in names]


async def test_the_first_wrapping_that_opens_is_the_only_one_asked(
    keyring: Keyring, provider: ScriptedProvider
) -> None:
    """Success with the first wrapping costs one call."""
    assert (await keyring.unwrap(wrappings("a", "b"), {})).key_id == "test:a"
    assert provider.asked == ["test:a"]


@pytest.mark.parametrize(
    "error",
    [Unavailable("x"), Throttled("x"), AccessDenied("x"), KeyUnusable("x"), Misconfigured("x"), Refused("x")],
    ids=lambda error: type(error).__name__,
)
async def test_any_error_leads_to_the_next_wrapping(
    keyring: Keyring, provider: ScriptedProvider, error: KmsealError
) -> None:
    """Even a refusal: the other wrapping may be whole."""
    provider.outcomes["test:a"] = error
    assert (await keyring.unwrap(wrappings("a", "b"), {})).key_id == "test:b"
    assert provider.asked == ["test:a", "test:b"]


async def test_endpoints_that_do_not_answer_are_asked_last(keyring: Keyring, provider: ScriptedProvider) -> None:
    """The manifest's order stays among the healthy ones, and among the others."""
    await keyring.describe("test:a")
    provider.ill = {"test:a", "test:c"}
    provider.outcomes = {f"test:{name}": Unavailable("x") for name in "abcd"}
    with pytest.raises(Unavailable):
        await keyring.unwrap(wrappings("a", "b", "c", "d"), {})
    assert provider.asked == ["test:b", "test:d", "test:a", "test:c"]


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((AccessDenied("denied"), Unavailable("down")), Unavailable),
        ((Refused("altered"), Unavailable("down")), Unavailable),
        ((Refused("altered"), KeyUnusable("disabled")), KeyUnusable),
        ((Refused("altered"), Misconfigured("no file")), Refused),
        ((Misconfigured("no file"), Refused("altered")), Misconfigured),
        ((Throttled("slower", retry_after=3.0), Unavailable("down")), Throttled),
    ],
    ids=lambda value: "-".join(type(error).__name__ for error in value) if isinstance(value, tuple) else "",
)
async def test_when_none_opens_the_error_that_may_pass_soonest_is_raised(
    keyring: Keyring, provider: ScriptedProvider, errors: tuple[KmsealError, KmsealError], expected: type[KmsealError]
) -> None:
    """Retryable, then Denied, then the rest, the first among equals; the message names the other one and its reason."""
    provider.outcomes = dict(zip(("test:a", "test:b"), errors, strict=True))
    with pytest.raises(expected) as caught:
        await keyring.unwrap(wrappings("a", "b"), {})
    chosen = errors[0] if isinstance(errors[0], expected) else errors[1]
    other, name = (errors[1], "test:b") if chosen is errors[0] else (errors[0], "test:a")
    assert caught.value.message == f"{chosen.message}; nor does it open with {name} ({other.reason})"
    assert caught.value.reason == chosen.reason
    assert getattr(caught.value, "retry_after", None) == getattr(chosen, "retry_after", None)
    assert chosen.message in {"denied", "altered", "disabled", "no file", "slower", "down"}, "the original is unchanged"


async def test_no_wrapping_at_all_is_malformed(keyring: Keyring) -> None:
    """The parser never lets that through; the keyring does not rely on it."""
    with pytest.raises(Malformed):
        await keyring.unwrap([], {})


@pytest.mark.parametrize("key", ["", "key-hzz", "alias/x", "arn:aws:kms:x", "tes"])
async def test_a_name_of_no_provider_is_malformed(keyring: Keyring, key: str) -> None:
    """With the forms that are possible."""
    with pytest.raises(Malformed, match="acs:kms:") as caught:
        await keyring.generate(key, {})
    assert caught.value.reason == "KeyId"


async def test_rewrapping_to_another_provider_unwraps_here_and_wraps_there(provider: ScriptedProvider) -> None:
    """Within one provider it is that provider's rewrap."""
    other = ScriptedProvider()
    factories: dict[str, Callable[[Wiring], Any]] = {"test:": lambda wiring: provider, "other:": lambda wiring: other}
    keyring = Keyring(KmsSettings(), {}, providers=factories)
    (wrapping,) = wrappings("a")
    await keyring.rewrap(wrapping, "test:b", {})
    assert provider.asked == ["rewrap test:a test:b"]
    moved = await keyring.rewrap(wrapping, "other:b", {})
    assert provider.asked[1:] == ["test:a"]
    assert other.asked == ["wrap other:b"]
    assert moved.wrapped == b"k" * 32


async def test_a_provider_is_made_once_and_closed_with_the_keyring(provider: ScriptedProvider) -> None:
    """However many keys and calls there are."""
    made: list[Wiring] = []

    def make(wiring: Wiring) -> ScriptedProvider:
        made.append(wiring)
        return provider

    async with Keyring(KmsSettings(), {"A": "B"}, providers={"test:": make}) as keyring:
        assert made == []
        for name in "abc":
            await keyring.generate(f"test:{name}", {})
    assert [wiring.environment for wiring in made] == [{"A": "B"}]
    assert provider.closed == 1


async def test_a_factory_that_fails_is_tried_again(provider: ScriptedProvider) -> None:
    """A file that was missing at start may be there later."""
    outcomes: list[Any] = [Misconfigured("no file"), provider]

    def make(wiring: Wiring) -> ScriptedProvider:
        outcome = outcomes.pop(0)
        if isinstance(outcome, KmsealError):
            raise outcome
        made: ScriptedProvider = outcome
        return made

    keyring = Keyring(KmsSettings(), {}, providers={"test:": make})
    with pytest.raises(Misconfigured):
        await keyring.unwrap(wrappings("a"), {})
    await keyring.unwrap(wrappings("a"), {})


def test_importing_the_keyring_imports_neither_sdk_nor_http_library() -> None:
    """They come with the first key that needs them: a command without KMS must start fast."""
    program = (
        "import sys, kmseal.kms.keyring; "
        "print([m for m in sys.modules if m.split('.')[0].startswith(('alibabacloud', 'darabonba', 'Tea', 'aiohttp'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
