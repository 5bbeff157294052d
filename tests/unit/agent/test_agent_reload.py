"""Telling the application: real processes get real signals, a real server gets the POST."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kmseal_agent import reload
from kmseal_agent.config import Post, Signal
from kmseal_agent.errors import AgentError
from kmseal_agent.reload import tell

# Names itself, forks a worker of the same name, and both write down the signals that they get.
PROGRAM = """
import os, pathlib, signal, sys, time
name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
pathlib.Path("/proc/self/comm").write_text(name)
worker = os.fork() if len(sys.argv) > 3 else -1
role = "worker" if worker == 0 else "head"
signal.signal(signal.SIGHUP, lambda *_: (folder / f"{role}.told").touch())
signal.signal(signal.SIGTERM, lambda *_: (worker > 0 and os.kill(worker, 9), os._exit(0)))
(folder / f"{role}.ready").touch()
while True:
    time.sleep(60)
"""


@pytest.fixture
def application(tmp_path: Path, wait_for: Any) -> Iterator[Callable[..., None]]:
    """Starts an application under a name."""
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *more: str) -> None:
        running.append(subprocess.Popen([sys.executable, "-c", PROGRAM, name, str(tmp_path), *more]))
        wait_for((tmp_path / "head.ready").exists)
        wait_for((tmp_path / ("worker.ready" if more else "head.ready")).exists)

    yield start
    for process in running:
        process.terminate()
        process.wait()


def failure(hook: Post | Signal, proc: str = "/proc") -> AgentError:
    with pytest.raises(AgentError) as caught:
        tell(hook, proc)
    assert caught.value.reason == "ReloadFailed"
    return caught.value


def test_a_signal(application: Any, tmp_path: Path, wait_for: Any) -> None:
    """The process of the name gets the signal."""
    application("kmseal-app")
    tell(Signal("HUP", "kmseal-app"))
    wait_for((tmp_path / "head.told").exists)


def test_workers_are_left_alone(application: Any, tmp_path: Path, wait_for: Any) -> None:
    """Of a family of one name the head is told, and its workers are not."""
    application("kmseal-app", "with a worker")
    tell(Signal("HUP", "kmseal-app"))
    wait_for((tmp_path / "head.told").exists)
    assert not (tmp_path / "worker.told").exists()


def test_names_with_brackets(application: Any, tmp_path: Path, wait_for: Any) -> None:
    """A process whose name looks like the end of a name is found, and does not confuse the search."""
    application("a) R (b")
    tell(Signal("HUP", "a) R (b"))
    wait_for((tmp_path / "head.told").exists)


def test_long_names(tmp_path: Path) -> None:
    """A name longer than what Linux keeps is compared with the program's file name."""
    program = tmp_path / "an-application-with-a-long-name"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        tell(Signal("TERM", program.name))
        assert process.wait(timeout=5) == -signal.SIGTERM


def test_nobody_of_the_name() -> None:
    """No process of the name is a failure with the remedy; the start of a name is not the name."""
    assert "shareProcessNamespace" in str(failure(Signal("HUP", "kmseal-nobody")))
    assert "no process is called" in str(failure(Signal("HUP", Path("/proc/self/comm").read_text()[:2])))


def test_not_ourselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent does not signal itself, whatever it is called."""
    monkeypatch.setattr(os, "listdir", lambda path: [str(os.getpid())])
    assert "no process is called" in str(failure(Signal("TERM", Path("/proc/self/comm").read_text().strip())))


def test_no_such_signal() -> None:
    """A signal that does not exist, and what only begins like one, are failures."""
    assert "there is no signal NOPE" in str(failure(Signal("NOPE", "x")))
    assert "there is no signal MASK" in str(failure(Signal("MASK", "x")))


def test_processes_that_vanish(tmp_path: Path) -> None:
    """Entries that are no process, that are gone or cut do not disturb the search."""
    for entry, stat in (("1", ""), ("2", "2 (app"), ("self", "x")):
        (tmp_path / entry).mkdir()
        (tmp_path / entry / "stat").write_text(stat)
        (tmp_path / entry / "cmdline").write_text("")
    (tmp_path / "3").mkdir()
    assert "no process is called app" in str(failure(Signal("HUP", "app"), str(tmp_path)))


def test_not_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of another user is a failure that says what to do."""

    def refuse(number: int, sent: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text("7 (app) S 1 7 7")
    (tmp_path / "7/cmdline").write_text("/usr/bin/app\0--flag\0")
    assert "runAsUser" in str(failure(Signal("HUP", "app"), str(tmp_path)))


@pytest.fixture
def server() -> Iterator[Any]:
    """An application with a reload path; knows what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append((self.path, self.headers["Host"], self.headers["Content-Length"]))
            self.send_response(307 if self.path == "/moved" else 404 if self.path == "/wrong" else 204)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Says nothing."""

    heard: list[tuple[str, str, str]] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made.server_port, heard
        made.shutdown()
        thread.join()


def test_a_post(server: Any) -> None:
    """The path gets one empty POST, with the host as it was written."""
    port, heard = server
    tell(Post("localhost", port, "/-/reload?x=1"))
    assert heard == [("/-/reload?x=1", f"localhost:{port}", "0")]


@pytest.mark.parametrize("path", ["/wrong", "/moved"])
def test_a_refused_post(server: Any, path: str) -> None:
    """Another status than 2xx is a failure, and a redirect is not followed."""
    port, heard = server
    assert "answered" in str(failure(Post("127.0.0.1", port, path)))
    assert len(heard) == 1


def test_nobody_answers(deaf_port: int) -> None:
    """An application that does not listen is a failure."""
    assert f"no answer from port {deaf_port}" in str(failure(Post("127.0.0.1", deaf_port, "/")))


def test_a_post_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """An application that accepts and does not answer is given up soon."""
    monkeypatch.setattr(reload, "POST_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert "no answer" in str(failure(Post("127.0.0.1", listener.getsockname()[1], "/")))
