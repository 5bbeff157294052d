"""The switchboard of faults: what is to go wrong on the wire, for which calls, how often.

``wire`` asks :meth:`Faults.take` once for each request and does what the answer says; tests and ``admin`` add and
remove faults while the fake runs. A :class:`Fault` is one frozen value that is matched against action, gateway and key;
the first that matches wins, except that latencies add up and go with any other. Randomness is passed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import count
from typing import Final


class FaultKind(StrEnum):
    """What goes wrong. The first group answers instead of the service, the second spoils the service's answer."""

    ERROR = "error"
    """a JSON error with the fault's status, code and message; throttling is one of these"""
    BAD_GATEWAY = "bad-gateway"
    """502 with an HTML page, as a proxy answers"""
    HTML = "html"
    """200 with an HTML page"""
    RESET = "reset"
    """the connection is reset and nothing has been done"""

    LATENCY = "latency"
    """the answer comes ``seconds`` later"""
    TRUNCATE = "truncate"
    """200 with half of the JSON"""
    DRIP = "drip"
    """one byte of the answer every ``seconds``"""
    LOST = "lost"
    """the call is carried out, then the connection is reset without an answer"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    :param actions: patterns of the actions concerned, as ``Decrypt``, ``*DataKey*``
    :param regions: patterns of the gateways concerned: a shared one has the name of its region, an instance's own the
        id of the instance, so that each can fail alone
    :param keys: patterns of the keys concerned, by id or ARN; ``*`` also hits requests that concern none
    :param times: how many matching calls it hits before it is over; None until it is removed
    :param probability: the share of the matching calls that it hits, from 0 to 1
    :param seconds: of LATENCY and between the bytes of DRIP
    :param retry_after: milliseconds for the header ``x-acs-retry-after`` of an ERROR; None leaves it out
    """

    kind: FaultKind
    actions: tuple[str, ...] = ("*",)
    regions: tuple[str, ...] = ("*",)
    keys: tuple[str, ...] = ("*",)
    times: int | None = None
    probability: float = 1.0
    seconds: float = 0.0
    status: int = 503
    code: str = "ServiceUnavailableTemporary"
    message: str = "The request has failed due to a temporary failure of the server."
    retry_after: int | None = None

    def matches(self, action: str, region: str, keys: Callable[[], Sequence[str]]) -> bool:
        """Whether it concerns a request. ``keys`` finds the ARNs of its keys and is called only if that matters."""
        if not any(fnmatchcase(action, pattern) for pattern in self.actions):
            return False
        if not any(fnmatchcase(region, pattern) for pattern in self.regions):
            return False
        return self.keys == ("*",) or any(
            fnmatchcase(arn, pattern) or arn.rpartition("/")[2] == pattern for arn in keys() for pattern in self.keys
        )


def throttling(
    *actions: str, times: int | None = None, probability: float = 1.0, retry_after: int | None = None
) -> Fault:
    """The fault of a used up quota; all actions unless some are named."""
    return Fault(
        FaultKind.ERROR,
        actions=actions or ("*",),
        times=times,
        probability=probability,
        status=429,
        code="Rejected.Throttling",
        message="QPS Limit Exceeded",
        retry_after=retry_after,
    )


def latency(seconds: float, *actions: str, times: int | None = None) -> Fault:
    """The fault of slow answers; all actions unless some are named."""
    return Fault(FaultKind.LATENCY, actions=actions or ("*",), times=times, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Effect:
    """What happens to one request: a delay in seconds, and at most one fault besides."""

    delay: float = 0.0
    fault: Fault | None = None


NO_EFFECT: Final = Effect()


class Faults:
    """The faults that are switched on, in the order of their numbers.

    :param chance: uniformly random from 0 up to and without 1
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._active: dict[int, Fault] = {}
        self._numbers = count(1)

    @property
    def active(self) -> dict[int, Fault]:
        """Number → fault, with ``times`` counted down."""
        return dict(self._active)

    def add(self, fault: Fault) -> int:
        """Switches a fault on; its number, to remove it by."""
        number = next(self._numbers)
        if fault.times is None or fault.times > 0:
            self._active[number] = fault
        return number

    def remove(self, number: int) -> bool:
        """Switches one fault off; False when it is over already."""
        return self._active.pop(number, None) is not None

    def clear(self) -> None:
        """Switches all faults off."""
        self._active.clear()

    def take(self, action: str, region: str, keys: Callable[[], Sequence[str]] = tuple) -> Effect:
        """What happens to the next request, and counts it; parameters as of :meth:`Fault.matches`."""
        if not self._active:
            return NO_EFFECT
        delay, hit = 0.0, None
        for number, fault in list(self._active.items()):
            if (hit is not None and fault.kind is not FaultKind.LATENCY) or not fault.matches(action, region, keys):
                continue
            if fault.probability < 1.0 and self._chance() >= fault.probability:
                continue
            self._count_down(number, fault)
            if fault.kind is FaultKind.LATENCY:
                delay += fault.seconds
            else:
                hit = fault
        return Effect(delay, hit)

    def _count_down(self, number: int, fault: Fault) -> None:
        if fault.times is None:
            return
        if fault.times <= 1:
            del self._active[number]
        else:
            self._active[number] = replace(fault, times=fault.times - 1)
