"""Decides how rows become values and how values are written into texts and lists.

Must not know which statement the rows come from.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import peewee

from upload_server.domain.chain import Seal
from upload_server.domain.states import (
    AuditEvent,
    Batch,
    BatchStatus,
    CancelledBatch,
    CancelledFile,
    File,
    FileStatus,
)
from upload_server.store import models
from upload_server.store.commands.statements import (
    AnswerRow,
    BatchActivity,
    BatchRow,
    FileRow,
    FileToCancel,
    IdleFile,
)
from upload_server.store.values import Moment

Row = tuple[Any, ...]

_FILE_STATUS: Mapping[str, FileStatus] = {status.value: status for status in FileStatus}
_BATCH_STATUS: Mapping[str, BatchStatus] = {status.value: status for status in BatchStatus}

# The tables under the names that every statement gives them.
F, B, A = models.File.alias("f"), models.Batch.alias("b"), models.AuditEvent.alias("a")


def _columns_of(alias: str, value: type[File | Batch]) -> str:
    """Return the columns of a domain value, in the order of its fields; of them only `batch_id` may be NULL."""
    columns = [f"{alias}.{field.name}" for field in dataclasses.fields(value)]
    return ", ".join("coalesce(f.batch_id, '')" if column == "f.batch_id" else column for column in columns)


# In the order of the fields of File, Batch and AuditEvent.
FILE_COLUMNS, BATCH_COLUMNS = _columns_of("f", File), _columns_of("b", Batch)
EVENT_COLUMNS = (
    "a.change_no, coalesce(f.file_id, ''), coalesce(b.batch_id, f.batch_id, ''),"
    " a.from_status, a.to_status, a.actor, a.source, a.reason, a.request_id, a.occurred_at,"
    " a.credential, a.peer, CASE WHEN a.from_status = '' THEN a.filename ELSE coalesce(f.filename, '') END"
)
FILE_ROW_COLUMNS = f"f.id, f.batch_row, f.expected_sha256, {FILE_COLUMNS}"
BATCH_ROW_COLUMNS = f"b.id, {BATCH_COLUMNS}"

# Kinds of columns by their fields, where they are not text.
_KINDS: Final[Mapping[type[peewee.Field], str]] = {
    peewee.AutoField: "bigint",
    peewee.IntegerField: "bigint",
    peewee.BigIntegerField: "bigint",
    peewee.DoubleField: "double precision",
    peewee.DateTimeField: "timestamptz",
    peewee.BlobField: "bytea",
}


def columns_of(model: type[models.Row]) -> str:
    """Return all columns of a table, for INSERT."""
    return ", ".join(model.column_names())


def kinds_of(model: type[models.Row]) -> str:
    """Return all columns of a table, each with its kind, for a list of rows."""
    kinds = zip(model.column_names(), model.field_types(), strict=True)
    return ", ".join(f"{name} {_KINDS.get(field, 'text')}" for name, field in kinds)


def _plain(value: object) -> str:
    """Write what a list holds and JSON does not know."""
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, CancelledFile):
        return to_json([value.file_id, value.filename, value.cancelled_at])
    if isinstance(value, CancelledBatch):
        counts = value.cancelled_files_count, value.total_files_in_batch
        return to_json([value.batch_id, *counts, value.cancelled_at])
    raise TypeError(f"a {type(value).__name__} in a list")


# Writes a list that a statement takes. Not escaped to ASCII: SQLite would accept half a surrogate pair that way, and
# the row could never be read again. So such a text raises UnicodeEncodeError when it is bound.
to_json = json.JSONEncoder(ensure_ascii=False, default=_plain).encode


_LENGTH: Final = len("2000-01-01 00:00:00.000000")


def time_text(moment: datetime) -> str:
    """UTC without offset and always with six digits: sorts as it reads, and is what Peewee's fields write."""
    if moment.tzinfo is UTC:
        return moment.isoformat(" ", "microseconds")[:_LENGTH]
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def time_of(found: str | datetime) -> datetime:
    """Return what is a time already, or read what ``time_text`` wrote, and times from before it: with ``T``, without
    microseconds, with an offset."""
    if isinstance(found, datetime):
        return found
    if len(found) == _LENGTH:
        # To name the zone before the time is read is several times faster than after it.
        return datetime.fromisoformat(f"{found}+00:00")
    moment = datetime.fromisoformat(found)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _maybe_time(found: str | datetime | None) -> datetime | None:
    return None if found is None else time_of(found)


def file_of(row: Row) -> File:
    """Make a File of ``FILE_COLUMNS``."""
    return File(
        file_id=row[0],
        filename=row[1],
        content_type=row[2],
        size_bytes=row[3],
        bytes_received=row[4],
        status=_FILE_STATUS[row[5]],
        batch_id=row[6],
        owner=row[7],
        sha256=row[8],
        created_at=time_of(row[9]),
        updated_at=time_of(row[10]),
        completed_at=_maybe_time(row[11]),
        cancelled_at=_maybe_time(row[12]),
        cancelled_by=row[13],
        cancel_reason=row[14],
        failure_reason=row[15],
        revision=row[16],
        change_no=row[17],
        fence=row[18],
        writer=row[19],
        run_fence=row[20],
        content_deleted_at=_maybe_time(row[21]),
        content_deleted_by=row[22],
    )


def batch_of(row: Row) -> Batch:
    """Make a Batch of ``BATCH_COLUMNS``."""
    return Batch(
        batch_id=row[0],
        status=_BATCH_STATUS[row[1]],
        owner=row[2],
        total_files=row[3],
        completed_files=row[4],
        failed_files=row[5],
        cancelled_files_count=row[6],
        created_at=time_of(row[7]),
        updated_at=time_of(row[8]),
        cancelled_at=_maybe_time(row[9]),
        cancelled_by=row[10],
        cancel_reason=row[11],
        revision=row[12],
        change_no=row[13],
    )


def event_of(row: Row) -> AuditEvent:
    """Make an AuditEvent of ``EVENT_COLUMNS``."""
    return AuditEvent(
        event_id=row[0],
        file_id=row[1],
        batch_id=row[2],
        from_status=row[3],
        to_status=row[4],
        actor=row[5],
        source=row[6],
        reason=row[7],
        request_id=row[8],
        occurred_at=time_of(row[9]),
        credential=row[10],
        peer=row[11],
        filename=row[12],
    )


def _file_row_of(row: Row) -> FileRow:
    return FileRow(row[0], row[1], row[2], file_of(row[3:]))


def _answer_row_of(row: Row) -> AnswerRow:
    return AnswerRow(row[0], row[1], row[2], row[3], _answer_of(row[4]))


def _answer_of(text: str) -> str | CancelledFile | CancelledBatch:
    if not text.startswith("["):
        return text
    match json.loads(text):
        case [file_id, filename, cancelled_at]:
            return CancelledFile(file_id, filename, time_of(cancelled_at))
        case [batch_id, cancelled, total, cancelled_at]:
            return CancelledBatch(batch_id, cancelled, total, time_of(cancelled_at))
    raise ValueError("a stored answer that no call gives")


# How the rows of a query become what it promises; a tuple stays one.
MAKE_ROW: Mapping[type[Any], Callable[[Row], Any]] = {
    tuple: lambda row: row,
    FileRow: _file_row_of,
    IdleFile: lambda row: IdleFile(_file_row_of(row[2:]), Moment(time_of(row[0]), row[1])),
    BatchActivity: lambda row: BatchActivity(row[0], Moment(time_of(row[1]), row[2]), row[3]),
    BatchRow: lambda row: BatchRow(row[0], batch_of(row[1:])),
    FileToCancel: FileToCancel._make,
    AnswerRow: _answer_row_of,
    Seal: lambda row: Seal(*row),
}
