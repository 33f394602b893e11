"""Decides how a stopped database is mended: only by what follows from what is there, and never a final state.

Must not know how faults are found.
"""

# ruff: noqa: S608 - put together from words of dialects

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

from upload_server.domain.states import Batch, FileStatus, rolled_up
from upload_server.store.commands import statements
from upload_server.store.commands.statements import BatchRow
from upload_server.store.commands.trail import write_batches
from upload_server.store.commands.transaction import Inconsistent
from upload_server.store.inspection import SchemaFault
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

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
