"""Decides how rows become values and how values are written: lists are JSON.

Must not know which statement the rows come from.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import peewee
from peewee import CommaNodeList, Node, fn

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
from upload_server.store.postgresql.compiling import EMPTY, compiled
from upload_server.store.protocol import Moment

Row = tuple[Any, ...]

_FILE_STATUS: Mapping[str, FileStatus] = {status.value: status for status in FileStatus}
_BATCH_STATUS: Mapping[str, BatchStatus] = {status.value: status for status in BatchStatus}

# The tables under the names that every statement gives them.
F, B, A = models.File.alias("f"), models.Batch.alias("b"), models.AuditEvent.alias("a")


def _fields_of(table: Any, value: type[File | Batch]) -> list[Node]:
    """Return the columns of a domain value, in the order of its fields; of them only `batch_id` may be NULL."""
    columns = [getattr(table, field.name) for field in dataclasses.fields(value)]
    return [fn.coalesce(F.batch_id, EMPTY) if column is F.batch_id else column for column in columns]


# In the order of the fields of File, Batch and AuditEvent.
FILE_FIELDS = _fields_of(F, File)
BATCH_FIELDS = _fields_of(B, Batch)
EVENT_FIELDS = [
    A.change_no,
    fn.coalesce(F.file_id, EMPTY),
    fn.coalesce(B.batch_id, F.batch_id, EMPTY),
    *(A.from_status, A.to_status, A.actor, A.source, A.reason, A.request_id, A.occurred_at),
]

FILE_COLUMNS, BATCH_COLUMNS = (compiled(CommaNodeList(fields)) for fields in (FILE_FIELDS, BATCH_FIELDS))

# Types of the columns of a kind of field, where they are not text.
_TYPES: Final[Mapping[type[peewee.Field], str]] = {
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


def items_of(model: type[models.Row]) -> str:
    """Return all columns' values as they lie in one item of a JSON list."""
    kinds = [_TYPES.get(field, "text") for field in model.field_types()]
    return ", ".join(f"(value ->> {index})::{kind}" for index, kind in enumerate(kinds))


FILE_ROW_COLUMNS = f"f.id, f.batch_row, f.expected_sha256, {FILE_COLUMNS}"
BATCH_ROW_COLUMNS = f"b.id, {BATCH_COLUMNS}"


def _plain(value: object) -> str:
    """Write what a list holds and JSON does not know."""
    if isinstance(value, datetime):
        return f"{_time_text(value)}+00"
    if isinstance(value, CancelledFile):
        return to_json([value.file_id, value.filename, _time_text(value.cancelled_at)])
    if isinstance(value, CancelledBatch):
        counts = value.cancelled_files_count, value.total_files_in_batch
        return to_json([value.batch_id, *counts, _time_text(value.cancelled_at)])
    raise TypeError(f"a {type(value).__name__} in a list")


# Writes a list that a statement takes. Not escaped to ASCII: half a surrogate pair raises UnicodeEncodeError when it is
# bound, and nothing is written.
to_json = json.JSONEncoder(ensure_ascii=False, default=_plain).encode


def _time_text(moment: datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _time_of(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def file_of(row: Row) -> File:
    """Make a File of ``FILE_COLUMNS``."""
    return File(*row[:5], _FILE_STATUS[row[5]], *row[6:])  # type: ignore[call-arg]


def batch_of(row: Row) -> Batch:
    """Make a Batch of ``BATCH_COLUMNS``."""
    return Batch(row[0], _BATCH_STATUS[row[1]], *row[2:])


def event_of(row: Row) -> AuditEvent:
    """Make an AuditEvent of ``EVENT_FIELDS``."""
    return AuditEvent(*row)


def _file_row_of(row: Row) -> FileRow:
    return FileRow(row[0], row[1], row[2], file_of(row[3:]))


def _answer_row_of(row: Row) -> AnswerRow:
    return AnswerRow(row[0], row[1], row[2], row[3], _answer_of(row[4]))


def _answer_of(text: str) -> str | CancelledFile | CancelledBatch:
    if not text.startswith("["):
        return text
    match json.loads(text):
        case [file_id, filename, cancelled_at]:
            return CancelledFile(file_id, filename, _time_of(cancelled_at))
        case [batch_id, cancelled, total, cancelled_at]:
            return CancelledBatch(batch_id, cancelled, total, _time_of(cancelled_at))
    raise ValueError("a stored answer that no call gives")


# How the rows of a query become what it promises; a tuple stays one.
MAKE_ROW: Mapping[type[Any], Callable[[Row], Any]] = {
    tuple: lambda row: row,
    FileRow: _file_row_of,
    IdleFile: lambda row: IdleFile(_file_row_of(row[2:]), Moment(row[0], row[1])),
    BatchActivity: lambda row: BatchActivity(row[0], Moment(row[1], row[2]), row[3]),
    BatchRow: lambda row: BatchRow(row[0], batch_of(row[1:])),
    FileToCancel: FileToCancel._make,
    AnswerRow: _answer_row_of,
    Seal: lambda row: Seal(*row),
}

# Stands for NUL, which PostgreSQL takes in no text: it is in no text of a store, so what has it is found nowhere.
_NOWHERE: Final = "\ufffe"


def encode(values: dict[str, Any]) -> dict[str, Any]:
    """Turn values, in place, into what PostgreSQL takes; a text with NUL it refuses."""
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = to_json(value)
    return values


def encode_wanted(values: dict[str, Any]) -> dict[str, Any]:
    """Turn the values of a query, in place, into what PostgreSQL takes, whatever a caller looks for."""
    for name, value in values.items():
        if isinstance(value, str | list):
            wanted = _without_nul(value)
            values[name] = to_json(wanted) if isinstance(wanted, list) else wanted
    return values


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\x00", _NOWHERE) if "\x00" in value else value
    return [_without_nul(item) for item in value] if isinstance(value, list | tuple) else value
