"""Decides what is read, as SQL: each function reads from the one snapshot that its caller opened.

Must not know about threads. Whatever a caller may not see is not there.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import AuditEvent, Batch, File, FileStatus
from upload_server.store.protocol import OwedDeletion, Page
from upload_server.store.sqlite.connection import Connection
from upload_server.store.sqlite.rows import (
    BATCH_COLUMNS,
    EVENT_COLUMNS,
    FILE_COLUMNS,
    Row,
    batch_of,
    event_of,
    file_of,
    time_text,
    to_json,
)
from upload_server.store.sqlite.statements import OPEN_FILE

_BATCH_ROW = "(SELECT id FROM batch WHERE batch_id = :batch_id)"


def _rows(connection: Connection, sql: str, **parameters: Any) -> list[Row]:
    return connection.rows(sql, parameters)


def read_last_change(connection: Connection) -> int:
    """Read the number of the last change in this snapshot."""
    return int(_rows(connection, "SELECT last_change FROM store_info")[0][0])


def read_store_id(connection: Connection) -> str:
    """Read the store's identity."""
    return str(_rows(connection, "SELECT store_id FROM store_info")[0][0])


def read_file(connection: Connection, file_id: str, owner: str) -> File:
    """Read one file; raises ``FileNotFound``."""
    sql = f"SELECT {FILE_COLUMNS} FROM file AS f WHERE f.file_id = :file_id AND f.owner = :owner"
    found = _rows(connection, sql, file_id=file_id, owner=owner)
    if not found:
        raise FileNotFound(file_id)
    return file_of(found[0])


def read_batch(connection: Connection, batch_id: str, owner: str) -> Batch:
    """Read one batch; raises ``BatchNotFound``."""
    sql = f"SELECT {BATCH_COLUMNS} FROM batch AS b WHERE b.batch_id = :batch_id AND b.owner = :owner"
    found = _rows(connection, sql, batch_id=batch_id, owner=owner)
    if not found:
        raise BatchNotFound(batch_id)
    return batch_of(found[0])


def list_files(
    connection: Connection,
    owner: str,
    status: FileStatus | None,
    batch_id: str,
    cursor: int,
    limit: int,
) -> Page[File]:
    """Read files by row id, which grows with creation."""
    conditions = ["f.id > :cursor", "f.owner = :owner"]
    if batch_id:
        conditions.append(f"f.batch_row = {_BATCH_ROW}")
    if status is not None:
        # The plus keeps SQLite from the index on the status where the batch's is the better one.
        conditions.append("+f.status = :status" if batch_id else "f.status = :status")
    found = _rows(
        connection,
        f"SELECT f.id, {FILE_COLUMNS} FROM file AS f WHERE {' AND '.join(conditions)} ORDER BY f.id LIMIT :limit",
        owner=owner,
        status=None if status is None else status.value,
        batch_id=batch_id,
        cursor=cursor,
        limit=limit + 1,
    )
    more = len(found) > limit
    return Page(tuple(file_of(row[1:]) for row in found[:limit]), found[limit - 1][0] if more else 0)


def list_audit_events(
    connection: Connection, owner: str, file_id: str, batch_id: str, cursor: int, limit: int
) -> Page[AuditEvent]:
    """Read audit events by change number; those of a batch include its files'."""
    conditions = ["a.change_no > :cursor", "coalesce(f.owner, b.owner) = :owner"]
    if file_id:
        conditions.append("a.file_row = (SELECT id FROM file WHERE file_id = :file_id)")
    if batch_id:
        conditions.append(f"{'+' if file_id else ''}a.batch_row = {_BATCH_ROW}")
    found = _rows(
        connection,
        f"SELECT {EVENT_COLUMNS} FROM audit_event AS a LEFT JOIN file AS f ON f.id = a.file_row"
        f" LEFT JOIN batch AS b ON b.id = a.batch_row"
        f" WHERE {' AND '.join(conditions)} ORDER BY a.change_no LIMIT :limit",
        owner=owner,
        file_id=file_id,
        batch_id=batch_id,
        cursor=cursor,
        limit=limit + 1,
    )
    events = tuple(event_of(row) for row in found[:limit])
    return Page(events, events[-1].event_id if len(found) > limit else 0)


# For the janitor and the metrics -------------------------------------------------------------------------------------


def owed_deletions(connection: Connection, limit: int) -> Sequence[OwedDeletion]:
    """Read the oldest deletions owed."""
    sql = """
        SELECT o.id, f.file_id FROM owed_deletion AS o CROSS JOIN file AS f ON f.id = o.file_row
        ORDER BY o.id LIMIT :limit"""
    return [OwedDeletion(row, file_id) for row, file_id in _rows(connection, sql, limit=limit)]


def idle_rows(connection: Connection, idle_since: datetime, open_files: Sequence[str], limit: int) -> list[int]:
    """Find files that are not final, not open and had no byte since ``idle_since``; reads only what is not final."""
    sql = f"""
        SELECT f.id FROM file AS f INDEXED BY file_open
        WHERE f.status IN ({OPEN_FILE}) AND f.change_no > 0 AND f.active_at < :idle_since
            AND f.file_id NOT IN (SELECT value FROM json_each(:open_files))
        ORDER BY f.change_no LIMIT :limit"""
    found = _rows(
        connection,
        sql,
        idle_since=time_text(idle_since),
        open_files=to_json(list(open_files)),
        limit=limit,
    )
    return [row[0] for row in found]


def status_of(connection: Connection, file_ids: Sequence[str]) -> dict[str, FileStatus]:
    """Read the status of files by id."""
    sql = """
        SELECT f.file_id, f.status FROM json_each(:ids) AS k CROSS JOIN file AS f ON f.file_id = k.value"""
    found = _rows(connection, sql, ids=to_json(list(file_ids)))
    return {file_id: FileStatus(status) for file_id, status in found}


def count_files(connection: Connection) -> dict[FileStatus, int]:
    """Count files by status, from an index alone."""
    found = _rows(connection, "SELECT status, count(*) FROM file GROUP BY status")
    counted = {FileStatus(status): count for status, count in found}
    return {status: counted.get(status, 0) for status in FileStatus}
