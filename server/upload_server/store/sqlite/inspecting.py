"""Decides how a database is read from outside the service: read-only, in snapshots, whatever state it is in.

Must not know what is right. Walks indexes and merges, so that memory stays the same however large the tables are.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from upload_server.domain.chain import Seal
from upload_server.domain.states import AuditEvent
from upload_server.store.inspection import (
    AnswerFacts,
    AuditLink,
    BatchFacts,
    Damaged,
    Debt,
    EventFacts,
    FileFacts,
    SchemaFault,
    Trail,
)
from upload_server.store.sqlite.rows import EVENT_COLUMNS, event_of, to_json
from upload_server.store.sqlite.schema import differences

R = TypeVar("R", FileFacts, BatchFacts)
Row = tuple[Any, ...]

_FILES = """
    SELECT f.id, f.file_id, f.status, coalesce(f.batch_id, ''), f.batch_row, f.size_bytes, f.bytes_received, f.sha256,
           f.updated_at, f.completed_at, f.cancelled_at, f.cancelled_by, f.cancel_reason, f.failure_reason, f.revision,
           f.change_no, f.fence, coalesce(b.status, ''),
           o.id IS NOT NULL
    FROM {source} LEFT JOIN batch AS b ON b.id = f.batch_row LEFT JOIN owed_deletion AS o ON o.file_row = f.id"""
_BATCHES = """
    SELECT b.id, b.batch_id, b.status, b.total_files, b.completed_files, b.failed_files, b.cancelled_files_count,
           b.updated_at, b.cancelled_at, b.cancelled_by, b.revision, b.change_no,
           coalesce(c.files, 0), coalesce(c.pending, 0), coalesce(c.uploading, 0), coalesce(c.completed, 0),
           coalesce(c.failed, 0), coalesce(c.cancelled, 0)
    FROM batch AS b LEFT JOIN (
        SELECT batch_row, count(*) AS files, sum(status = 'pending') AS pending, sum(status = 'uploading') AS uploading,
               sum(status = 'completed') AS completed, sum(status = 'failed') AS failed,
               sum(status = 'cancelled') AS cancelled
        FROM file WHERE batch_row IS NOT NULL GROUP BY batch_row) AS c ON c.batch_row = b.id
    ORDER BY b.id"""
_EVENTS = """
    SELECT {row}, change_no, from_status, to_status, actor, source, reason, occurred_at
    FROM audit_event WHERE {condition} ORDER BY {row}, change_no"""
# Both walked in order of their keys: an event may lack its seal, and a seal its event.
_LINKS = f"""
    SELECT k.change_no, s.previous_no, s.hash, a.change_no IS NOT NULL, {EVENT_COLUMNS}
    FROM (SELECT change_no FROM (SELECT change_no FROM audit_event WHERE change_no > :after
                                 ORDER BY change_no LIMIT :limit)
          UNION
          SELECT change_no FROM (SELECT change_no FROM audit_seal WHERE change_no > :after
                                 ORDER BY change_no LIMIT :limit)
          ORDER BY change_no LIMIT :limit) AS k
    LEFT JOIN audit_event AS a ON a.change_no = k.change_no
    LEFT JOIN audit_seal AS s ON s.change_no = k.change_no
    LEFT JOIN file AS f ON f.id = a.file_row LEFT JOIN batch AS b ON b.id = a.batch_row
    ORDER BY k.change_no"""
_ANSWERS = """
    SELECT s.method, s.request_id, s.answer, s.names, coalesce(f.status, b.status),
           coalesce(f.cancelled_at, b.cancelled_at), s.cancelled_at
    FROM (SELECT method, request_id, answer,
                 CASE WHEN method IN ('InitiateUpload', 'InitiateBatch') THEN answer
                      WHEN json_valid(answer) THEN answer ->> 0 END AS names,
                 CASE WHEN NOT json_valid(answer) THEN NULL
                      WHEN method = 'CancelFile' THEN answer ->> 2
                      WHEN method = 'CancelBatch' THEN answer ->> 3 END AS cancelled_at
          FROM stored_answer
          WHERE method IN ('InitiateUpload', 'InitiateBatch', 'CancelFile', 'CancelBatch')) AS s
    LEFT JOIN file AS f ON f.file_id = s.names AND s.method IN ('InitiateUpload', 'CancelFile')
    LEFT JOIN batch AS b ON b.batch_id = s.names AND s.method IN ('InitiateBatch', 'CancelBatch')"""
_GREATEST = """
    SELECT max(coalesce((SELECT max(change_no) FROM file), 0), coalesce((SELECT max(change_no) FROM batch), 0),
               coalesce((SELECT max(change_no) FROM audit_event), 0))"""
_HASH_BYTES = 32


def _text(raw: bytes) -> str:
    # What is no UTF-8 was not written by us; it must not keep the rest from being read.
    return raw.decode("utf-8", "surrogateescape")


class SqliteInspection:
    """Reads one SQLite file; a server may run on it. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open an existing database; raises ``Damaged`` when it cannot be opened."""
        uri = path.absolute().as_uri()
        with _said():
            self._connection = _opened(f"{uri}?mode=ro")
            try:
                self._connection.execute("SELECT 1 FROM sqlite_master")
            except sqlite3.OperationalError:
                # On a read-only medium, where SQLite cannot make its shared memory, and no server can run either.
                self._connection.close()
                self._connection = _opened(f"{uri}?immutable=1")
        self.refresh()

    def refresh(self) -> None:
        """Begin a new snapshot."""
        with _said():
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            self._connection.execute("BEGIN")
            # The snapshot is taken by the first read.
            self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _walk(self, sql: str, **parameters: object) -> Iterator[Row]:
        with _said():
            yield from self._connection.execute(sql, parameters)

    def _rows(self, sql: str, **parameters: object) -> list[Row]:
        return list(self._walk(sql, **parameters))

    def damage(self) -> Sequence[str]:
        """Run SQLite's own check."""
        try:
            found = [str(row[0]) for row in self._rows("PRAGMA integrity_check(20)")]
        except Damaged as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def schema_faults(self) -> Sequence[SchemaFault]:
        """Compare with a new database's schema."""
        with _said():
            return differences(self._connection)

    def store_id(self) -> str:
        """Read the store's identity."""
        rows = self._rows("SELECT store_id FROM store_info")
        return str(rows[0][0]) if rows else ""

    def last_change(self) -> int:
        """Read the number of the last change."""
        rows = self._rows("SELECT last_change FROM store_info")
        return int(rows[0][0]) if rows else 0

    def greatest_number(self) -> int:
        """Read the greatest number in use."""
        return int(self._rows(_GREATEST)[0][0])

    def seal_head(self) -> Seal | None:
        """Read the newest seal."""
        rows = self._rows("SELECT change_no, previous_no, hash FROM audit_seal ORDER BY change_no DESC LIMIT 1")
        return _seal_of(*rows[0]) if rows else None

    def links(self, after: int, limit: int) -> Sequence[AuditLink]:
        """Read places of the chain."""
        return [_link_of(row) for row in self._rows(_LINKS, after=after, limit=limit)]

    def file_trails(self) -> Iterator[Trail[FileFacts]]:
        """Walk files and their events side by side."""
        files = self._walk(f"{_FILES.format(source='file AS f')} ORDER BY f.id")
        events = self._walk(_EVENTS.format(row="file_row", condition="file_row IS NOT NULL"))
        return _side_by_side(files, events, _file_of)

    def batch_trails(self) -> Iterator[Trail[BatchFacts]]:
        """Walk batches and their own events side by side."""
        condition = "batch_row IS NOT NULL AND file_row IS NULL"
        events = self._walk(_EVENTS.format(row="batch_row", condition=condition))
        return _side_by_side(self._walk(_BATCHES), events, _batch_of)

    def stray_events(self) -> Iterator[int]:
        """Walk events that name nothing."""
        for row in self._walk("SELECT change_no FROM audit_event WHERE file_row IS NULL AND batch_row IS NULL"):
            yield row[0]

    def answers(self) -> Iterator[AnswerFacts]:
        """Walk stored answers."""
        for row in self._walk(_ANSWERS):
            yield AnswerFacts(*row)

    def debts(self) -> Iterator[Debt]:
        """Walk deletions owed."""
        sql = """
            SELECT o.id, o.file_row, f.file_id, f.status, f.updated_at
            FROM owed_deletion AS o LEFT JOIN file AS f ON f.id = o.file_row ORDER BY o.id"""
        for row in self._walk(sql):
            yield Debt(*row)

    def files_after(self, row: int, limit: int) -> Sequence[FileFacts]:
        """Read a page of files."""
        sql = f"{_FILES.format(source='file AS f')} WHERE f.id > :row ORDER BY f.id LIMIT :limit"
        return [_file_of(found) for found in self._rows(sql, row=row, limit=limit)]

    def files_named(self, file_ids: Sequence[str]) -> dict[str, FileFacts]:
        """Read files by id."""
        source = "json_each(:ids) AS k CROSS JOIN file AS f ON f.file_id = k.value"
        found = map(_file_of, self._rows(_FILES.format(source=source), ids=to_json(list(file_ids))))
        return {facts.file_id: facts for facts in found}


def _opened(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5.0, check_same_thread=False)
    connection.text_factory = _text
    return connection


@contextlib.contextmanager
def _said() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise Damaged(str(error)) from error


def _file_of(row: Row) -> FileFacts:
    return FileFacts(*row)


def _batch_of(row: Row) -> BatchFacts:
    return BatchFacts(*row)


def _seal_of(event_id: int, previous_id: int, digest: object) -> Seal:
    sound = isinstance(digest, bytes) and len(digest) == _HASH_BYTES
    return Seal(event_id, previous_id, digest if sound and isinstance(digest, bytes) else b"")


def _link_of(row: Row) -> AuditLink:
    number, previous, digest, present, *columns = row
    seal = None if previous is None else _seal_of(number, previous, digest)
    event, problem = _event_of(columns) if present else (None, "")
    return AuditLink(number, event, seal, problem)


def _event_of(columns: Sequence[Any]) -> tuple[AuditEvent | None, str]:
    if not all(isinstance(column, str) for column in columns[1:]):
        return None, "a field is no text"
    try:
        return event_of(tuple(columns)), ""
    except ValueError:
        return None, "its time is no time"


def _side_by_side(rows: Iterator[Row], events: Iterator[Row], make: Callable[[Row], R]) -> Iterator[Trail[R]]:
    """Join two walks in the order of row ids; events without a row come with None."""
    groups = itertools.groupby(events, key=lambda event: event[0])
    of, group = next(groups, (None, iter(())))
    for row in rows:
        while of is not None and of < row[0]:
            yield Trail(of, None, tuple(EventFacts(*event[1:]) for event in group))
            of, group = next(groups, (None, iter(())))
        own: tuple[EventFacts, ...] = ()
        if of == row[0]:
            own = tuple(EventFacts(*event[1:]) for event in group)
            of, group = next(groups, (None, iter(())))
        yield Trail(row[0], make(row), own)
    while of is not None:
        yield Trail(of, None, tuple(EventFacts(*event[1:]) for event in group))
        of, group = next(groups, (None, iter(())))
