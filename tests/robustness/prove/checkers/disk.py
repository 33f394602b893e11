"""R25 to R28, after everything has come to rest: the bytes that lie are those the rows speak of, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History, Tables
from robustness.prove.views import FileView


def check(history: History) -> Iterable[Violation]:
    """Row by row, then what has no row."""
    tables = history.tables
    for row in tables.files.values():
        yield from _row(row, tables)
    for file_id in tables.disk.keys() - tables.files.keys():
        yield Violation("disk", f"bytes without a row: {file_id}")
    for file_id in tables.owed:
        yield Violation("disk", f"a deletion is still owed: {file_id}")


def _row(row: FileView, tables: Tables) -> Iterator[Violation]:
    lies = row.file_id in tables.disk
    size, sha256, begins = tables.disk.get(row.file_id, (0, "", True))
    if row.status in {"cancelled", "failed"}:
        if lies:
            yield Violation("disk", f"{row.status} {row.file_id} still has {size} bytes")
    elif row.status == "completed":
        if not lies or size != row.size_bytes or row.bytes_received != row.size_bytes:
            yield Violation("disk", f"completed {row.file_id} has {size} of {row.size_bytes} bytes: {row}")
        elif sha256 != row.sha256 or not begins:
            yield Violation("disk", f"completed {row.file_id} does not hold its sender's bytes")
    elif size < row.bytes_received:
        yield Violation("disk", f"{row.file_id} has {size} bytes of {row.bytes_received} that were called durable")
    elif not begins:
        yield Violation("disk", f"{row.file_id} does not begin with its sender's bytes")
