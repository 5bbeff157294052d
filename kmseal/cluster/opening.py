"""From an EncryptedSecret to the data of its target: unwrap, open, render. It reads; it writes nothing.

Called by the operator when ``decide`` asks for it, and by the broker for each grant. One KMS call for each data key
that a value names; the data keys and values live only as long as the caller holds the result. Templates are anybody's
who may write objects or pods, so that they are rendered beside the event loop, one object at a time: whatever is in
them, others are answered meanwhile.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from kmseal.cluster.holdings import KeyUse
from kmseal.cluster.keys import Keys
from kmseal.cluster.templates import render
from kmseal.envelope import DataKeyId
from kmseal.errors import KeyUnusable, KmsealError, Malformed, Unauthentic
from kmseal.kms.provider import Context, Unwrapped
from kmseal.manifest import EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal.rewrapped import Rewrapped, openers

_RENDERING: Final = ThreadPoolExecutor(1, thread_name_prefix="templates")
"""One thread for the process: more would not be faster, since they would share the interpreter. Whoever gives up waits
no longer and leaves the queue."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The whole data of the target, ready to be written, and the keys that opened it."""

    data: Mapping[str, Redacted]
    keys: tuple[KeyUse, ...]


class Unwrapper(Protocol):
    """The part of the keyring that opening needs."""

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context) -> Unwrapped:
        """Opens one of the wrappings of a data key."""
        ...


class GuardedKeyring:
    """A keyring behind the rules of KMSKeys: nothing is unwrapped that they do not allow at that moment.

    :param on_opened: is told which key has opened something, so that a key that is met can be registered
    :param on_unusable: is told which keys did not open something for their state
    """

    def __init__(
        self, keyring: Unwrapper, keys: Keys, on_opened: Callable[[str], None], on_unusable: Callable[[str], None]
    ) -> None:
        self._keyring = keyring
        self._keys = keys
        self._on_opened = on_opened
        self._on_unusable = on_unusable

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context, namespace: str) -> Unwrapped:
        """Opens one of those wrappings that may be opened in the namespace. Raises the rules' refusal, or KMS's."""
        allowed = self._keys.usable(wrappings, namespace)
        try:
            unwrapped = await self._keyring.unwrap(allowed, context)
        except KeyUnusable:
            for key_id in {wrapping.key_id for wrapping in allowed}:
                self._on_unusable(key_id)
            raise
        self._on_opened(unwrapped.key_id)
        return unwrapped


class Opener(Protocol):
    """A guarded keyring, or what stands before one to see what it does."""

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context, namespace: str) -> Unwrapped:
        """Opens one of those wrappings that may be opened in the namespace."""
        ...


async def open_object(
    object_: EncryptedSecret, rewrapped: Sequence[Rewrapped], keyring: Opener, *,
    clock: Callable[[], float], on_unwrap: Callable[[float], None],
) -> Opened | KmsealError:  # fmt: skip
    """All data of the target, or the error that says why there is none.

    :param rewrapped: newer wrappings, which are preferred
    :param on_unwrap: is told the seconds of each unwrap, for metrics
    """
    try:
        object_.require_place()
        try:
            values, uses = await _open_values(object_, rewrapped, keyring, clock, on_unwrap)
        except (Unauthentic, Malformed):
            if not rewrapped:
                raise
            # A stand-in may unwrap to another data key, if somebody has forged it. The right to write a status must
            # not be the right to shut an object: what Git says is tried by itself (docs/format.md, R5).
            values, uses = await _open_values(object_, (), keyring, clock, on_unwrap)
        templates = object_.target.data
        if not templates:
            return Opened(values, uses)
        loop = asyncio.get_running_loop()
        return Opened(await loop.run_in_executor(_RENDERING, render, templates, values), uses)
    except KmsealError as error:
        return error


async def _open_values(
    object_: EncryptedSecret, rewrapped: Sequence[Rewrapped], keyring: Opener, clock: Callable[[], float],
    on_unwrap: Callable[[float], None],
) -> tuple[dict[str, Redacted], tuple[KeyUse, ...]]:  # fmt: skip
    """All values, and the key versions that opened them."""
    context: Mapping[str, str] = object_.place.encryption_context()
    data_keys: dict[DataKeyId, Redacted] = {}
    uses: dict[KeyUse, None] = {}
    used = object_.used_data_keys
    for index, data_key in enumerate(object_.data_keys):
        if data_key not in used:
            continue
        started = clock()
        try:
            unwrapped = await keyring.unwrap(openers(data_key, rewrapped), context, object_.namespace)
        except KmsealError as error:
            error.field = error.field or f"spec.dataKeys[{index}]"
            raise
        on_unwrap(clock() - started)
        data_keys[data_key.id] = unwrapped.data_key
        uses[KeyUse(unwrapped.key_id, unwrapped.key_version_id)] = None
    return object_.decrypt(data_keys), tuple(uses)
