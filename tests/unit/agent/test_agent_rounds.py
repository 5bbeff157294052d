"""The rounds of a refresh, with a broker and a time that the tests move: what stays, what goes, and when."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kmseal_agent import files, rounds
from kmseal_agent.answer import Grant
from kmseal_agent.broker import Broker
from kmseal_agent.errors import AgentError, Denied, Retryable, Terminal
from kmseal_agent.log import Log
from kmseal_agent.rounds import fetch, keep_fresh


class Ended(Exception):
    """The test has seen enough."""


class Script:
    """A broker whose answers are listed; at their end the test ends."""

    def __init__(self, answers: Sequence[Grant | AgentError]) -> None:
        self._answers = list(answers)
        self.seen: list[Any] = []
        self.look: Callable[[], Any] = lambda: None

    def ask(self, secrets: Sequence[str], seconds: float) -> Grant:
        self.seen.append(self.look())
        if not self._answers:
            raise Ended
        answer = self._answers.pop(0)
        if isinstance(answer, AgentError):
            raise answer
        return answer


FAULT = Retryable("KmsUnavailable", "no")
GONE = Denied("Forbidden", "no", wipe=True)


def grant(value: bytes, lifetime: float = 600) -> Grant:
    return Grant(lifetime, {"db": {"password": value}})


class Bench:
    """The sidecar of a pod, run until its broker has no more answers."""

    def __init__(self, pod: Any, fake_time: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pod = pod
        self.time = fake_time
        self.lines: list[str] = []
        self.told: list[Any] = []
        self.reload_fails = False
        monkeypatch.setattr(rounds, "tell", self._tell)

    def fetch(self, *answers: Grant | AgentError) -> None:
        fetch(self.pod.config, Script(answers), self.log, self.time.surroundings)
        self.time.slept.clear()

    def refresh(self, *answers: Grant | AgentError, seconds: float = 300) -> list[Any]:
        """What the containers saw before each request, the last one after all answers."""
        script = Script(answers)
        script.look = self.pod.values
        with pytest.raises(Ended):
            keep_fresh(self.pod.config, seconds, script, self.log, self.time.surroundings)
        return script.seen

    @property
    def log(self) -> Log:
        return Log(self.lines.append, lambda: 1_800_000_000.25)

    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.lines]

    def _tell(self, hook: Any) -> None:
        self.told.append(hook)
        if self.reload_fails:
            raise Terminal("ReloadFailed", "no")


@pytest.fixture
def bench(pod: Any, fake_time: Any, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A pod with a reload hook and one secret."""
    pod.members["reload"] = "signal:HUP:app"
    return Bench(pod, fake_time, monkeypatch)


OLD, NEW, NOTHING = {"password": b"old"}, {"password": b"new"}, dict[str, bytes]()


def test_the_pace(bench: Bench) -> None:
    """A refresh comes at each interval, at the grant's end if that is earlier, and not at once after the start."""
    bench.fetch(grant(b"old"))
    bench.refresh(grant(b"old"), grant(b"old", lifetime=100), grant(b"old"))
    assert bench.time.slept == [300, 300, 95, 300]


def test_a_long_interval_begins_within_the_first_grant(bench: Bench) -> None:
    """The sidecar does not know what the init container was granted, and asks before that can have ended."""
    bench.fetch(grant(b"old"))
    bench.refresh(grant(b"old", lifetime=86_400), seconds=7200)
    assert bench.time.slept == [570, 7200]


def test_a_change(bench: Bench) -> None:
    """A change is written and told once; the same again is neither."""
    bench.fetch(grant(b"old"))
    assert bench.refresh(grant(b"old"), grant(b"new"), grant(b"new")) == [OLD, OLD, NEW, NEW]
    assert len(bench.told) == 1


def test_a_failed_reload_waits_for_the_next_change(bench: Bench) -> None:
    """An application that did not hear is told again at the next change, not before."""
    bench.fetch(grant(b"old"))
    bench.reload_fails = True
    bench.refresh(grant(b"new"), grant(b"new"), grant(b"old"))
    assert len(bench.told) == 2
    assert bench.messages().count("the application was not told of the change") == 2


def test_faults_keep_everything(bench: Bench) -> None:
    """Faults and objects that do not open keep what is there, and are asked away sooner than the interval."""
    bench.fetch(grant(b"old"))
    seen = bench.refresh(FAULT, Terminal("Unauthentic", "no"), Denied("Odd", "no", wipe=False), grant(b"new"), FAULT)
    assert seen == [OLD, OLD, OLD, OLD, NEW, NEW]
    assert bench.time.slept == [300, 0.25, 0.5, 1.0, 300, 0.25]


def test_backoff_ends_at_a_minute(bench: Bench) -> None:
    """However long the fault lasts, it is asked at least every minute, and never slower than the interval."""
    bench.time.chance = 0.999
    bench.fetch(grant(b"old"))
    bench.refresh(*[FAULT] * 20)
    assert max(bench.time.slept[1:]) == pytest.approx(60, rel=0.01)
    bench.time.slept.clear()
    bench.refresh(*[GONE] * 20, seconds=30)
    assert max(bench.time.slept[1:]) == pytest.approx(30, rel=0.01)


def test_retry_after(bench: Bench) -> None:
    """The broker's Retry-After is waited in full."""
    bench.fetch(grant(b"old"))
    bench.refresh(Retryable("Throttled", "no", retry_after=120))
    assert bench.time.slept == [300, 120.25]


def test_the_right_goes_and_returns(bench: Bench) -> None:
    """With the right the values go, once; with its return they are back and the application is told."""
    bench.pod.members["secrets"][0]["env"] = True
    bench.fetch(grant(b"old"))
    assert bench.refresh(GONE, GONE, FAULT, grant(b"old")) == [OLD, NOTHING, NOTHING, NOTHING, OLD]
    assert bench.messages().count("the right is gone: all values are removed") == 1
    assert len(bench.told) == 1
    assert (bench.pod.root / "env/db.env").read_bytes() == b"password='old'\n"


def test_a_restart_while_denied(bench: Bench) -> None:
    """A sidecar that starts with nothing in the volume asks at once."""
    bench.fetch(grant(b"old"))
    files.wipe(bench.pod.root.as_posix(), "db")
    bench.refresh(grant(b"new"))
    assert bench.time.slept == [0.0, 300]


def test_init_wipes_what_was_left(bench: Bench) -> None:
    """An init container that runs again after the right is gone leaves nothing of the first run."""
    bench.fetch(grant(b"old"))
    with pytest.raises(Denied):
        bench.fetch(GONE)
    assert bench.pod.values() == NOTHING


def test_one_bad_value_changes_nothing(bench: Bench) -> None:
    """A value that cannot be delivered leaves every secret as it was, and refreshes go on."""
    bench.pod.members["secrets"].append({"name": "cache", "files": False, "env": True, "mode": "0400"})
    bench.fetch(Grant(600, {"db": OLD, "cache": {"url": b"x"}}))
    seen = bench.refresh(
        Grant(600, {"db": NEW, "cache": {"url": b"it's"}}), Grant(600, {"db": NEW, "cache": {"url": b"y"}})
    )
    assert seen == [OLD, OLD, NEW]
    assert "NotAVariable" in [json.loads(line).get("reason") for line in bench.lines]


def test_one_bad_folder_does_not_hold_up_the_others(bench: Bench) -> None:
    """Where one secret cannot be written, the others are, and the application is told of those."""
    bench.pod.members["secrets"].insert(0, {"name": "cache", "files": True, "env": False, "mode": "0400"})
    bench.fetch(Grant(600, {"db": OLD, "cache": OLD}))
    folder = bench.pod.root / "files/cache"
    folder.rename(bench.pod.root / "moved")
    folder.symlink_to("../moved")
    seen = bench.refresh(Grant(600, {"db": NEW, "cache": NEW}))
    assert seen[1] == NEW
    assert len(bench.told) == 1
    assert (bench.pod.root / "moved/password").read_bytes() == b"old"


def test_the_form_of_a_line(bench: Bench) -> None:
    """A line has the members of the servers' logs, and what failed with its reason and remedy."""
    bench.fetch(grant(b"old"))
    assert json.loads(bench.lines[0]) == {
        "time": "2027-01-15T08:00:00.250+00:00",
        "level": "info",
        "logger": "kmseal_agent",
        "message": "the secrets are written",
        "secrets": ["db"],
    }
    bench.log.failure("it failed", Terminal("Word", "wrong", field="db/x", remedy="do this"), retry_seconds=1.5)
    assert json.loads(bench.lines[1]) == {
        "time": "2027-01-15T08:00:00.250+00:00",
        "level": "error",
        "logger": "kmseal_agent",
        "message": "it failed",
        "reason": "Word",
        "error": "db/x: wrong; do this",
        "retry_seconds": 1.5,
    }


def test_nobody_reads_the_log() -> None:
    """A log that nobody reads any more does not end the agent."""

    def broken(line: str) -> None:
        raise BrokenPipeError

    Log(broken).info("anything")


def test_the_api_server_was_away_past_the_tokens_end(bench: Bench, acting: Any) -> None:
    """The files of a running pod stay until the kubelet has a new token; a token that is valid and refused wipes."""
    claims = base64.urlsafe_b64encode(json.dumps({"exp": 1_800_000_000}).encode()).rstrip(b"=").decode()
    bench.pod.token.write_text(f"e30.{claims}.c2ln")
    bench.fetch(grant(b"old"))
    acting.play(
        *[acting.refuse(401, "BadToken", wipe=True)] * 3,
        acting.grant({"db": NEW}),
        acting.refuse(401, "BadToken", wipe=True),
    )
    clock = iter([1_800_000_060.0] * 3 + [1_799_999_999.0])
    real = Broker(bench.pod.config, None, now=lambda: next(clock))
    seen: list[Any] = []

    class Looking:
        def ask(self, secrets: Sequence[str], seconds: float) -> Grant:
            seen.append(bench.pod.values())
            if len(seen) > 5:
                raise Ended
            return real.ask(secrets, 5)

    with pytest.raises(Ended):
        keep_fresh(bench.pod.config, 300, Looking(), bench.log, bench.time.surroundings)
    assert seen == [OLD, OLD, OLD, OLD, NEW, NOTHING]
