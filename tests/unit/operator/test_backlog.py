"""The backlog's rules, under any order of calls."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kmseal.cluster.names import Backoff, Key
from kmseal_operator.backlog import Backlog, Lane

KEYS = [Key("prod", name) for name in "abcd"]
A, B, C, D = KEYS
keys = st.sampled_from(KEYS)


def new_backlog(base: float = 1.0, cap: float = 60.0, random: float = 0.0) -> Backlog:
    return Backlog(Backoff(base, cap, lambda: random))


def take_all(backlog: Backlog, now: float) -> list[Key]:
    taken = []
    while (item := backlog.take(now)) is not None:
        taken.append(item[0])
    return taken


class AnyOrder(RuleBasedStateMachine):
    """Compares the backlog with three plain sets: who is ready, who is held, and who waits until when."""

    @initialize()
    def begin(self) -> None:
        """An empty backlog."""
        self.backlog = new_backlog()
        self.now = 0.0
        self.ready: dict[Key, Lane] = {}
        self.held: dict[Key, Lane | None] = {}
        self.waiting: dict[Key, tuple[float, str]] = {}

    def become_ready(self, key: Key, lane: Lane) -> None:
        self.waiting.pop(key, None)
        self.ready[key] = min(lane, self.ready.get(key, lane))

    def let_go(self, key: Key) -> None:
        again = self.held.pop(key)
        if again is not None:
            self.become_ready(key, again)

    @rule(key=keys, lane=st.sampled_from(Lane))
    def add(self, key: Key, lane: Lane) -> None:
        """A held key is kept for later, any other is ready."""
        self.backlog.add(key, lane, self.now)
        if key in self.held:
            again = self.held[key]
            self.held[key] = lane if again is None else min(lane, again)
        else:
            self.become_ready(key, lane)

    @rule()
    def take(self) -> None:
        """Only a ready key is handed out, never a held one, and none of the back lane before one of the front."""
        for key, (due, _) in list(self.waiting.items()):
            if due <= self.now:
                self.become_ready(key, Lane.BACK)
        taken = self.backlog.take(self.now)
        if taken is None:
            assert not self.ready
            return
        key, waited = taken
        assert key not in self.held
        assert self.ready[key] is min(self.ready.values())
        del self.ready[key]
        assert waited >= 0
        self.held[key] = None

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        """A key that is done is gone, unless it was added meanwhile."""
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.backlog.done(key, self.now)
        self.let_go(key)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), cause=st.sampled_from(["kms", "api"]))
    def failed(self, data: st.DataObject, cause: str) -> None:
        """A key that failed waits, unless it was added meanwhile."""
        key = data.draw(st.sampled_from(sorted(self.held)))
        delay = self.backlog.failed(key, cause, self.now)
        assert 0.5 <= delay <= 60
        self.waiting[key] = (self.now + delay, cause)
        self.let_go(key)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 1.0, 50.0]))
    def rest(self, data: st.DataObject, seconds: float) -> None:
        """A key that rests comes again by itself, sooner only if it was added meanwhile; its failures are forgotten."""
        key = data.draw(st.sampled_from(sorted(self.held)))
        self.backlog.rest(key, self.now, seconds)
        self.waiting[key] = (self.now + seconds, "")
        self.let_go(key)

    @rule(key=keys, seconds=st.sampled_from([0.0, 0.5, 10.0]))
    def hurry(self, key: Key, seconds: float) -> None:
        """A waiting key comes in that time at the latest, and keeps its cause; nothing else changes."""
        self.backlog.hurry(key, self.now, seconds)
        if key in self.waiting:
            due, cause = self.waiting[key]
            self.waiting[key] = (min(due, self.now + seconds), cause)

    @rule(cause=st.sampled_from(["kms", "api"]))
    def hasten(self, cause: str) -> None:
        """Exactly the keys that wait for that cause become ready."""
        expected = [key for key, (_, why) in self.waiting.items() if why == cause]
        assert self.backlog.hasten({cause}, self.now) == len(expected)
        for key in expected:
            self.become_ready(key, Lane.BACK)

    @rule(key=keys)
    def drop(self, key: Key) -> None:
        """A dropped key neither is ready nor waits nor comes again."""
        self.backlog.drop(key)
        self.ready.pop(key, None)
        self.waiting.pop(key, None)
        if key in self.held:
            self.held[key] = None

    @rule(seconds=st.sampled_from([0.25, 1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    @invariant()
    def agrees(self) -> None:
        """The counts and the next retry are those of the sets."""
        if not hasattr(self, "backlog"):
            return
        assert self.backlog.ready == len(self.ready)
        assert self.backlog.delayed == len(self.waiting)
        assert self.backlog.next_due() == min((due for due, _ in self.waiting.values()), default=None)
        assert self.backlog.idle is (not self.ready and not self.held)
        assert {key for key in KEYS if self.backlog.is_taken(key)} == set(self.held)


TestAnyOrder = AnyOrder.TestCase


def test_a_key_is_held_by_one_worker_and_comes_again_when_added_meanwhile() -> None:
    """While a key is held nobody else gets it; afterwards it comes once, however often it was added."""
    backlog = new_backlog()
    backlog.add(A, Lane.FRONT, 0)
    assert take_all(backlog, 0) == [A]
    backlog.add(A, Lane.BACK, 1)
    backlog.add(A, Lane.FRONT, 1)
    assert take_all(backlog, 1) == []
    backlog.done(A, 2)
    assert take_all(backlog, 2) == [A]
    backlog.done(A, 3)
    assert take_all(backlog, 3) == []


def test_a_failed_key_that_was_added_meanwhile_does_not_wait() -> None:
    """A change that arrives during a failing try is tried at once."""
    backlog = new_backlog()
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    backlog.add(A, Lane.FRONT, 0)
    backlog.failed(A, "kms", 0)
    assert take_all(backlog, 0) == [A]
    assert backlog.delayed == 0


def test_front_goes_before_back_in_the_order_of_adding() -> None:
    """All of the front lane comes first, each lane in its own order, each key once."""
    backlog = new_backlog()
    for key, lane in [(A, Lane.BACK), (B, Lane.FRONT), (C, Lane.BACK), (D, Lane.FRONT), (B, Lane.BACK)]:
        backlog.add(key, lane, 0)
    assert take_all(backlog, 0) == [B, D, A, C]


def test_moving_to_the_front_keeps_the_time_that_a_key_has_waited() -> None:
    """The metric of waiting tells the truth about a key that changed lanes."""
    backlog = new_backlog()
    backlog.add(A, Lane.BACK, 1)
    backlog.add(A, Lane.FRONT, 4)
    assert backlog.take(6) == (A, 5)


@given(failures=st.integers(1, 50))
def test_failures_of_one_key_never_delay_another(failures: int) -> None:
    """However often one key has failed, the first failure of another waits as if it were alone."""
    backlog, now = new_backlog(), 0.0
    for _ in range(failures):
        backlog.add(A, Lane.FRONT, now)
        backlog.take(now)
        backlog.failed(A, "kms", now)
    backlog.add(B, Lane.BACK, now)
    assert take_all(backlog, now) == [B]
    assert backlog.failed(B, "kms", now) == 0.5


def test_done_forgets_the_failures() -> None:
    """After a success the delays begin anew."""
    backlog = new_backlog()
    delays = []
    for succeed in (False, False, True, False):
        backlog.add(A, Lane.FRONT, 0)
        backlog.take(0)
        if succeed:
            backlog.done(A, 0)
        else:
            delays.append(backlog.failed(A, "kms", 0))
    assert delays == [0.5, 1.0, 0.5]


def test_a_resting_key_comes_again_by_itself() -> None:
    """When its time is there, with nobody adding it; a rest is no failure and forgets those before it."""
    backlog = new_backlog()
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    backlog.failed(A, "kms", 0)
    backlog.take(1)
    backlog.rest(A, 1, 60)
    assert (take_all(backlog, 60), backlog.next_due()) == ([], 61)
    assert take_all(backlog, 61) == [A]
    assert backlog.failed(A, "kms", 61) == 0.5


def test_a_resting_key_that_was_added_meanwhile_does_not_rest() -> None:
    """What changed during the turn is looked at at once, and only once."""
    backlog = new_backlog()
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    backlog.add(A, Lane.BACK, 0)
    backlog.rest(A, 0, 60)
    assert (take_all(backlog, 0), backlog.delayed) == ([A], 0)


def test_a_resting_key_is_not_hastened() -> None:
    """It waits for no cause; that KMS is back is no news for it."""
    backlog = new_backlog()
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    backlog.rest(A, 0, 60)
    assert backlog.hasten({"kms"}, 0) == 0
    assert take_all(backlog, 0) == []


def test_hurry_only_ever_brings_forward() -> None:
    """A later time changes nothing, an earlier one replaces it, and the key then comes once."""
    backlog = new_backlog()
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    backlog.rest(A, 0, 60)
    for seconds, due in ((90, 60), (5, 5), (10, 5)):
        backlog.hurry(A, 0, seconds)
        assert backlog.next_due() == due
    assert take_all(backlog, 5) == [A]
    backlog.done(A, 5)
    assert take_all(backlog, 100) == []


def test_a_hurried_retry_still_waits_for_its_cause() -> None:
    """That KMS is back brings it at once."""
    backlog = new_backlog(base=100)
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    backlog.failed(A, "kms", 0)
    backlog.hurry(A, 0, 10)
    assert backlog.hasten({"kms"}, 1) == 1
    assert take_all(backlog, 1) == [A]


def test_hurry_makes_nothing_ready_that_does_not_wait() -> None:
    """Neither an unknown key nor one that is ready or held gets a second turn."""
    backlog = new_backlog()
    for key in (A, B):
        backlog.add(key, Lane.FRONT, 0)
    backlog.take(0)
    for key in (A, B, C):
        backlog.hurry(key, 0, 0)
    assert take_all(backlog, 1) == [B]
    for key in (A, B):
        backlog.done(key, 1)
    assert take_all(backlog, 100) == []


def test_a_servers_hint_wins_over_every_cap() -> None:
    """``at_least`` is kept even above the cap, and a smaller cap shortens the own delay."""
    backlog = new_backlog(base=40, random=0.999)
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    assert backlog.failed(A, "kms", 0, cap=30, at_least=90) == 90
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    assert backlog.failed(A, "kms", 0, cap=30) == 30


def test_a_retry_comes_when_it_is_due_and_not_before() -> None:
    """``next_due`` says when, and the key is ready exactly then."""
    backlog = new_backlog()
    backlog.add(A, Lane.FRONT, 0)
    backlog.take(0)
    backlog.failed(A, "kms", 0)
    assert backlog.next_due() == 0.5
    backlog.promote(0.49)
    assert backlog.ready == 0
    backlog.promote(0.5)
    assert backlog.ready == 1
    assert backlog.next_due() is None


@given(failures=st.integers(1, 10_000), base=st.floats(0.01, 10), cap=st.floats(10, 1000), random=st.floats(0, 0.999))
def test_a_delay_lies_between_half_the_ceiling_and_the_ceiling(
    failures: int, base: float, cap: float, random: float
) -> None:
    """The ceiling doubles with each failure up to the cap, and never overflows."""
    ceiling = min(cap, base * 2.0 ** min(failures - 1, 32))
    assert ceiling / 2 <= Backoff(base, cap, lambda: random).delay(failures) <= ceiling
