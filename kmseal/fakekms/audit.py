"""The audit trail and the call counters: what was asked, by whom, of which key, and what came of it.

``service`` writes one record for each request that reached it, ``server`` one for each that a fault swallowed. Tests
assert on them exactly, so every request counts once, whatever its result. Encryption contexts are recorded, as the real
trail does; plaintexts, data keys, ciphertexts and tokens are never given to this module.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Final

SUCCESS: Final = "Success"
"""The result of a call that was answered as asked; any other result is the error code."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One request. ``time`` is real, in seconds since 1970; ids are empty where the request did not get that far.

    ``instance`` is the instance whose own gateway was asked; empty for the shared gateway.
    """

    time: float
    request_id: str
    identity: str
    access_key_id: str
    region: str
    action: str
    result: str
    key_arn: str = ""
    key_version_id: str = ""
    context: dict[str, str] = field(default_factory=dict)
    source: str = ""
    dry_run: bool = False
    instance: str = ""

    def to_json(self) -> str:
        """The record as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)


class CallCounter:
    """Counts requests: ``calls["Decrypt"]`` all of an action, ``calls["Decrypt", "Success"]`` those with a result."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def __getitem__(self, which: str | tuple[str, str]) -> int:
        if isinstance(which, tuple):
            return self._counts[which]
        return sum(count for (action, _), count in self._counts.items() if action == which)

    @property
    def total(self) -> int:
        """All requests of all actions."""
        return self._counts.total()

    def add(self, action: str, result: str) -> None:
        self._counts[action, result] += 1

    def clear(self) -> None:
        """Starts again at zero."""
        self._counts.clear()

    def by_action(self) -> dict[str, dict[str, int]]:
        """Action → result → number of requests."""
        table: dict[str, dict[str, int]] = {}
        for (action, result), count in sorted(self._counts.items()):
            table.setdefault(action, {})[result] = count
        return table

    def __repr__(self) -> str:
        return f"CallCounter({self.by_action()!r})"


class AuditTrail:
    """The last ``limit`` records, oldest first."""

    def __init__(self, limit: int = 100_000) -> None:
        self._records: deque[AuditRecord] = deque(maxlen=limit)
        self._write: Callable[[str], object] | None = None
        self.calls = CallCounter()

    def write_to(self, write: Callable[[str], object] | None) -> None:
        """Gives each further record, as a line of JSON, to ``write`` too; None ends that."""
        self._write = write

    def append(self, record: AuditRecord) -> None:
        self._records.append(record)
        self.calls.add(record.action, record.result)
        if self._write is not None:
            self._write(record.to_json() + "\n")

    def clear(self) -> None:
        """Forgets the records in memory; counters and file stay."""
        self._records.clear()

    def of(self, action: str) -> list[AuditRecord]:
        """The records of one action."""
        return [record for record in self._records if record.action == action]

    def __iter__(self) -> Iterator[AuditRecord]:
        return iter(tuple(self._records))

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> AuditRecord:
        return self._records[index]
