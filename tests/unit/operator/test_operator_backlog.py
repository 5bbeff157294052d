"""The backlog's rules, under any order of calls."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kmseal_operator.backlog import Backlog, Backoff, Key, Lane

KEYS = [Key("n", name) for name in "abcd"]


def backlog() -> Backlog:
    return Backlog(Backoff(1.0, 8.0, lambda: 0.5))


class AnyOrder(RuleBasedStateMachine):
    """Adds, takes, ends and time in any order; the machine keeps what must be true beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.backlog = backlog()
        self.now = 0.0
        self.taken: set[Key] = set()
        self.owed: set[Key] = set()
        """Keys that must come to a worker sooner or later."""

    @rule(key=st.sampled_from(KEYS), lane=st.sampled_from(list(Lane)))
    def add(self, key: Key, lane: Lane) -> None:
        self.backlog.add(key, lane, self.now)
        self.owed.add(key)

    @rule()
    def take(self) -> None:
        taken = self.backlog.take(self.now)
        if taken is None:
            return
        key, waited = taken
        assert key not in self.taken, "two workers hold one key"
        assert key in self.owed, "a key came that nobody had added"
        assert waited >= 0
        self.taken.add(key)
        self.owed.discard(key)

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), failed=st.booleans())
    def end(self, data: Any, failed: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.taken)))
        self.taken.discard(key)
        if failed:
            assert 0 < self.backlog.failed(key, "cause", self.now) <= 8.0
            self.owed.add(key)
        else:
            self.backlog.done(key, self.now)

    @rule(seconds=st.floats(0, 10))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def hasten(self) -> None:
        self.backlog.hasten({"cause"}, self.now)

    @invariant()
    def everything_owed_is_somewhere(self) -> None:
        """What is owed is ready, delayed, or waits for its worker to end."""
        found = {key for lane in self.backlog._lanes for key in lane} | set(self.backlog._delayed)
        assert self.owed <= found | set(self.backlog._again) | self.taken
        assert self.owed - self.taken <= found

    def teardown(self) -> None:
        """In the end everything owed comes, within the longest delay."""
        for key in list(self.taken):
            self.backlog.done(key, self.now)
            self.taken.discard(key)
        self.now += 9.0
        while (taken := self.backlog.take(self.now)) is not None:
            self.owed.discard(taken[0])
            self.backlog.done(taken[0], self.now)
        assert not self.owed


TestAnyOrder = AnyOrder.TestCase


def test_the_front_lane_goes_first() -> None:
    """New objects are taken before re-checks, whatever came first."""
    waiting = backlog()
    waiting.add(KEYS[0], Lane.BACK, 0.0)
    waiting.add(KEYS[1], Lane.FRONT, 1.0)
    assert waiting.take(2.0) == (KEYS[1], 1.0)
    assert waiting.take(2.0) == (KEYS[0], 2.0)


def test_failures_back_off_to_a_cap_and_are_forgotten() -> None:
    """Delays double up to the cap and begin anew after a success; a server's wish is respected."""
    waiting = backlog()

    def fail(**options: Any) -> float:
        waiting.add(KEYS[0], Lane.FRONT, 0.0)
        assert waiting.take(0.0) is not None
        return waiting.failed(KEYS[0], "cause", 0.0, **options)

    assert [fail() for _ in range(5)] == [0.75, 1.5, 3.0, 6.0, 6.0]
    assert fail(cap=2.0) == 2.0
    assert fail(at_least=60.0) == 60.0
    waiting.add(KEYS[0], Lane.FRONT, 0.0)
    assert waiting.take(0.0) is not None
    waiting.done(KEYS[0], 0.0)
    assert fail() == 0.75


def test_hasten_takes_only_the_cause() -> None:
    """Only what failed for the given cause comes at once."""
    waiting = backlog()
    for key, cause in zip(KEYS, ("kms", "other"), strict=False):
        waiting.add(key, Lane.FRONT, 0.0)
        assert waiting.take(0.0) is not None
        waiting.failed(key, cause, 0.0)
    assert waiting.hasten({"kms"}, 0.0) == 1
    assert waiting.take(0.0) == (KEYS[0], 0.0)
    assert waiting.take(0.0) is None


def test_a_dropped_key_does_not_come_again() -> None:
    """A deleted object's retries are forgotten."""
    waiting = backlog()
    waiting.add(KEYS[0], Lane.FRONT, 0.0)
    assert waiting.take(0.0) is not None
    waiting.failed(KEYS[0], "cause", 0.0)
    waiting.drop(KEYS[0])
    assert waiting.take(1000.0) is None
    assert waiting.next_due() is None
