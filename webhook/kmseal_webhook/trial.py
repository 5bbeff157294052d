"""The optional trial at admission: whether an EncryptedSecret opens here, found out by opening it.

Asked by ``validation`` where ``--dry-run-unwrap`` is given. It goes the way of the operator and the broker, through the
rules of KMSKeys to a real unwrap, the values and the templates, for less would not find a wrapping of another object's
data key; a dry run of KMS itself checks rights only. What was opened is dropped at once: only the error comes out.

Whoever may create objects decides how much is unwrapped here, and the quota of KMS is that of all. So the wrappings of
one object, its time, and the objects at one time are bounded; what is over a bound is not tried.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from kmseal.cluster.opening import Opened, Opener, open_object
from kmseal.errors import KmsealError, Unavailable
from kmseal.manifest import EncryptedSecret
from kmseal.rewrapped import Rewrapped, openers

WRAPPINGS_MAX: Final = 16
"""Of all data keys that values name: each may cost one request to KMS."""


class Trial:
    """Opens objects, to see whether they open.

    :param seconds: for one object, waiting included; well below the timeout of the webhook configuration
    :param at_once: how many objects are tried at one time
    :param on_unwrap: is told the seconds of each unwrap, for metrics
    """

    def __init__(
        self, keyring: Opener, *, clock: Callable[[], float], on_unwrap: Callable[[float], None],
        seconds: float = 2.0, at_once: int = 4,
    ) -> None:  # fmt: skip
        self._keyring = keyring
        self._clock = clock
        self._on_unwrap = on_unwrap
        self._seconds = seconds
        self._places = asyncio.Semaphore(at_once)

    async def fault(self, object_: EncryptedSecret, rewrapped: Sequence[Rewrapped]) -> KmsealError | None:
        """Why the object does not open; None where it does. Unavailable, too, where that was not found out."""
        wrappings = sum(len(openers(data_key, rewrapped)) for data_key in object_.used_data_keys)
        if wrappings > WRAPPINGS_MAX:
            return Unavailable(f"was not opened to try it: it has {wrappings} wrappings, over {WRAPPINGS_MAX}")
        try:
            async with asyncio.timeout(self._seconds), self._places:
                opened = await open_object(
                    object_, rewrapped, self._keyring, clock=self._clock, on_unwrap=self._on_unwrap
                )
        except TimeoutError:
            return Unavailable(f"was not opened to try it: that took longer than {self._seconds:g} s")
        return None if isinstance(opened, Opened) else opened
