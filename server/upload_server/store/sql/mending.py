"""Decides how a stopped database is mended: only by what follows from what is there, and never a final state.

Must not know how faults are found.
"""

# ruff: noqa: S608 - put together from words of dialects

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from upload_server.domain.states import Batch, FileStatus, rolled_up
from upload_server.store.commands import statements
from upload_server.store.commands.statements import BatchRow
from upload_server.store.commands.trail import write_batches
from upload_server.store.commands.transaction import Inconsistent
from upload_server.store.inspection import Adopted, CannotAdopt, SchemaFault
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Sql
from upload_server.store.sql.inspecting import as_damaged
from upload_server.store.sql.transaction import SqlTransaction

C = TypeVar("C", bound=Connection)
_RAISE_LAST_CHANGE = Sql(
    lambda d: (
        f"""
    UPDATE store_info SET last_change = {d.greatest}(last_change, coalesce((SELECT max(change_no) FROM file), 0),
        coalesce((SELECT max(change_no) FROM batch), 0), coalesce((SELECT max(change_no) FROM audit_event), 0))"""
    )
)
_FIND_FILE = Sql("SELECT id, owner, coalesce(batch_id, '') FROM file WHERE file_id = :id")
_FIND_BATCH = Sql("SELECT id, owner, '' FROM batch WHERE batch_id = :id")
# An answer is an id, or a JSON list that begins with one. One that the owner has by the same request id stays its own.
_NAMED = "CASE WHEN substr(answer, 1, 1) = '[' THEN substr(answer, 3, 36) ELSE answer END"


def _adopt_answers(which: str) -> Sql:
    return Sql(f"""
    UPDATE stored_answer SET principal = :owner
    WHERE principal = '' AND {which} AND NOT EXISTS (
        SELECT 1 FROM stored_answer AS o
        WHERE o.principal = :owner AND o.method = stored_answer.method AND o.request_id = stored_answer.request_id)""")


_OF_BATCH = """IN (SELECT file_id FROM file WHERE batch_row = :row
        UNION ALL SELECT batch_id FROM batch WHERE id = :row)"""
# The statements that adopt answers, files and batches.
_ADOPT: Mapping[str, Sequence[Sql | None]] = {
    "all": (
        _adopt_answers("principal = ''"),
        Sql("UPDATE file SET owner = :owner WHERE owner = ''"),
        Sql("UPDATE batch SET owner = :owner WHERE owner = ''"),
    ),
    "batch": (
        _adopt_answers(f"{_NAMED} {_OF_BATCH}"),
        Sql("UPDATE file SET owner = :owner WHERE batch_row = :row"),
        Sql("UPDATE batch SET owner = :owner WHERE id = :row"),
    ),
    "file": (
        _adopt_answers(f"{_NAMED} IN (SELECT file_id FROM file WHERE id = :row)"),
        Sql("UPDATE file SET owner = :owner WHERE id = :row"),
        None,
    ),
}
_COUNT_FILES = Sql("SELECT status, count(*) FROM file WHERE batch_row = :batch_row GROUP BY status")


class SqlMending(ABC, Generic[C]):
    """Mends one database, which the caller has locked."""

    def __init__(self, connection: C) -> None:
        self._connection = connection

    @abstractmethod
    def _begin(self) -> SqlTransaction[C]:
        """Begin a transaction."""

    @abstractmethod
    def _create(self, faults: Sequence[SchemaFault]) -> None:
        """Create indexes and triggers in the open transaction."""

    def _damaged(self) -> contextlib.AbstractContextManager[None]:
        return as_damaged(*self._connection.errors, Inconsistent, ValueError, KeyError)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[SqlTransaction[C]]:
        with self._damaged():
            transaction = self._begin()
            try:
                yield transaction
                transaction.finish()
                transaction.commit()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def create(self, faults: Sequence[SchemaFault]) -> None:
        """Create indexes and triggers as a new database has them."""
        with self._transaction():
            self._create(faults)

    def raise_last_change(self) -> None:
        """Bring the counter up to what is in use. Outside the transaction's own counters, which it would undo."""
        with self._damaged():
            self._connection.execute(_RAISE_LAST_CHANGE)

    def recount(self, batch_rows: Sequence[int]) -> None:
        """Count batches anew; a status that follows is audited as the roll-up's."""
        with self._transaction() as transaction:
            found = transaction.read(statements.READ_BATCHES_BY_ROW, rows=list(batch_rows))
            write_batches(transaction, [(row, self._counted(row)) for row in found])

    def _counted(self, row: BatchRow) -> Batch:
        """Return a batch as its files say; a status only ever goes on to the one that follows."""
        files = dict(self._connection.rows(_COUNT_FILES, {"batch_row": row.row}))
        counted = replace(
            row.batch,
            completed_files=files.get(FileStatus.COMPLETED, 0),
            failed_files=files.get(FileStatus.FAILED, 0),
            cancelled_files_count=files.get(FileStatus.CANCELLED, 0),
        )
        if sum(files.values()) != counted.total_files:
            return counted
        return rolled_up(counted, datetime.now(UTC), started=FileStatus.UPLOADING in files)

    def forget_debts(self, rows: Sequence[int]) -> None:
        """Delete the deletions owed for these rows of files."""
        with self._transaction() as transaction:
            transaction.write(statements.SETTLE_DELETIONS, rows=list(rows))

    def adopt(self, owner: str, *, batch_id: str = "", file_id: str = "") -> Adopted:
        """Give an owner what has none. No row changes its number: that is its newest audit event's."""
        with self._damaged():
            self._connection.execute("BEGIN")
            try:
                adopted = self._adopt(owner, batch_id, file_id)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        return adopted

    def _adopt(self, owner: str, batch_id: str, file_id: str) -> Adopted:
        values: dict[str, Any] = {"owner": owner}
        kind = "all"
        if batch_id:
            kind, values["row"] = "batch", self._without_owner("batch", _FIND_BATCH, batch_id)
        elif file_id:
            kind, values["row"] = "file", self._without_owner("file", _FIND_FILE, file_id)
        # Answers first: they are known by rows that have no owner yet.
        changed = (self._connection.execute(sql, dict(values)) if sql else 0 for sql in _ADOPT[kind])
        answers, files, batches = changed
        return Adopted(files, batches, answers)

    def _without_owner(self, what: str, sql: Sql, public_id: str) -> int:
        found = self._connection.rows(sql, {"id": public_id})
        if not found:
            raise CannotAdopt(f"there is no {what} {public_id}")
        row, owner, batch_id = found[0]
        if owner:
            raise CannotAdopt(f"{what} {public_id} belongs to {owner} already")
        if batch_id:
            raise CannotAdopt(
                f"file {public_id} is one of batch {batch_id}, which has one owner for all: --batch {batch_id}"
            )
        return int(row)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
