"""The agent as a process against an HTTPS broker: its life, its exit codes, and what it writes to its log."""

import base64
import json
import signal
import stat
import subprocess
import sys
from typing import Any

import pytest

import kmseal
import kmseal_agent

CANARY = b"value-canary-51c7"


def test_version(pod: Any) -> None:
    """The agent's version is the distribution's."""
    assert pod.run("version") == 0
    assert pod.output == f"kmseal-agent {kmseal.__version__}\n"
    assert kmseal_agent.__version__ == kmseal.__version__


def test_what_is_imported() -> None:
    """Nothing but the standard library and the agent is loaded, and none of the modules that start slowly."""
    program = "import sys; old = set(sys.modules); import kmseal_agent.main; print(*(set(sys.modules) - old))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - sys.stdlib_module_names == {"kmseal_agent"}
    assert loaded.isdisjoint({"asyncio", "dataclasses", "inspect", "logging", "argparse", "tempfile", "shutil"})
    assert "urllib.request" not in done.stdout.split()


def test_init_writes_the_files(pod: Any, acting: Any) -> None:
    """init asks once for all secrets with the pod's token, writes them with the asked mode, and ends with 0."""
    pod.members["secrets"].append({"name": "cache", "files": True, "env": True, "mode": "0440", "names": {"u": "URL"}})
    acting.play(acting.grant({"db": {"password": CANARY}, "cache": {"u": b"redis://", "other": b"x"}}))
    assert pod.run("init") == 0
    assert pod.values("db") == {"password": CANARY}
    assert pod.values("cache") == {"URL": b"redis://"}
    assert (pod.root / "env/cache.env").read_bytes() == b"URL='redis://'\n"
    assert not (pod.root / "env/db.env").exists()
    assert stat.S_IMODE((pod.root / "files/db/password").stat().st_mode) == 0o400
    assert stat.S_IMODE((pod.root / "env/cache.env").stat().st_mode) == 0o440
    assert acting.lines == ["POST /v1/decrypt HTTP/1.1"]
    assert acting.bodies == [{"secrets": ["db", "cache"]}]
    assert acting.tokens == ["Bearer token-canary-9f2c"]
    assert acting.versions == ["TLSv1.3"]


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (400, "Malformed", 3),
        (409, "Unauthentic", 3),
        (413, "TooLarge", 3),
        (415, "NotJson", 3),
        (401, "BadToken", 4),
        (403, "KeyUnusable", 4),
        (404, "NotFound", 4),
    ],
)
def test_refusals_end_init_at_once(pod: Any, acting: Any, status: int, reason: str, code: int) -> None:
    """What no retry can heal ends init after one request, with its exit code and the broker's reason in the log."""
    acting.play(acting.refuse(status, reason))
    assert pod.run("init") == code
    assert len(acting.bodies) == 1
    line = json.loads(pod.output)
    assert (line["level"], line["reason"], line["error"]) == ("error", reason, "the broker says no")
    assert not (pod.root / "files").exists()


def test_faults_are_retried(pod: Any, acting: Any) -> None:
    """429 with Retry-After, a reset and somebody else's page are asked away within one run of init."""
    acting.play(
        acting.refuse(429, "Throttled", retry=True, after="1"),
        acting.reset,
        acting.answer(403, b"<html>forbidden</html>"),
        acting.grant({"db": {"password": CANARY}}),
    )
    pod.members["deadlineSeconds"] = 30
    assert pod.run("init") == 0
    assert pod.values() == {"password": CANARY}
    assert acting.arrived[1] - acting.arrived[0] >= 1
    reasons = [json.loads(line).get("reason") for line in pod.output.splitlines()]
    assert reasons == ["Throttled", "BrokerUnreachable", "UnexpectedAnswer", None]


def test_the_deadline(pod: Any, acting: Any) -> None:
    """A broker that never grants ends init with 5 when the deadline has passed, and nothing is written."""
    pod.members["deadlineSeconds"] = 1
    acting.play(acting.refuse(503, "ApiUnavailable", retry=True))
    assert pod.run("init") == 5
    assert json.loads(pod.output.splitlines()[-1])["reason"] == "DeadlinePassed"
    assert not (pod.root / "files").exists()


def test_a_slow_broker_meets_the_deadline(pod: Any, acting: Any) -> None:
    """A broker that drips is given up at the deadline, not at its own pace."""
    pod.members["deadlineSeconds"] = 1
    acting.play(acting.drip)
    assert pod.run("init") == 5
    assert "BrokerSlow" in pod.output


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        (["init"], {"root": "relative"}),
        (["refresh"], {}),
        (["inject"], {}),
        ([], {}),
        (["init", "refresh"], {}),
    ],
)
def test_a_wrong_configuration(pod: Any, arguments: list[str], change: dict[str, str]) -> None:
    """A wrong member, a missing refreshSeconds and wrong arguments end with 6 and one line."""
    pod.members.update(change)
    assert pod.run(*arguments) == 6
    assert len(pod.output.splitlines()) == 1


def test_refresh_follows_changes(pod: Any, acting: Any, wait_for: Any) -> None:
    """The sidecar replaces what changed, wipes when the right goes, and writes again when it is back."""
    pod.members["refreshSeconds"] = 1
    pod.members["secrets"][0]["env"] = True
    acting.play(acting.grant({"db": {"password": b"old"}}))
    assert pod.run("init") == 0
    process = pod.start("refresh")
    acting.play(acting.grant({"db": {"password": b"new"}}))
    wait_for(lambda: pod.values() == {"password": b"new"})
    acting.play(acting.refuse(503, "KmsUnavailable", retry=True))
    asked = len(acting.bodies)
    wait_for(lambda: len(acting.bodies) > asked + 1)
    assert pod.values() == {"password": b"new"}
    acting.play(acting.refuse(403, "Forbidden", wipe=True))
    wait_for(lambda: not (pod.root / "env/db.env").exists() and not pod.values())
    assert list((pod.root / "files/db/..data").iterdir()) == []
    acting.play(acting.grant({"db": {"password": b"back"}}))
    wait_for((pod.root / "env/db.env").exists)
    assert pod.values() == {"password": b"back"}
    assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=5) == 0
    assert pod.values() == {"password": b"back"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_refresh_ends_at_a_signal(pod: Any, acting: Any, wait_for: Any, number: int) -> None:
    """A signal ends the sidecar at once and with 0, in the middle of a request too, and the files stay."""
    pod.members["refreshSeconds"] = 1
    acting.play(acting.grant({"db": {"password": b"old"}}))
    assert pod.run("init") == 0
    acting.play(acting.silence)
    process = pod.start("refresh")
    wait_for(lambda: len(acting.bodies) == 2)
    process.send_signal(number)
    assert process.wait(timeout=2) == 0
    assert pod.values() == {"password": b"old"}


def test_init_stopped_is_not_done(pod: Any, acting: Any, wait_for: Any) -> None:
    """init that is stopped does not end with 0: the application must not start without its secrets."""
    acting.play(acting.silence)
    process = pod.start("init")
    wait_for(lambda: len(acting.bodies) == 1)
    process.terminate()
    assert process.wait(timeout=2) == 143


def test_nothing_secret_is_written_out(pod: Any, acting: Any) -> None:
    """No value and no token appears in any output, whatever the broker and the values do."""
    encoded = base64.b64encode(CANARY)
    grant = b'{"expiresInSeconds": 600, "secrets": {"db": {"values": {"password": "%s"}}}}' % encoded
    acts = [
        (acting.grant({"db": {"password": CANARY}}), 0),
        (acting.answer(200, grant + b"trailing"), 5),
        (acting.answer(200, grant.replace(encoded, encoded + b"!")), 5),
        (acting.answer(500, CANARY), 5),
        (acting.raw(CANARY + b"\r\n\r\n"), 5),
        (acting.raw(b"HTTP/1.1 200 OK\r\nContent-Length: " + CANARY + b"\r\n\r\n" + CANARY), 5),
        (acting.grant({"db": {"..": CANARY}}), 3),
        (acting.grant({"db": {"password": CANARY + b"'"}}), 3),
        (acting.grant({"db": {"password": CANARY + b"\xff"}}), 3),
    ]
    pod.members["secrets"][0]["env"] = True
    for act, code in acts:
        acting.play(act)
        pod.members["deadlineSeconds"] = 1 if code == 5 else 30
        assert pod.run("init") == code
    assert pod.values() == {"password": CANARY}
    assert all(json.loads(line) for line in pod.output.splitlines())
    for secret in (CANARY, encoded, b"token-canary"):
        assert secret.decode() not in pod.output
