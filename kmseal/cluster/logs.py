"""Structured logs: one JSON object a line on standard error.

Foreign libraries log at WARNING and above only, because at lower levels some quote requests and bodies. The text of an
exception that is not ours is never written: only its class.
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kmseal.errors import KmsealError

_FIELDS: Final = ("object", "reason", "generation", "retry_seconds", "error", "key", "operation", "request_id")
_OURS: Final = ("kmseal", "kmseal_operator", "kmseal_webhook")


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, and the known extra fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        line.update({name: _shown(getattr(record, name)) for name in _FIELDS if hasattr(record, name)})
        if record.exc_info and record.exc_info[0]:
            error = record.exc_info[1]
            line["error"] = record.exc_info[0].__name__
            if isinstance(error, KmsealError):
                line["error"] = str(error)
        return json.dumps(line, ensure_ascii=False)


def _message(record: logging.LogRecord) -> str:
    text = str(_shown(record.msg))
    if isinstance(record.args, Mapping):
        text %= {name: _shown(value) for name, value in record.args.items()}
    elif record.args:
        text %= tuple(map(_shown, record.args))
    # asyncio appends the repr of a failed task, with its exception's text, as further lines.
    return text if record.name.split(".")[0] in _OURS else text.partition("\n")[0]


def _shown(value: Any) -> Any:
    if isinstance(value, BaseException) and not isinstance(value, KmsealError):
        return type(value).__name__
    return value


def set_up_logs(level: str) -> None:
    """Sends all logs of the process through the formatter above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
