"""Shows that a long job is alive: one line that is rewritten on a terminal, an occasional line anywhere else.

``toolchain`` and ``binaries`` use it around pip and the Go compiler, which are silent for minutes. It reads what
the job prints, line by line, so that the job never blocks on a full pipe, and keeps the last lines for the error
message. It must not interpret failures: it hands back the exit code and the lines.
"""

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Without a terminal (CI logs) a line at this interval says that the job is alive and does not flood the log.
QUIET_INTERVAL_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: its exit code, what it wrote to standard output, and the last lines of standard error."""

    code: int
    output: str
    last_lines: list[str]


class Ticker:
    """One line of progress with the time that has passed, on standard error."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._shown_at = float("-inf")
        self._width = 0

    def show(self, text: str, *, final: bool = False) -> None:
        """Shows ``text`` now on a terminal; elsewhere at most once per interval, or when it is the ``final`` line."""
        now = time.monotonic()
        if not self._terminal and not final and now - self._shown_at < QUIET_INTERVAL_SECONDS:
            return
        self._shown_at = now
        minutes, seconds = divmod(int(now - self._started), 60)
        line = f"kmseal: {text} ({minutes}:{seconds:02d})"
        if self._terminal:
            # A line that wraps could not be rewritten by a carriage return.
            line = line[: shutil.get_terminal_size().columns - 1]
            self._stream.write("\r" + line.ljust(self._width) + ("\n" if final else ""))
            self._width = 0 if final else len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the line that is being rewritten, so that what is printed next, an error perhaps, has its own."""
        if self._width:
            self._stream.write("\n")
            self._stream.flush()
            self._width = 0


def run_shown(
    command: Sequence[str],
    *,
    ticker: Ticker,
    describe: Callable[[list[str]], str],
    cwd: Path,
    env: Mapping[str, str],
) -> Outcome:
    """Runs ``command`` to its end and shows ``describe(new lines of standard error)`` about once a second.

    ``describe`` is called with the lines that arrived since its last call, perhaps none, and returns the text to show.
    The job gets a process group of its own, so that an exception here (Ctrl-C above all) ends its compilers with it.
    """
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    output: list[str] = []
    last_lines: deque[str] = deque(maxlen=30)
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        readers = [
            threading.Thread(target=_drain, args=(process.stderr, lines.put), daemon=True),
            threading.Thread(target=_drain, args=(process.stdout, output.append), daemon=True),
        ]
        for reader in readers:
            reader.start()
        try:
            ticker.show(describe([]))
            while readers[0].is_alive():
                readers[0].join(timeout=1.0)
                fresh = _take_all(lines)
                last_lines.extend(fresh)
                ticker.show(describe(fresh))
            readers[1].join()
            code = process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return Outcome(code, "\n".join(output), list(last_lines))


def _drain(stream: IO[str] | None, sink: Callable[[str], None]) -> None:
    for line in stream or ():
        sink(line.rstrip("\n"))


def _take_all(lines: "queue.SimpleQueue[str]") -> list[str]:
    taken = []
    while True:
        try:
            taken.append(lines.get_nowait())
        except queue.Empty:
            return taken
