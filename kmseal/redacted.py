"""The wrapper in which secrets travel: it has no readable form until it is opened on purpose.

Every plaintext value and data key is one of these from the moment it exists until the call that consumes it. Its
``repr``, ``str`` and ``format`` are redacted, it cannot be pickled, and it compares in constant time, so that a value
cannot reach a log, an exception or an assertion message by accident. Python cannot promise to wipe memory: the bytes
live until the garbage collector frees them, so hold a ``Redacted`` no longer than the call that needs it.
"""

import hmac
from typing import NoReturn, final


@final
class Redacted:
    """Secret bytes.

    Only :meth:`reveal` gives them out, so that one search finds every place where plaintext is used.
    """

    __slots__ = ("__secret",)

    def __init__(self, secret: bytes) -> None:
        self.__secret = bytes(secret)

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self.__secret

    def __len__(self) -> int:
        return len(self.__secret)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Redacted):
            return NotImplemented
        return hmac.compare_digest(self.__secret, other.__secret)

    __hash__ = None  # type: ignore[assignment]  # A hash would be an oracle, and nothing needs secrets as keys.

    def __repr__(self) -> str:
        return "Redacted(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Redacted value is not to be pickled or copied into another process")
