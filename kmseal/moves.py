"""To which key wrappings move, by what KMSKeys say of one another: the rules alone, on simple values.

Asked by the operator for its work and its reports, and by the command line for what is stale in files and which newer
wrappings of a cluster may be taken over: so that both always say the same. It asks nobody.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar


class Mover(Protocol):
    """A KMSKey, as far as moving goes."""

    @property
    def key_id(self) -> str:
        """The key that it names now; empty for an alias that was never resolved."""
        ...

    @property
    def former(self) -> frozenset[str]:
        """Keys that it replaces or that its alias named before, without the one that it names now."""
        ...

    @property
    def replaces(self) -> Iterable[str]:
        """Those that it was told to replace."""
        ...

    @property
    def is_neutral(self) -> bool:
        """Whether nobody has said anything in it: registered by the operator, and left so."""
        ...


M = TypeVar("M", bound=Mover)


def leaves(mover: Mover, key_id: str, covering: Iterable[Mover]) -> bool:
    """Whether a KMSKey takes wrappings away from a key.

    That an alias named the key once is no reason while another KMSKey that people wrote names it now: two aliases that
    were swapped would else chase each other's wrappings for ever. ``replaces`` is said on purpose.

    :param covering: the KMSKeys that speak of the key, as the one that it is now or as a former one
    """
    if key_id not in mover.former:
        return False
    return key_id in mover.replaces or not any(other.key_id == key_id and not other.is_neutral for other in covering)


def route(key_id: str, covering: Callable[[str], Sequence[M]]) -> list[M] | None:
    """The KMSKeys that wrappings under a key are moved to, one after the other; None for a circle, which moves nothing.

    :param covering: the KMSKeys that speak of a key, those that people wrote first
    """
    passed, movers = {key_id}, list[M]()
    while True:
        entries = covering(key_id)
        moving = next((entry for entry in entries if entry.key_id and leaves(entry, key_id, entries)), None)
        if moving is None:
            return movers
        key_id = moving.key_id
        if key_id in passed:
            return None
        passed.add(key_id)
        movers.append(moving)


def final(key_id: str, covering: Callable[[str], Sequence[M]]) -> M | None:
    """The KMSKey under whose key a wrapping should end; None where none names it, and for a circle."""
    passed = route(key_id, covering)
    if passed is None:
        return None
    if passed:
        key_id = passed[-1].key_id
    return next((entry for entry in covering(key_id) if entry.key_id == key_id), None)
