"""Tells the application that its files changed: an HTTP POST inside the pod, or a signal.

Called by ``rounds`` after a change. It is a notice, not a transaction: a failure is raised as an error to be logged,
and the next attempt is made at the next change, so that an application that starts is not called again and again.
"""

import http.client
import os
import signal
from collections.abc import Iterator
from typing import Final, NamedTuple

from kmseal_agent.config import Post, Signal
from kmseal_agent.errors import AgentError, Terminal

POST_SECONDS: Final = 5.0
_COMM_LENGTH: Final = 15
"""Bytes that Linux keeps of a process's name."""


def tell(hook: Post | Signal, proc: str = "/proc") -> None:
    """Raises :class:`AgentError`: the application did not hear."""
    if isinstance(hook, Post):
        _post(hook)
    else:
        _signal(hook, proc)


def _post(hook: Post) -> None:
    # By number: what "localhost" means is the pod's to change, and nothing of ours may leave it.
    connection = http.client.HTTPConnection("127.0.0.1", hook.port, timeout=POST_SECONDS)
    try:
        connection.request("POST", hook.path, b"", {"Host": f"{hook.host}:{hook.port}", "Connection": "close"})
        with connection.getresponse() as response:
            status = response.status
    except (OSError, http.client.HTTPException, ValueError):
        raise _failed(
            f"no answer from port {hook.port}", "check that the application listens on the loopback"
        ) from None
    finally:
        connection.close()
    if not 200 <= status < 300:
        raise _failed(f"port {hook.port} answered {status}", "check the path of kmseal.dev/reload")


def _signal(hook: Signal, proc: str) -> None:
    number = getattr(signal, f"SIG{hook.signal}", None)
    if not isinstance(number, signal.Signals):
        raise _failed(f"there is no signal {hook.signal}", "correct kmseal.dev/reload")
    named = [process for process in _processes(proc) if _is_named(process, hook.process)]
    # A server's workers carry its name and do not expect its signal: only the topmost of a family is told.
    family = {process.number for process in named}
    heads = [process.number for process in named if process.parent not in family]
    if not heads:
        raise _failed(
            f"no process is called {hook.process}", "check the name, and that the pod has shareProcessNamespace: true"
        )
    told = 0
    for head in heads:
        try:
            os.kill(head, number)
        except OSError:
            continue
        told += 1
    if not told:
        raise _failed(
            f"{hook.process} may not be signalled", "run the agent and the application as one user (runAsUser)"
        )


class _Process(NamedTuple):
    number: int
    parent: int
    name: str
    program: str


def _processes(proc: str) -> Iterator[_Process]:
    """The processes that can be seen, without ourselves."""
    for entry in os.listdir(proc):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"{proc}/{entry}/stat", encoding="utf-8", errors="replace") as file:
                # The name stands in brackets and may contain brackets and spaces itself.
                before, _, after = file.read().rpartition(")")
            with open(f"{proc}/{entry}/cmdline", encoding="utf-8", errors="replace") as file:
                program = file.read(4096).partition("\0")[0]
            yield _Process(int(entry), int(after.split()[1]), before.partition("(")[2], os.path.basename(program))
        except (OSError, ValueError, IndexError):
            continue  # It ended while we looked.


def _is_named(process: _Process, name: str) -> bool:
    return process.name == name if len(name.encode()) <= _COMM_LENGTH else process.program == name


def _failed(message: str, remedy: str) -> AgentError:
    return Terminal("ReloadFailed", message, field="kmseal.dev/reload", remedy=remedy)
