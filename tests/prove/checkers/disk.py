"""R25 to R28, after everything has come to rest: the bytes that lie are those the rows speak of, and no others."""

from __future__ import annotations

from collections.abc import Iterable

from prove.checkers.violation import Violation
from prove.history import History


def check(history: History) -> Iterable[Violation]:
    """Row by row, then what has no row."""
    tables = history.tables
    for file_id, row in tables.files.items():
        size, sha256, begins = tables.disk.get(file_id, (0, "", True))
        if row.status in {"cancelled", "failed"} and file_id in tables.disk:
            yield Violation("disk", f"{row.status} {file_id} still has {size} bytes")
        if row.status == "completed":
            if file_id not in tables.disk or size != row.size_bytes or row.bytes_received != row.size_bytes:
                yield Violation("disk", f"completed {file_id} has {size} of {row.size_bytes} bytes: {row}")
            elif sha256 != row.sha256 or not begins:
                yield Violation("disk", f"completed {file_id} does not hold its sender's bytes")
        if row.status in {"pending", "uploading"}:
            if size < row.bytes_received:
                yield Violation("disk", f"{file_id} has {size} bytes of {row.bytes_received} that were called durable")
            elif not begins:
                yield Violation("disk", f"{file_id} does not begin with its sender's bytes")
    for file_id in tables.disk.keys() - tables.files.keys():
        yield Violation("disk", f"bytes without a row: {file_id}")
    for file_id in tables.owed:
        yield Violation("disk", f"a deletion is still owed: {file_id}")
