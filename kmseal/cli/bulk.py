"""One treatment for the EncryptedSecrets of many files: each file is written once and whole, or left as it was.

Used by ``rewrap`` and ``rotate``, which bring the treatment. An object that fails is reported and keeps nobody else
from being treated, not even its neighbours in the file. Files are read when their turn comes, so that a large
repository does not have to fit into memory, and an interruption finds every file either old or new.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import click

from kmseal.cli import files
from kmseal.cli.documents import Edit, Spot, Stream
from kmseal.cli.output import note
from kmseal.cli.report import Change, ObjectReport, Outcome, Report
from kmseal.cli.repository import ManifestFile, name_of, parse_object, read_manifests
from kmseal.errors import KmsealError, Malformed
from kmseal.manifest import EncryptedSecret

IN_FLIGHT: Final = 8
"""Requests at once, and files at once: the budget sets the pace, this only hides the time that an answer takes."""


@dataclass(frozen=True, slots=True)
class Treated:
    """What a treatment wants of an object. Failures beside changes: some of its wrappings could not be treated."""

    outcome: Outcome
    changes: tuple[Change, ...] = ()
    edit: Edit | None = None
    """None where nothing is to be written, as in a dry run."""
    failures: tuple[KmsealError, ...] = ()


class Treatment(Protocol):
    """Decides about one object and asks for what it needs; limits its own requests."""

    needs_namespace: bool
    """Whether an object must say, or be told, which namespace it is in."""

    async def treat(self, encrypted: EncryptedSecret) -> Treated:
        """Raises KmsealError where nothing can be done for the object."""
        ...


async def treat_files(
    paths: Sequence[str], treatment: Treatment, report: Report, *, namespace: str | None, advance: Callable[[int], None]
) -> None:
    """Treats all objects of the files, fills the report as files are finished, and calls ``advance`` for each."""
    finished: dict[int, list[ObjectReport]] = {}
    turns = iter(enumerate(paths))

    async def work() -> None:
        for number, path in turns:
            finished[number] = await _treat_file(path, treatment, namespace)
            advance(1)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(IN_FLIGHT):
                tasks.create_task(work())
    finally:
        report.objects += [item for _, items in sorted(finished.items()) for item in items]


def run_and_report(
    run: Callable[[], Coroutine[Any, Any, None]], report: Report, form: str | None, *, check: bool
) -> None:
    """Runs to the end, says what was done, also when interrupted, and exits with the run's code."""
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        if not report.dry_run and report.changed:
            note(f"interrupted: {len(report.changed)} objects were changed before; run it again to go on")
        raise
    report.print(form)
    code = report.exit_code(check=check)
    if code:
        raise click.exceptions.Exit(code)


@contextlib.contextmanager
def progress(count: int, label: str) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, and nothing anywhere else: logs of CI keep what is written there."""
    if not sys.stderr.isatty():
        yield lambda steps: None
        return
    with click.progressbar(length=count, label=label, file=sys.stderr) as bar:
        yield bar.update


async def _treat_file(path: str, treatment: Treatment, namespace: str | None) -> list[ObjectReport]:
    try:
        found = read_manifests(path)
    except KmsealError as error:
        report = ObjectReport(path)
        report.fail(error)
        return [report]
    if found is None:
        return []
    reports = {spot: ObjectReport(path, *name_of(raw, namespace)) for spot, raw in found.objects}
    async with asyncio.TaskGroup() as tasks:
        treating = {
            spot: tasks.create_task(_treat(raw, treatment, namespace, reports[spot])) for spot, raw in found.objects
        }
    edits = {spot: edit for spot, task in treating.items() if (edit := task.result())}
    _write(found, edits, namespace, reports)
    return [*reports.values(), *_unopened(found)]


def _unopened(found: ManifestFile) -> list[ObjectReport]:
    try:
        found.require_open()
    except KmsealError as error:
        report = ObjectReport(found.path)
        report.fail(error)
        return [report]
    return []


async def _treat(raw: dict[str, Any], treatment: Treatment, namespace: str | None, report: ObjectReport) -> Edit | None:
    try:
        encrypted = parse_object(raw, namespace)
        if treatment.needs_namespace and not report.namespace:
            raise Malformed(
                "is missing", field="metadata.namespace", reason="MissingField", remedy="add it, or pass --namespace"
            )
        treated = await treatment.treat(encrypted)
    except KmsealError as error:
        report.fail(error)
        return None
    report.outcome, report.changes = treated.outcome, treated.changes
    report.failures += treated.failures
    return treated.edit


def _write(
    found: ManifestFile, edits: Mapping[Spot, Edit], namespace: str | None, reports: Mapping[Spot, ObjectReport]
) -> None:
    if not edits:
        return
    try:
        stream = found.stream.edit_all(edits)
        kept = dict(edits)
    except KmsealError:
        # One of several objects has a layout that cannot be edited: the others are written all the same.
        stream, kept = _edit_one_by_one(found.stream, edits, reports)
    if not kept:
        return
    try:
        _require_readable(stream, kept, namespace)
        files.write(found.path, stream.text.encode(), replaces=found.raw)
    except KmsealError as error:
        for spot in kept:
            reports[spot].fail(error)


def _edit_one_by_one(
    stream: Stream, edits: Mapping[Spot, Edit], reports: Mapping[Spot, ObjectReport]
) -> tuple[Stream, dict[Spot, Edit]]:
    kept = {}
    for spot, edit in edits.items():
        try:
            stream = stream.edit_all({spot: edit})
            kept[spot] = edit
        except KmsealError as error:
            reports[spot].fail(error)
    return stream, kept


def _require_readable(stream: Stream, edits: Mapping[Spot, Edit], namespace: str | None) -> None:
    """The reader's own checks, on everything that is ever written."""
    values = dict(stream.values())
    for spot in edits:
        raw = values[spot.document]
        parse_object(raw if spot.item is None else raw["items"][spot.item], namespace)
