"""Structured logs: one JSON object a line on standard error.

Foreign libraries log at WARNING and above only, because at lower levels some quote requests and bodies. The text of an
exception that is not ours is never written: only its class.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

from kmseal.errors import KmsealError

_FIELDS: Final = ("object", "reason", "generation", "retry_seconds", "error", "key", "operation", "request_id")
_OURS: Final = ("kmseal", "kmseal_operator")


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, and the known extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[0]:
            error = record.exc_info[1]
            line["error"] = record.exc_info[0].__name__
            if isinstance(error, KmsealError):
                line["error"] = str(error)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(level: str) -> None:
    """Sends all logs of the process through the formatter above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
