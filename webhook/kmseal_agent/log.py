"""One JSON line an event on standard error, with the members of the servers' logs.

The module ``logging`` is not used: its import costs more than the agent's own code. Callers pass names, counts and the
agent's own errors, never a value, a token or the text of a foreign exception.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Final

from kmseal_agent.errors import AgentError

Field = str | int | float | list[str]


class Log:
    """Writes events; ``write`` takes one line with its end, ``now`` gives seconds since the epoch."""

    def __init__(self, write: Callable[[str], object] | None = None, now: Callable[[], float] = time.time) -> None:
        self._write: Final = write or sys.stderr.write
        self._now: Final = now

    def info(self, message: str, **fields: Field) -> None:
        """Something went as it should."""
        self._line("info", message, fields)

    def failure(self, message: str, error: AgentError, **fields: Field) -> None:
        """Something did not; says what, where and what to do."""
        self._line("error", message, {"reason": error.reason, "error": str(error), **fields})

    def _line(self, level: str, message: str, fields: dict[str, Field]) -> None:
        seconds = self._now()
        time_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds * 1000) % 1000:03}+00:00"
        line = {"time": time_text, "level": level, "logger": "kmseal_agent", "message": message, **fields}
        try:
            # One write a line, so that the lines of two threads do not mix.
            self._write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError:
            # A runtime that no longer reads our lines is no reason to let the secrets go stale.
            return
