"""The audit trail: the documented fields, one line for each answer whatever is in it, and no level that silences it."""

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kmseal.cluster.holdings import KeyUse
from kmseal.cluster.logs import set_up_logs
from kmseal_webhook.audit import Audit, AuditEntry
from kmseal_webhook.identity import Caller
from kmseal_webhook.refusals import Reason, Refusal
from kmseal_webhook.witness import Witness

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
DOCUMENT = Path(__file__).parents[3] / "docs" / "audit.md"
CALLER = Caller("prod", "app", "web", "u1", "n1", "system:serviceaccount:prod:app", "s1", (), {})
ENTRY = AuditEntry("10.0.0.1", CALLER, ("db",), Witness({KeyUse("local:dev", "v1"): None}, ["r1", "r2"]))


@pytest.fixture
def quiet() -> Iterator[None]:
    """The process as --log-level error sets it up; put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("kmseal_webhook").level
    set_up_logs("error")
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.getLogger("kmseal_webhook").setLevel(before[2])
    for name in ("kmseal", "kmseal_operator"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def written(entry: AuditEntry, refusal: Refusal | None = None) -> str:
    stream = io.StringIO()
    Audit(stream, now=lambda: NOW).record(entry, refusal, seconds=0.0123456)
    return stream.getvalue()


def test_a_line_that_allows() -> None:
    """All fields, in the order of the document."""
    assert json.loads(written(ENTRY)) == {
        "time": "2026-01-02T03:04:05.678+00:00", "logger": "kmseal_webhook.audit", "decision": "allow",
        "reason": "Granted", "status": 200, "namespace": "prod", "pod": "web", "podUid": "u1",
        "serviceAccount": "app", "node": "n1", "secrets": ["db"],
        "keys": [{"keyId": "local:dev", "keyVersionId": "v1"}], "requestIds": ["r1", "r2"], "durationMs": 12.3,
        "remote": "10.0.0.1",
    }  # fmt: skip


def test_a_line_that_denies_says_why() -> None:
    """And nothing of a pod that nobody has vouched for."""
    line = json.loads(written(AuditEntry("10.0.0.1"), Refusal(Reason.BAD_TOKEN, "no token")))
    assert (line["decision"], line["reason"], line["status"], line["detail"]) == ("deny", "BadToken", 401, "no token")
    assert not {"namespace", "pod", "podUid", "serviceAccount", "node"} & line.keys()
    assert (line["secrets"], line["keys"], line["requestIds"]) == ([], [], [])


@pytest.mark.parametrize("text", ["a\nb", 'a"}\n{"decision": "allow"', "\u2028", "\x1b[2J", "\ud800"])
def test_nothing_makes_two_lines_of_one(text: str) -> None:
    """Whatever text gets into a field, a line is a line, in ASCII."""
    line = written(AuditEntry(text, CALLER, (text,)), Refusal(Reason.FORBIDDEN, text))
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["remote"] == text


def test_a_line_is_out_at_once(tmp_path: Path) -> None:
    """Before the answer is: what a killed process has in its buffers is lost."""
    path = tmp_path / "audit.jsonl"
    with path.open("w") as stream:
        Audit(stream, now=lambda: NOW).record(ENTRY, None, seconds=0.1)
        assert path.read_text().endswith("}\n")


def test_no_level_silences_it(quiet: None) -> None:
    """It is no log: neither a level nor a disabled logger can reach it."""
    logging.disable(logging.CRITICAL)
    try:
        assert written(ENTRY)
    finally:
        logging.disable(logging.NOTSET)


def test_the_document_lists_every_field() -> None:
    """And none that is not written."""
    table = DOCUMENT.read_text().partition("## Fields")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    fields = json.loads(written(ENTRY)).keys() | json.loads(written(ENTRY, Refusal(Reason.INVALID, "x"))).keys()
    assert documented == fields
