"""What a run over many objects did, for people and for programs.

Filled by ``bulk``, printed by ``rewrap`` and ``rotate``. Results of people's form go to standard error as everywhere;
the JSON form is one document on standard output. Neither ever holds a value, a wrapped byte or a foreign message.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from kmseal.cli.output import note, result
from kmseal.errors import KmsealError
from kmseal.holdings import KeyUse

STALE_EXIT_CODE: Final = 7
# The codes in the order of what they ask of the caller: only where nothing else is wrong is trying again enough.
_SEVERITY: Final = (1, 6, 4, 3, 5)


class Outcome(StrEnum):
    """What became of an object."""

    CHANGED = "Changed"
    """In a dry run: it would change."""
    CURRENT = "Current"
    """There was nothing to do."""
    NOT_IN_CLUSTER = "NotInCluster"
    DIFFERS = "Differs"
    """The cluster has other data keys than the file, so that what it has newer does not fit all of them."""
    BEHIND = "Behind"
    """The cluster has the same data keys under newer wrappings in its spec, which Git has brought there already."""
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Change:
    """A wrapping that was replaced, added (``old`` is None) or removed (``new`` is None)."""

    data_key_id: str
    """Empty for a new data key of a dry run, which has none yet."""
    old: KeyUse | None
    new: KeyUse | None
    whole: bool = False
    """The data key itself is new, or goes."""

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        ends = {"from": self.old, "to": self.new}
        return {
            **({"dataKeyId": self.data_key_id} if self.data_key_id else {}),
            "wholeDataKey": self.whole,
            **{name: used.to_dict() for name, used in ends.items() if used},
        }

    def __str__(self) -> str:
        what = "data key under " if self.whole else ""
        if self.old is None:
            return f"+ {what}{self.new}"
        if self.new is None:
            return f"- {what}{self.old}"
        if self.old.key_id == self.new.key_id:
            return f"{self.old.key_id} version {self.old.key_version_id} -> {self.new.key_version_id}"
        return f"{self.old} -> {self.new}"


@dataclass(slots=True)
class ObjectReport:
    """One object, or a whole file that could not be read (then namespace and name are empty)."""

    file: str
    namespace: str = ""
    name: str = ""
    outcome: Outcome = Outcome.CURRENT
    changes: tuple[Change, ...] = ()
    failures: list[KmsealError] = field(default_factory=list)

    def fail(self, error: KmsealError) -> None:
        """Nothing of the object was changed."""
        self.outcome, self.changes = Outcome.FAILED, ()
        self.failures.append(error)

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "file": self.file,
            "namespace": self.namespace,
            "name": self.name,
            "outcome": self.outcome.value,
            "changes": [change.to_dict() for change in self.changes],
        }

    @property
    def title(self) -> str:
        """How messages call it."""
        parts = [self.file, f"{self.namespace}/{self.name}" if self.namespace else self.name]
        return ": ".join(part for part in parts if part)


@dataclass(slots=True)
class Report:
    """A whole run; ``files`` are all that were looked at, ``objects`` stand in their order."""

    files: int
    dry_run: bool
    objects: list[ObjectReport] = field(default_factory=list)

    @property
    def changed(self) -> list[ObjectReport]:
        """What changed, or would in a dry run."""
        return [item for item in self.objects if item.outcome is Outcome.CHANGED or item.changes]

    def exit_code(self, *, check: bool = False) -> int:
        """0; the worst code of all failures; or, when asked to check, that something would change or is behind."""
        codes = {error.exit_code for item in self.objects for error in item.failures}
        for code in _SEVERITY:
            if code in codes:
                return code
        is_stale = self.changed or any(item.outcome is Outcome.BEHIND for item in self.objects)
        return STALE_EXIT_CODE if check and is_stale else 0

    def print(self, form: str | None) -> None:
        """Says it all: failures always as lines, and the rest as lines or as JSON."""
        if form == "json":
            result(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        else:
            for line in self._lines():
                note(line)
        self.print_failures()

    def print_failures(self) -> None:
        """Says what failed, one line each."""
        for item in self.objects:
            for error in item.failures:
                note(f"error: {item.title + ': ' if item.title else ''}{error}".replace("\n", " "))

    def to_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "dryRun": self.dry_run,
            "files": self.files,
            "objects": [item.to_dict() for item in self.objects if item.name or item.outcome is not Outcome.FAILED],
            "failures": [
                {
                    "file": item.file,
                    "namespace": item.namespace,
                    "name": item.name,
                    "field": error.field,
                    "reason": error.reason,
                    "message": error.message,
                    "remedy": error.remedy,
                    "exitCode": error.exit_code,
                }
                for item in self.objects
                for error in item.failures
            ],
        }

    def _lines(self) -> Iterator[str]:
        would = "would change: " if self.dry_run else ""
        for item in self.objects:
            # Two data keys under one key change in the same way: once is enough for people.
            for change in dict.fromkeys(str(change) for change in item.changes):
                yield f"{item.title}: {would}{change}"
            if item.outcome is Outcome.NOT_IN_CLUSTER:
                yield f"{item.title}: is not in the cluster"
            elif item.outcome is Outcome.DIFFERS:
                yield f"{item.title}: differs from the cluster: its data keys are not those that run there"
            elif item.outcome is Outcome.BEHIND:
                yield f"{item.title}: is behind the cluster: the same data keys, under older wrappings than there"
        counts = {outcome: sum(item.outcome is outcome for item in self.objects) for outcome in Outcome}
        words = {
            Outcome.CHANGED: "would change" if self.dry_run else "changed",
            Outcome.CURRENT: "up to date",
            Outcome.NOT_IN_CLUSTER: "not in the cluster",
            Outcome.DIFFERS: "different in the cluster",
            Outcome.BEHIND: "behind the cluster",
            Outcome.FAILED: "failed",
        }
        shown = [f"{count} {words[outcome]}" for outcome, count in counts.items() if count]
        yield f"{', '.join(shown) or 'no EncryptedSecret found'} ({self.files} file{'' if self.files == 1 else 's'})"
