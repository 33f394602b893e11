"""Decides how a database is read from outside the service: read-only, in snapshots, whatever state it is in.

Must not know what is right. Walks indexes and merges, so that memory stays the same however large the tables are. A
damaged value is returned as it was found: rows are read without the models' conversions.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from peewee import JOIN, SQL, Case, Expression, Join, Select, SqliteDatabase, fn

from upload_server.domain.chain import Seal, origin
from upload_server.domain.errors import CannotStart
from upload_server.domain.states import AuditEvent, FileStatus
from upload_server.store import models
from upload_server.store.inspection import (
    AnswerFacts,
    AuditLink,
    BatchFacts,
    Damaged,
    Debt,
    FileFacts,
    NodeFacts,
    SchemaFault,
    TableRow,
    Trail,
)
from upload_server.store.sql.dialect import EMPTY
from upload_server.store.sql.inspecting import as_damaged, side_by_side
from upload_server.store.sql.rows import A, B, F, Row, event_of, to_json
from upload_server.store.sql.statements import READ_NODES
from upload_server.store.sql.trail import EVENTS
from upload_server.store.sqlite.connection import SqliteConnection
from upload_server.store.sqlite.dialect import SQLITE
from upload_server.store.sqlite.schema import differences

_SEAL, _DEBT = models.AuditSeal.alias("s"), models.OwedDeletion.alias("o")
_HASH_BYTES = 32

_RUNS_BEFORE = SQL("(SELECT group_concat(r.fence || ':' || r.upto) FROM run AS r WHERE r.file_row = f.id)")
# In the order of the fields of FileFacts.
_FILES = (
    F.select(
        *(F.id, F.file_id, F.status, fn.coalesce(F.batch_id, EMPTY), F.batch_row, F.size_bytes, F.bytes_received),
        *(F.sha256, F.updated_at, F.completed_at, F.cancelled_at, F.cancelled_by, F.cancel_reason, F.failure_reason),
        *(F.revision, F.change_no, F.fence, F.run_fence, _RUNS_BEFORE, fn.coalesce(B.status, EMPTY)),
        _DEBT.id.is_null(False),
        F.owner != fn.coalesce(B.owner, F.owner),
        *(F.content_deleted_at, F.content_deleted_by),
    )
    .join(B, JOIN.LEFT_OUTER, on=B.id == F.batch_row)
    .join_from(F, _DEBT, JOIN.LEFT_OUTER, on=_DEBT.file_row == F.id)
    .order_by(F.id)
)
_EVENT_FACTS = (A.change_no, A.from_status, A.to_status, A.actor, A.source, A.reason, A.occurred_at)
_SEALS = _SEAL.select(_SEAL.change_no, _SEAL.previous_no, _SEAL.hash)
_ORIGIN = models.AuditOrigin.alias("g")
_ORIGINS = _ORIGIN.select(_ORIGIN.change_no, SQL("0"), _ORIGIN.hash).order_by(_ORIGIN.change_no.desc()).limit(1)
_DEBTS = (
    _DEBT.select(_DEBT.file_row, F.file_id, F.status, fn.coalesce(F.content_deleted_at, F.updated_at))
    .join(F, JOIN.LEFT_OUTER, on=F.id == _DEBT.file_row)
    .order_by(_DEBT.id)
)


def _batches() -> Select:
    """Make the query of all batches with their files counted, in the order of the fields of BatchFacts."""
    counted = (
        F.select(
            F.batch_row,
            fn.count(SQL("*")).alias("files"),
            *(fn.sum(F.status == status.value).alias(status.value) for status in FileStatus),
        )
        .where(F.batch_row.is_null(False))
        .group_by(F.batch_row)
        .alias("c")
    )
    return (
        B.select(
            *(B.id, B.batch_id, B.status, B.total_files, B.completed_files, B.failed_files, B.cancelled_files_count),
            *(B.updated_at, B.cancelled_at, B.cancelled_by, B.revision, B.change_no),
            *(fn.coalesce(getattr(counted.c, name), 0) for name in ("files", *FileStatus)),
        )
        .join(counted, JOIN.LEFT_OUTER, on=counted.c.batch_row == B.id)
        .order_by(B.id)
    )


def _answers() -> Select:
    """Make the query of all answers, in the order of the fields of AnswerFacts: each with the row that it names."""
    s = models.StoredAnswer.alias("s")
    valid = fn.json_valid(s.answer)
    of_files = ("InitiateUpload", "PutFile", "DeleteContent")
    made = s.method.in_((*of_files, "InitiateBatch"))
    named_id = Case(None, [(made, s.answer), (valid, Expression(s.answer, "->>", 0))])
    cancelled_at = Case(
        None,
        [
            (valid == 0, None),
            (s.method == "CancelFile", Expression(s.answer, "->>", 2)),
            (s.method == "CancelBatch", Expression(s.answer, "->>", 3)),
        ],
    )
    known = (*of_files, "InitiateBatch", "CancelFile", "CancelBatch")
    stored = s.select(s.method, s.request_id, s.answer, named_id.alias("named_id"), cancelled_at.alias("cancelled_at"))
    answer = stored.where(s.method.in_(known)).alias("s")
    file = (F.file_id == answer.c.named_id) & answer.c.method.in_((*of_files, "CancelFile"))
    batch = (B.batch_id == answer.c.named_id) & answer.c.method.in_(("InitiateBatch", "CancelBatch"))
    return Select(
        [Join(Join(answer, F, JOIN.LEFT_OUTER, on=file), B, JOIN.LEFT_OUTER, on=batch)],
        [
            *(answer.c.method, answer.c.request_id, answer.c.answer, answer.c.named_id),
            fn.coalesce(F.status, B.status),
            fn.coalesce(F.cancelled_at, B.cancelled_at),
            answer.c.cancelled_at,
        ],
    )


class NotToBeReadHere(CannotStart):
    """SQLite cannot read the log beside the database where it lies, and without it the newest commits are missing."""

    def __init__(self, path: Path, log: Path) -> None:
        super().__init__(
            f"{path} cannot be looked at here: copy it to where it can be written, with {log.name} beside it: the"
            " newest commits are there, and SQLite needs to write to read them"
        )


class SqliteInspection:
    """Reads one SQLite file; a server may run on it. Used by one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open an existing database; raises ``Damaged`` when it cannot be opened, ``NotToBeReadHere`` when only a part
        of it can be read."""
        uri = path.absolute().as_uri()
        with as_damaged(*SqliteConnection.errors):
            self._database = _opened(f"{uri}?mode=ro")
            try:
                self._database.execute_sql("SELECT 1 FROM sqlite_master")  # type: ignore[no-untyped-call]
            except SqliteConnection.errors:
                # On a read-only medium, where SQLite cannot make its shared memory, and no server can run either.
                self._database.close()
                _refuse_logs(path)
                self._database = _opened(f"{uri}?immutable=1")
        self.refresh()

    def refresh(self) -> None:
        """Begin a new snapshot."""
        with as_damaged(*SqliteConnection.errors):
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            self._connection.execute("BEGIN")
            # The snapshot is taken by the first read.
            self._connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()

    def close(self) -> None:
        """Close it."""
        self._database.close()

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection = self._database.connection()  # type: ignore[no-untyped-call]
        return connection

    def _walk(self, query: Select) -> Iterator[Row]:
        with as_damaged(*SqliteConnection.errors):
            yield from self._database.execute(query)  # type: ignore[no-untyped-call]

    def _rows(self, query: Select) -> list[Row]:
        return list(self._walk(query))

    def _value(self, query: Select) -> Any:
        """Return the first column of the first row, None without a row."""
        return next((row[0] for row in self._rows(query)), None)

    def damage(self) -> Sequence[str]:
        """Run SQLite's own check."""
        try:
            with as_damaged(*SqliteConnection.errors):
                found = [str(row[0]) for row in self._connection.execute("PRAGMA integrity_check(20)")]
        except Damaged as error:
            return [str(error)]
        return [] if found == ["ok"] else found

    def schema_faults(self) -> Sequence[SchemaFault]:
        """Compare with a new database's schema."""
        with as_damaged(*SqliteConnection.errors):
            return differences(self._connection)

    def store_id(self) -> str:
        """Read the store's identity."""
        return str(self._value(models.StoreInfo.select(models.StoreInfo.store_id)) or "")

    def last_change(self) -> int:
        """Read the number of the last change."""
        return int(self._value(models.StoreInfo.select(models.StoreInfo.last_change)) or 0)

    def greatest_number(self) -> int:
        """Read the greatest number in use."""
        return max(int(self._value(table.select(fn.max(table.change_no))) or 0) for table in (F, B, A))

    def seal_head(self) -> Seal | None:
        """Read the newest seal."""
        rows = self._rows(_SEALS.order_by(_SEAL.change_no.desc()).limit(1))
        return _seal_of(*rows[0]) if rows else None

    def origin(self) -> Seal:
        """Read what the trail begins behind."""
        rows = self._rows(_ORIGINS)
        return _seal_of(*rows[0]) if rows else Seal(0, 0, origin(self.store_id()))

    def links(self, after: int, limit: int) -> Sequence[AuditLink]:
        """Read places of the chain: an event may lack its seal, and a seal its event."""
        events = self._rows(EVENTS.where(A.change_no > after).order_by(A.change_no).limit(limit))
        seals = self._rows(_SEALS.where(_SEAL.change_no > after).order_by(_SEAL.change_no).limit(limit))
        event_rows, seal_rows = {row[0]: row for row in events}, {row[0]: row for row in seals}
        places = sorted(event_rows.keys() | seal_rows.keys())[:limit]
        return [_link_of(place, event_rows.get(place), seal_rows.get(place)) for place in places]

    def file_trails(self) -> Iterator[Trail[FileFacts]]:
        """Walk files and their events side by side."""
        events = A.select(A.file_row, *_EVENT_FACTS).where(A.file_row.is_null(False))
        walked = self._walk(events.order_by(A.file_row, A.change_no))
        return side_by_side(self._walk(_FILES), walked, FileFacts)

    def batch_trails(self) -> Iterator[Trail[BatchFacts]]:
        """Walk batches and their own events side by side."""
        events = A.select(A.batch_row, *_EVENT_FACTS).where(A.batch_row.is_null(False), A.file_row.is_null())
        walked = self._walk(events.order_by(A.batch_row, A.change_no))
        return side_by_side(self._walk(_batches()), walked, BatchFacts)

    def stray_events(self) -> Iterator[int]:
        """Walk events that name nothing."""
        for row in self._walk(A.select(A.change_no).where(A.file_row.is_null(), A.batch_row.is_null())):
            yield row[0]

    def answers(self) -> Iterator[AnswerFacts]:
        """Walk stored answers."""
        for row in self._walk(_answers()):
            yield AnswerFacts(*row)

    def debts(self) -> Iterator[Debt]:
        """Walk deletions owed."""
        for row in self._walk(_DEBTS):
            yield Debt(*row)

    def files_after(self, row: int, limit: int) -> Sequence[FileFacts]:
        """Read a page of files."""
        return [FileFacts(*found) for found in self._rows(_FILES.where(F.id > row).limit(limit))]

    def files_named(self, file_ids: Sequence[str]) -> dict[str, FileFacts]:
        """Read files by id."""
        named = SQL("f.file_id IN (SELECT value FROM json_each(?))", [to_json(list(file_ids))])
        found = itertools.starmap(FileFacts, self._rows(_FILES.where(named)))
        return {facts.file_id: facts for facts in found}

    def nodes(self) -> Sequence[NodeFacts]:
        """Read the nodes."""
        with as_damaged(*SqliteConnection.errors):
            return [NodeFacts(*row) for row in self._connection.execute(READ_NODES.text(SQLITE))]

    def tables(self) -> Iterator[tuple[str, Iterator[TableRow]]]:
        """Walk every table that lasts."""
        for model in models.LASTING:
            yield model.table_name(), self._walk(model.select(*map(SQL, model.copied_columns())))


def _refuse_logs(path: Path) -> None:
    """Raise ``NotToBeReadHere`` when a log lies beside the database: SQLite reads past it in an immutable one."""
    for suffix in ("-wal", "-journal"):
        log = path.with_name(path.name + suffix)
        with contextlib.suppress(FileNotFoundError):
            if log.stat().st_size > 0:
                raise NotToBeReadHere(path, log)


def _opened(uri: str) -> SqliteDatabase:
    database = SqliteDatabase(uri, uri=True, timeout=5.0, thread_safe=False, autoconnect=False, check_same_thread=False)
    database.connect()
    database.connection().text_factory = _text  # type: ignore[no-untyped-call]
    return database


def _text(raw: bytes) -> str:
    # Bytes that are no UTF-8 were not written by us; they must not keep the rest from being read.
    return raw.decode("utf-8", "surrogateescape")


def _seal_of(event_id: int, previous_id: int, digest: object) -> Seal:
    sound = isinstance(digest, bytes) and len(digest) == _HASH_BYTES
    return Seal(event_id, previous_id, digest if sound and isinstance(digest, bytes) else b"")


def _link_of(place: int, event_row: Row | None, seal_row: Row | None) -> AuditLink:
    event, problem = (None, "") if event_row is None else _event_of(event_row)
    return AuditLink(place, event, None if seal_row is None else _seal_of(*seal_row), problem)


def _event_of(row: Row) -> tuple[AuditEvent | None, str]:
    """Return the event of a row, or why it cannot be read."""
    if not all(isinstance(column, str) for column in row[1:]):
        return None, "a field is no text"
    try:
        return event_of(row), ""
    except ValueError:
        return None, "its time is no time"
