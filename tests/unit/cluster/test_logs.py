"""Log lines: JSON, known fields, and never the text of a foreign exception."""

import asyncio
import gc
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from kmseal.cluster.logs import JsonFormatter, set_up_logs
from kmseal.errors import Malformed

SECRET = "hunter2-in-a-foreign-exception"


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Where the process's logs go, set up as in ``main`` and undone afterwards."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    set_up_logs("info")
    yield stream
    root.handlers[:], level = kept
    root.setLevel(level)
    for name in ("kmseal", "kmseal_operator"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_the_known_fields_and_no_others(stream: io.StringIO) -> None:
    """Extra fields are written by an allow-list."""
    logging.getLogger("kmseal_operator.x").info(
        "done: %d", 3, extra={"object": "prod/db", "reason": "Applied", "data": SECRET}
    )
    (line,) = lines(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "kmseal_operator.x",
        "message": "done: 3",
        "object": "prod/db",
        "reason": "Applied",
    }


@pytest.mark.parametrize("logger", ["kmseal_operator.x", "kopf.objects", "aiohttp.server"])
def test_the_text_of_a_foreign_exception_is_never_written(stream: io.StringIO, logger: str) -> None:
    """Not as traceback, not as argument, not as message, not as a field: only its class."""
    log = logging.getLogger(logger)
    try:
        raise ValueError(SECRET)
    except ValueError as error:
        log.exception("failed")
        log.error("failed: %s", error)  # noqa: TRY400
        log.error("failed: %(error)r", {"error": error})  # noqa: TRY400
        log.error(error)  # noqa: TRY400
        log.error("failed", extra={"error": error})  # noqa: TRY400
    assert SECRET not in stream.getvalue()
    assert [(line["message"], line.get("error")) for line in lines(stream)] == [
        ("failed", "ValueError"),
        ("failed: ValueError", None),
        ("failed: 'ValueError'", None),
        ("ValueError", None),
        ("failed", "ValueError"),
    ]


async def test_a_task_that_nobody_awaited_does_not_tell_its_exception(stream: io.StringIO) -> None:
    """asyncio reports such tasks by itself, with the exception's text in the message."""

    async def fail() -> None:
        raise ValueError(SECRET)

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)
    del task
    gc.collect()
    (line,) = lines(stream)
    assert (line["logger"], line["message"], line["error"]) == (
        "asyncio",
        "Task exception was never retrieved",
        "ValueError",
    )
    assert SECRET not in stream.getvalue()


def test_an_error_of_ours_is_written_whole(stream: io.StringIO) -> None:
    """Our errors are made to be shown."""
    try:
        raise Malformed("is wrong", field="spec.scope", remedy="correct it")
    except Malformed:
        logging.getLogger("kmseal.x").exception("failed")
    assert lines(stream)[0]["error"] == "spec.scope: is wrong; correct it"


def test_foreign_libraries_are_heard_from_warning_on(stream: io.StringIO) -> None:
    """Below, some quote requests and bodies."""
    for logger in ("kopf", "aiohttp", "Tea"):
        logging.getLogger(logger).info("body: %s", SECRET)
        logging.getLogger(logger).debug("body: %s", SECRET)
    logging.getLogger("kmseal_operator").debug("quiet")
    logging.getLogger("kopf").warning("heard")
    assert [line["message"] for line in lines(stream)] == ["heard"]


def test_a_message_of_several_lines_is_one_line_of_json() -> None:
    """A message cannot forge a second line."""
    record = logging.LogRecord("kmseal", logging.INFO, "", 0, "one\ntwo", None, None)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert json.loads(text)["message"] == "one\ntwo"
