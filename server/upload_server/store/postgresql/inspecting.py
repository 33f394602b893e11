"""Decides how a database is read from outside the service: read-only, in snapshots, whatever state it is in.

Must not know what is right. Walks indexes and merges, so that memory stays the same however large the tables are.
Times come as texts in the one form that sorts as it reads.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from peewee import DateTimeField

from upload_server.domain.chain import Seal, origin
from upload_server.domain.states import FileStatus
from upload_server.store import models
from upload_server.store.inspection import (
    AnswerFacts,
    AuditLink,
    BatchFacts,
    Debt,
    FileFacts,
    NodeFacts,
    SchemaFault,
    TableRow,
    Trail,
)
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address, PostgresqlConnection, connect
from upload_server.store.postgresql.schema import differences
from upload_server.store.sql.dialect import Parameter, Sql
from upload_server.store.sql.inspecting import as_damaged, side_by_side
from upload_server.store.sql.rows import A, Row, event_of
from upload_server.store.sql.statements import READ_LAST_SEAL, READ_NODES, READ_ORIGIN
from upload_server.store.sql.trail import EVENTS


def _time(column: str) -> str:
    return f"to_char({column}, 'YYYY-MM-DD HH24:MI:SS.US')"


# In the order of the fields of FileFacts.
_FILES = f"""
    SELECT f.id, f.file_id, f.status, coalesce(f.batch_id, ''), f.batch_row, f.size_bytes, f.bytes_received, f.sha256,
           {_time("f.updated_at")}, {_time("f.completed_at")}, {_time("f.cancelled_at")}, f.cancelled_by,
           f.cancel_reason, f.failure_reason, f.revision, f.change_no, f.fence, f.run_fence,
           (SELECT string_agg(r.fence || ':' || r.upto, ',') FROM run AS r WHERE r.file_row = f.id),
           coalesce(b.status, ''), (o.id IS NOT NULL)::integer,
           (f.owner <> coalesce(b.owner, f.owner))::integer, {_time("f.content_deleted_at")}, f.content_deleted_by
    FROM file AS f LEFT JOIN batch AS b ON b.id = f.batch_row LEFT JOIN owed_deletion AS o ON o.file_row = f.id"""
# In the order of the fields of BatchFacts; the files of each batch are counted by its index.
_BATCHES = f"""
    SELECT b.id, b.batch_id, b.status, b.total_files, b.completed_files, b.failed_files, b.cancelled_files_count,
           {_time("b.updated_at")}, {_time("b.cancelled_at")}, b.cancelled_by, b.revision, b.change_no, c.*
    FROM batch AS b CROSS JOIN LATERAL (
        SELECT count(*), {", ".join(f"count(*) FILTER (WHERE f.status = '{status}')" for status in FileStatus)}
        FROM file AS f WHERE f.batch_row = b.id) AS c
    ORDER BY b.id"""
_EVENT_FACTS = f"change_no, from_status, to_status, actor, source, reason, {_time('occurred_at')}"
_FILE_EVENTS = f"""
    SELECT file_row, {_EVENT_FACTS} FROM audit_event WHERE file_row IS NOT NULL ORDER BY file_row, change_no"""
_BATCH_EVENTS = f"""
    SELECT batch_row, {_EVENT_FACTS} FROM audit_event WHERE batch_row IS NOT NULL AND file_row IS NULL
    ORDER BY batch_row, change_no"""
_STRAYS = "SELECT change_no FROM audit_event WHERE file_row IS NULL AND batch_row IS NULL ORDER BY change_no"
_OF_FILES = "'InitiateUpload', 'PutFile', 'DeleteContent'"
# A cancel's answer is a JSON list that begins with an id and ends with a time. In the order of AnswerFacts.
_ANSWERS = f"""
    SELECT s.method, s.request_id, s.answer, s.named_id, coalesce(f.status, b.status),
           {_time("coalesce(f.cancelled_at, b.cancelled_at)")}, s.cancelled_at
    FROM (
        SELECT method, request_id, answer,
            CASE WHEN method IN ({_OF_FILES}, 'InitiateBatch') THEN answer
                 ELSE substring(answer FROM '^\\["([^"]*)"') END AS named_id,
            CASE WHEN method IN ('CancelFile', 'CancelBatch')
                 THEN substring(answer FROM '"([^"]*)"\\]$') END AS cancelled_at
        FROM stored_answer
        WHERE method IN ({_OF_FILES}, 'InitiateBatch', 'CancelFile', 'CancelBatch')) AS s
    LEFT JOIN file AS f ON f.file_id = s.named_id AND s.method IN ({_OF_FILES}, 'CancelFile')
    LEFT JOIN batch AS b ON b.batch_id = s.named_id AND s.method IN ('InitiateBatch', 'CancelBatch')"""
_DEBTS = f"""
    SELECT o.file_row, f.file_id, f.status, {_time("coalesce(f.content_deleted_at, f.updated_at)")}
    FROM owed_deletion AS o LEFT JOIN file AS f ON f.id = o.file_row ORDER BY o.id"""
_GREATEST = " UNION ALL ".join(f"SELECT max(change_no) FROM {table}" for table in ("file", "batch", "audit_event"))
_EVENTS_AFTER = Sql(
    lambda _: EVENTS.where(A.change_no > Parameter("after")).order_by(A.change_no).limit(Parameter("limit"))
)
_SEALS_AFTER = Sql("""
    SELECT change_no, previous_no, hash FROM audit_seal WHERE change_no > :after ORDER BY change_no LIMIT :limit""")
_FILES_AFTER = Sql(f"{_FILES} WHERE f.id > :row ORDER BY f.id LIMIT :limit")
_FILES_NAMED = Sql(lambda dialect: f"{_FILES} WHERE {dialect.is_item('f.file_id', 'ids')}")
# Where the server checks its pages at all.
_DAMAGE = "SELECT coalesce(checksum_failures, 0) FROM pg_stat_database WHERE datname = current_database()"


class PostgresqlInspection:
    """Reads one database; a server may run on it. Used by one thread at a time."""

    def __init__(self, address: Address) -> None:
        """Open an existing database; raises ``Damaged`` when it cannot be opened."""
        with as_damaged(*PostgresqlConnection.errors):
            self._connection: PostgresqlConnection = connect(address, StoreOptions(), writes=False, bounded=False)
        self._address = address
        self.refresh()

    def refresh(self) -> None:
        """Begin a new snapshot."""
        with as_damaged(*PostgresqlConnection.errors):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # The snapshot is taken by the first read.
            self._connection.rows("SELECT 1")

    def close(self) -> None:
        """Close it."""
        self._connection.close()

    def _walk(self, sql: str) -> Iterator[Row]:
        with as_damaged(*PostgresqlConnection.errors):
            yield from self._connection.walk(sql)

    def _rows(self, sql: Sql | str, **parameters: Any) -> list[Row]:
        with as_damaged(*PostgresqlConnection.errors):
            return self._connection.rows(sql, parameters)

    def damage(self) -> Sequence[str]:
        """Tell of the pages that the server found damaged."""
        failures = self._rows(_DAMAGE)[0][0]
        return [f"{failures} pages had wrong checksums when the server read them"] if failures else []

    def schema_faults(self) -> Sequence[SchemaFault]:
        """Compare with a new database's schema, which is made beside it and taken back."""
        with (
            as_damaged(*PostgresqlConnection.errors),
            contextlib.closing(connect(self._address, StoreOptions(), writes=True, bounded=False)) as connection,
        ):
            return differences(connection)

    def store_id(self) -> str:
        """Read the store's identity."""
        return "".join(str(row[0]) for row in self._rows("SELECT store_id FROM store_info"))

    def last_change(self) -> int:
        """Read the number of the last change."""
        return sum(int(row[0]) for row in self._rows("SELECT last_change FROM store_info"))

    def greatest_number(self) -> int:
        """Read the greatest number in use."""
        return max(int(row[0] or 0) for row in self._rows(_GREATEST))

    def seal_head(self) -> Seal | None:
        """Read the newest seal."""
        rows = self._rows(READ_LAST_SEAL)
        return Seal(*rows[0]) if rows else None

    def origin(self) -> Seal:
        """Read what the trail begins behind."""
        rows = self._rows(READ_ORIGIN)
        return Seal(*rows[0]) if rows else Seal(0, 0, origin(self.store_id()))

    def links(self, after: int, limit: int) -> Sequence[AuditLink]:
        """Read places of the chain: an event may lack its seal, and a seal its event."""
        events = {row[0]: event_of(row) for row in self._rows(_EVENTS_AFTER, after=after, limit=limit)}
        seals = {row[0]: Seal(*row) for row in self._rows(_SEALS_AFTER, after=after, limit=limit)}
        places = sorted(events.keys() | seals.keys())[:limit]
        return [AuditLink(place, events.get(place), seals.get(place)) for place in places]

    def file_trails(self) -> Iterator[Trail[FileFacts]]:
        """Walk files and their events side by side."""
        return side_by_side(self._walk(f"{_FILES} ORDER BY f.id"), self._walk(_FILE_EVENTS), FileFacts)

    def batch_trails(self) -> Iterator[Trail[BatchFacts]]:
        """Walk batches and their own events side by side."""
        return side_by_side(self._walk(_BATCHES), self._walk(_BATCH_EVENTS), BatchFacts)

    def stray_events(self) -> Iterator[int]:
        """Walk events that name nothing."""
        for row in self._walk(_STRAYS):
            yield row[0]

    def answers(self) -> Iterator[AnswerFacts]:
        """Walk stored answers."""
        for row in self._walk(_ANSWERS):
            yield AnswerFacts(*row)

    def debts(self) -> Iterator[Debt]:
        """Walk deletions owed."""
        for row in self._walk(_DEBTS):
            yield Debt(*row)

    def files_after(self, row: int, limit: int) -> Sequence[FileFacts]:
        """Read a page of files."""
        return [FileFacts(*facts) for facts in self._rows(_FILES_AFTER, row=row, limit=limit)]

    def files_named(self, file_ids: Sequence[str]) -> dict[str, FileFacts]:
        """Read files by id."""
        found = self._rows(_FILES_NAMED, ids=list(file_ids))
        return {facts.file_id: facts for facts in itertools.starmap(FileFacts, found)}

    def nodes(self) -> Sequence[NodeFacts]:
        """Read the nodes."""
        return [NodeFacts(*row) for row in self._rows(READ_NODES)]

    def tables(self) -> Iterator[tuple[str, Iterator[TableRow]]]:
        """Walk every table that lasts."""
        for model in models.LASTING:
            kinds = dict(zip(model.column_names(), model.field_types(), strict=True))
            columns = [_time(name) if kinds[name] is DateTimeField else name for name in model.copied_columns()]
            yield model.table_name(), self._walk(f"SELECT {', '.join(columns)} FROM {model.table_name()}")
