"""The report of a run: its exit code, and what it says."""

import json

import pytest

from kmseal.cli.report import Change, ObjectReport, Outcome, Report
from kmseal.errors import AccessDenied, KmsealError, Malformed, Misconfigured, Unavailable
from kmseal.holdings import KeyUse


def failed(*errors: KmsealError) -> ObjectReport:
    """An object with failures."""
    report = ObjectReport("a.yaml", "prod", "db")
    for error in errors:
        report.fail(error)
    return report


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([], 0),
        ([Unavailable("x")], 5),
        ([Unavailable("x"), Malformed("x")], 3),
        ([Malformed("x"), AccessDenied("x"), Unavailable("x")], 4),
        ([AccessDenied("x"), Misconfigured("x")], 6),
        ([Misconfigured("x"), KmsealError("x")], 1),
    ],
)
def test_the_code_is_that_of_what_asks_most(errors: list[KmsealError], code: int) -> None:
    """Trying again is advised only where it is enough; what is stale matters only where nothing fails."""
    changed = ObjectReport("b.yaml", "prod", "web", Outcome.CHANGED, (Change("x", None, KeyUse("local:dev", "2")),))
    report = Report(2, dry_run=True, objects=[*(failed(error) for error in errors), changed])
    assert report.exit_code() == code
    assert report.exit_code(check=True) == (code or 7)
    assert Report(1, dry_run=True, objects=[failed(*errors)]).exit_code(check=True) == code


@pytest.mark.parametrize(
    ("old", "new", "whole", "text"),
    [
        (KeyUse("local:a", "1"), KeyUse("local:a", "2"), False, "local:a version 1 -> 2"),
        (KeyUse("local:a", "1"), KeyUse("local:b", "2"), False, "local:a version 1 -> local:b version 2"),
        (None, KeyUse("local:b", "2"), False, "+ local:b version 2"),
        (KeyUse("local:a", "1"), None, False, "- local:a version 1"),
        (None, KeyUse("local:b"), True, "+ data key under local:b"),
        (KeyUse("local:a", "1"), None, True, "- data key under local:a version 1"),
    ],
)
def test_a_change_in_one_line(old: KeyUse | None, new: KeyUse | None, whole: bool, text: str) -> None:
    """From what to what."""
    assert str(Change("x", old, new, whole=whole)) == text


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where the message has several; with file, object and field."""
    report = Report(1, dry_run=False, objects=[failed(Malformed("is\nwrong", field="spec", remedy="mend it"))])
    report.print(None)
    assert capsys.readouterr().err == "1 failed (1 file)\nerror: a.yaml: prod/db: spec: is wrong; mend it\n"


def test_programs_get_files_that_could_not_be_read_as_failures_only(capsys: pytest.CaptureFixture[str]) -> None:
    """They have no objects."""
    unread = ObjectReport("bad.yaml")
    unread.fail(Malformed("is not YAML"))
    Report(1, dry_run=False, objects=[unread]).print("json")
    content = json.loads(capsys.readouterr().out)
    assert content["objects"] == []
    assert content["failures"][0]["file"] == "bad.yaml"
