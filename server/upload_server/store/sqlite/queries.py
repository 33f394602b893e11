"""Decides what is read, as SQL: each function reads from the one snapshot that its caller opened.

Must not know about threads. Whatever a caller may not see is not there.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from upload_server.domain import AuditEvent, Batch, File, FileStatus
from upload_server.errors import BatchNotFound, FileNotFound
from upload_server.store import Change, Changes, OwedDeletion, Page, Targets
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
)
from upload_server.store.sqlite.statements import OPEN_BATCH, OPEN_FILE

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


# Changes -------------------------------------------------------------------------------------------------------------


def check_targets(connection: Connection, targets: Targets, owner: str) -> Changes:
    """Read the named rows; raises ``FileNotFound`` or ``BatchNotFound`` for the first unknown id."""
    limit = len(targets.file_ids) + len(targets.batch_ids)
    found = [*_named_files(connection, targets, owner, 0, limit), *_named_batches(connection, targets, owner, 0, limit)]
    known = {change.record.file_id if isinstance(change.record, File) else change.record.batch_id for change in found}
    for file_id in sorted(targets.file_ids - known):
        raise FileNotFound(file_id)
    for batch_id in sorted(targets.batch_ids - known):
        raise BatchNotFound(batch_id)
    found.sort(key=_number)
    return Changes(tuple(found), complete=True, last_change=read_last_change(connection))


def read_changes(
    connection: Connection,
    targets: Targets,
    owner: str,
    after: int,
    limit: int,
    skip_final_upto: int,
) -> Changes:
    """Read the rows whose last change is above ``after``, in the order of those changes, at most ``limit``."""
    last_change = read_last_change(connection)
    if after >= last_change:
        return Changes((), complete=True, last_change=last_change)
    # One more than asked for tells whether there is more.
    sources = _every_row if targets.all else _rows_of_targets
    found = sources(connection, targets, owner, after, limit + 1, skip_final_upto)
    merged = list(_distinct(heapq.merge(*found, key=_number), limit + 1))
    return Changes(tuple(merged[:limit]), complete=len(merged) <= limit, last_change=last_change)


def _number(change: Change) -> int:
    return change.no


def _distinct(changes: Iterable[Change], limit: int) -> Iterable[Change]:
    """Leave out repetitions: a file can be named itself and through its batch."""
    last = count = 0
    for change in changes:
        if change.no != last:
            if count == limit:
                return
            count += 1
            last = change.no
            yield change


def _every_row(
    connection: Connection, _targets: Targets, owner: str, after: int, limit: int, skip: int
) -> list[list[Change]]:
    files = _Table(f"SELECT {FILE_COLUMNS} FROM file AS f", "f", "file_open", OPEN_FILE, file_of)
    batches = _Table(f"SELECT {BATCH_COLUMNS} FROM batch AS b", "b", "batch_open", OPEN_BATCH, batch_of)
    return [_range(connection, table, owner, after, limit, skip) for table in (files, batches)]


def _changes(
    connection: Connection, make: Callable[[Row], File] | Callable[[Row], Batch], sql: str, **parameters: Any
) -> list[Change]:
    records = [make(row) for row in _rows(connection, sql, **parameters)]
    return [Change(record.change_no, record) for record in records]


@dataclass(frozen=True, slots=True)
class _Table:
    """A table that is read by change number, and its index of just what is not final."""

    select: str
    alias: str
    open_index: str
    open_states: str
    make: Callable[[Row], File] | Callable[[Row], Batch]


def _range(connection: Connection, table: _Table, owner: str, after: int, limit: int, skip: int) -> list[Change]:
    """Read a table by change number; up to ``skip`` only what is not final."""
    found: list[Change] = []
    number = f"{table.alias}.change_no"
    rest = f"{table.alias}.owner = :owner ORDER BY {number} LIMIT :limit"
    if after < skip:
        found = _changes(
            connection,
            table.make,
            f"{table.select} INDEXED BY {table.open_index} WHERE {table.alias}.status IN ({table.open_states})"
            f" AND {number} > :after AND {number} <= :skip AND {rest}",
            after=after,
            skip=skip,
            owner=owner,
            limit=limit,
        )
    if len(found) < limit:
        found += _changes(
            connection,
            table.make,
            f"{table.select} WHERE {number} > :after AND {rest}",
            after=max(after, skip),
            owner=owner,
            limit=limit - len(found),
        )
    return found


def _rows_of_targets(
    connection: Connection, targets: Targets, owner: str, after: int, limit: int, skip: int
) -> list[list[Change]]:
    found = [
        _named_files(connection, targets, owner, after, limit, skip),
        _named_batches(connection, targets, owner, after, limit, skip),
    ]
    if targets.include_batch_files and targets.batch_ids:
        found.append(_files_of_batches(connection, targets, owner, after, limit, skip))
    return found


def _shown(alias: str, open_states: str) -> str:
    return f"({alias}.change_no > :skip OR {alias}.status IN ({open_states}))"


def _named_files(
    connection: Connection, targets: Targets, owner: str, after: int, limit: int, skip: int = 0
) -> list[Change]:
    if not targets.file_ids:
        return []
    return _changes(
        connection,
        file_of,
        f"SELECT {FILE_COLUMNS} FROM json_each(:ids) AS k CROSS JOIN file AS f ON f.file_id = k.value"
        f" WHERE +f.change_no > :after AND f.owner = :owner AND {_shown('f', OPEN_FILE)}"
        " ORDER BY +f.change_no LIMIT :limit",
        ids=json.dumps(list(targets.file_ids)),
        after=after,
        owner=owner,
        skip=skip,
        limit=limit,
    )


def _named_batches(
    connection: Connection, targets: Targets, owner: str, after: int, limit: int, skip: int = 0
) -> list[Change]:
    if not targets.batch_ids:
        return []
    return _changes(
        connection,
        batch_of,
        f"SELECT {BATCH_COLUMNS} FROM json_each(:ids) AS k CROSS JOIN batch AS b ON b.batch_id = k.value"
        f" WHERE +b.change_no > :after AND b.owner = :owner AND {_shown('b', OPEN_BATCH)}"
        " ORDER BY +b.change_no LIMIT :limit",
        ids=json.dumps(list(targets.batch_ids)),
        after=after,
        owner=owner,
        skip=skip,
        limit=limit,
    )


def _files_of_batches(
    connection: Connection, targets: Targets, owner: str, after: int, limit: int, skip: int
) -> list[Change]:
    """Read a page of the batches' files: first their numbers, from the index alone, then those rows."""
    batch_rows = _rows(
        connection,
        "SELECT b.id FROM json_each(:ids) AS k CROSS JOIN batch AS b ON b.batch_id = k.value WHERE b.owner = :owner",
        ids=json.dumps(list(targets.batch_ids)),
        owner=owner,
    )
    numbers = heapq.merge(
        *(_numbers_of_batch(connection, batch_row, after, limit, skip) for (batch_row,) in batch_rows)
    )
    page = [number for number, _ in zip(numbers, range(limit), strict=False)]
    return _changes(
        connection,
        file_of,
        f"SELECT {FILE_COLUMNS} FROM json_each(:page) AS k CROSS JOIN file AS f ON f.change_no = k.value"
        " ORDER BY k.key",
        page=json.dumps(page),
    )


def _numbers_of_batch(connection: Connection, batch_row: int, after: int, limit: int, skip: int) -> Iterable[int]:
    sql = (
        "SELECT f.change_no FROM file AS f WHERE f.batch_row = :batch_row AND f.change_no > :after"
        f"{' AND ' + _shown('f', OPEN_FILE) if skip > after else ''}"
        " ORDER BY f.change_no LIMIT :limit"
    )
    parameters = {"batch_row": batch_row, "after": after, "limit": limit, "skip": skip}
    return [row[0] for row in connection.rows(sql, parameters)]


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
        open_files=json.dumps(list(open_files)),
        limit=limit,
    )
    return [row[0] for row in found]


def status_of(connection: Connection, file_ids: Sequence[str]) -> dict[str, FileStatus]:
    """Read the status of files by id."""
    sql = """
        SELECT f.file_id, f.status FROM json_each(:ids) AS k CROSS JOIN file AS f ON f.file_id = k.value"""
    found = _rows(connection, sql, ids=json.dumps(list(file_ids)))
    return {file_id: FileStatus(status) for file_id, status in found}


def count_files(connection: Connection) -> dict[FileStatus, int]:
    """Count files by status, from an index alone."""
    found = _rows(connection, "SELECT status, count(*) FROM file GROUP BY status")
    counted = {FileStatus(status): count for status, count in found}
    return {status: counted.get(status, 0) for status in FileStatus}
