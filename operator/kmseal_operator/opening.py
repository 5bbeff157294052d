"""From an EncryptedSecret to the data of its target: unwrap, open, render. It reads; it writes nothing.

Called by ``reconcile`` when ``decide`` asks for it. One KMS call for each data key that a value names; the data keys
and values live only as long as the caller holds the result.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kmseal.errors import KmsealError
from kmseal.kms.provider import Context, Unwrapped
from kmseal.manifest import EncryptedSecret, Wrapping
from kmseal.redacted import Redacted
from kmseal_operator.decide import KeyUse, Opened
from kmseal_operator.templates import render


class Unwrapper(Protocol):
    """The part of the keyring that opening needs."""

    async def unwrap(self, wrappings: Sequence[Wrapping], context: Context) -> Unwrapped:
        """Opens one of the wrappings of a data key."""
        ...


async def open_object(
    object_: EncryptedSecret, keys: Unwrapper, *, clock: Callable[[], float], on_unwrap: Callable[[float], None]
) -> Opened | KmsealError:
    """All data of the target, or the error that says why there is none.

    :param on_unwrap: is told the seconds of each unwrap, for metrics
    """
    try:
        object_.require_place()
        context: Mapping[str, str] = object_.place.encryption_context()
        data_keys: dict[str, Redacted] = {}
        uses: list[KeyUse] = []
        for index, data_key in enumerate(object_.used_data_keys):
            started = clock()
            try:
                unwrapped = await keys.unwrap(data_key.wrappings, context)
            except KmsealError as error:
                error.field = error.field or f"spec.dataKeys[{index}]"
                raise
            on_unwrap(clock() - started)
            data_keys[data_key.id] = unwrapped.data_key
            use = KeyUse(unwrapped.key_id, unwrapped.key_version_id)
            if use not in uses:
                uses.append(use)
        values = object_.decrypt({data_key.id: data_keys[data_key.id] for data_key in object_.used_data_keys})
        templates = object_.target.data
        return Opened(render(templates, values) if templates else values, tuple(uses))
    except KmsealError as error:
        return error
