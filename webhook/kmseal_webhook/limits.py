"""How often the broker may be asked, and by whom: token buckets and a number of turns at once, in bounded memory.

Called by ``broker`` before each step that costs somebody else something. A refusal costs nothing but itself and says
when to come back. It waits for nobody: a queue would let one pod's flood stand before another pod's request.
"""

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from kmseal.redacted import Redacted
from kmseal_webhook.identity import Caller
from kmseal_webhook.refusals import Reason, Refusal


class Rate(NamedTuple):
    """``burst`` requests at once after a pause, and ``per_second`` in the long run."""

    per_second: float
    burst: int


_KEPT_MAX: Final = 10_000
"""Buckets of one kind: beyond, those that were used longest ago are forgotten. To be forgotten on purpose, a flood
would need that many addresses, pods or namespaces of its own; tokens can be made up, but count by their address too."""
_REMOTE: Final = Rate(100.0, 400)
_TOKEN: Final = Rate(1.0, 20)
_POD: Final = Rate(0.5, 20)
_NAMESPACE: Final = Rate(50.0, 200)


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What is allowed. The defaults let 200 pods of a namespace start at once, and a sidecar ask as often as it may."""

    remote: Rate = _REMOTE
    """Of one address. Behind a proxy or masquerading that is a whole node: it only guards the API server's reviews."""
    token: Rate = _TOKEN
    """With one token, whoever has it: a pod that floods is stopped by this before it costs a call, or its address."""
    pod: Rate = _POD
    """Of one pod, whichever of its tokens it shows. Fewer than one in 30 seconds would starve the shortest refresh."""
    namespace: Rate = _NAMESPACE
    """Of all pods of one namespace: what one team can take of the KMS quota that all share."""
    turns: int = 2
    """Requests of one pod at once: its init container's or its sidecar's, and one whose client has given up."""
    body_seconds: float = 5.0
    """How long a body of at most 64 KiB may take."""


class Buckets:
    """One token bucket for each key, made when it is first needed.

    :param clock: monotonic seconds
    :param most: how many are kept
    """

    def __init__(self, rate: Rate, *, clock: Callable[[], float], most: int = _KEPT_MAX) -> None:
        self._rate = rate
        self._clock = clock
        self._most = most
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Takes a token and answers with 0, or takes none and answers with the seconds until there is one."""
        now = self._clock()
        level, counted_at = self._levels.pop(key, (float(self._rate.burst), now))
        level = min(float(self._rate.burst), level + (now - counted_at) * self._rate.per_second)
        wait = max(0.0, (1.0 - level) / self._rate.per_second)
        self._levels[key] = (level if wait else level - 1.0, now)
        if len(self._levels) > self._most:
            self._levels.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._levels)


@dataclass(slots=True)
class Turns:
    """How many requests of each pod are being answered."""

    most: int
    _taken: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def turn(self, pod_uid: str) -> Iterator[None]:
        """Counts one while it is open. Raises Refusal where there are as many already."""
        if self._taken[pod_uid] >= self.most:
            raise Refusal(Reason.THROTTLED, f"the pod has {self.most} requests here already", retry_after=1.0)
        self._taken[pod_uid] += 1
        try:
            yield
        finally:
            self._taken[pod_uid] -= 1
            if not self._taken[pod_uid]:
                del self._taken[pod_uid]

    def __len__(self) -> int:
        return len(self._taken)


class Limits:
    """All limits of one broker."""

    def __init__(self, limits: BrokerLimits, *, clock: Callable[[], float]) -> None:
        self._remotes = Buckets(limits.remote, clock=clock)
        self._tokens = Buckets(limits.token, clock=clock)
        self._pods = Buckets(limits.pod, clock=clock)
        self._namespaces = Buckets(limits.namespace, clock=clock)
        self._turns = Turns(limits.turns)

    def admit_stranger(self, remote: str, token: Redacted) -> None:
        """Before it is known who asks. Raises Refusal."""
        # By its digest: no token is kept. It comes first, so that one pod's flood does not use up what its whole
        # address may ask.
        _require(self._tokens, hashlib.sha256(token.reveal()).hexdigest(), "this token is shown too often")
        _require(self._remotes, remote, "too many requests come from this address")

    def admit(self, caller: Caller) -> None:
        """Once the API server has said who asks, before anything else is asked of it. Raises Refusal."""
        _require(self._pods, caller.pod_uid, "this pod asks too often")
        _require(self._namespaces, caller.namespace, f"the pods of the namespace {caller.namespace} ask too often")

    @contextmanager
    def turn(self, caller: Caller) -> Iterator[None]:
        """While one request of a pod is being answered. Raises Refusal."""
        with self._turns.turn(caller.pod_uid):
            yield


def whole_seconds(wait: float) -> int:
    """As ``Retry-After`` says it: never less than the wait, and at least 1."""
    return max(1, math.ceil(wait))


def _require(buckets: Buckets, key: str, message: str) -> None:
    wait = buckets.take(key)
    if wait:
        raise Refusal(Reason.THROTTLED, message, retry_after=wait)
