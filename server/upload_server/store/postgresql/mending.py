"""Decides how a stopped database is mended: only by what follows from what is there, and never a final state.

Must not know how faults are found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from upload_server.domain.states import Batch, FileStatus, rolled_up
from upload_server.store.commands import statements
from upload_server.store.commands.statements import BatchRow
from upload_server.store.commands.trail import write_batches
from upload_server.store.commands.transaction import Inconsistent
from upload_server.store.inspection import SchemaFault
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address, connect
from upload_server.store.postgresql.inspecting import as_damaged
from upload_server.store.postgresql.schema import new_schema
from upload_server.store.postgresql.transaction import PostgresqlTransaction
from upload_server.store.sql.dialect import Sql

_RAISE_LAST_CHANGE = """
    UPDATE store_info SET last_change = greatest(last_change, (SELECT max(change_no) FROM file),
        (SELECT max(change_no) FROM batch), (SELECT max(change_no) FROM audit_event))"""
_COUNT_FILES = Sql("SELECT status, count(*) FROM file WHERE batch_row = :batch_row GROUP BY status")


class PostgresqlMending:
    """Mends one database, which the caller has locked."""

    def __init__(self, address: Address) -> None:
        """Open it for writing; raises ``Damaged``."""
        with as_damaged():
            self._connection = connect(address, StoreOptions(), writes=True, bounded=False)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[PostgresqlTransaction]:
        with as_damaged(Inconsistent, ValueError, KeyError):
            transaction = PostgresqlTransaction(self._connection)
            try:
                yield transaction
                transaction.finish()
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def create(self, faults: Sequence[SchemaFault]) -> None:
        """Create indexes and triggers as a new database has them."""
        with self._transaction():
            made = new_schema(self._connection).objects
            for fault in faults:
                table, definition = made[fault.kind, fault.name]
                on = f' ON "{table}"' if fault.kind == "trigger" else ""
                self._connection.execute(f'DROP {fault.kind} IF EXISTS "{fault.name}"{on}')
                self._connection.execute(definition.replace("%", "%%"))

    def raise_last_change(self) -> None:
        """Bring the counter up to what is in use. Outside the transaction's own counters, which it would undo."""
        with as_damaged(Inconsistent, ValueError, KeyError):
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
        """Delete rows of deletions owed."""
        with self._transaction() as transaction:
            transaction.write(statements.SETTLE_DELETIONS, rows=list(rows))

    def close(self) -> None:
        """Close."""
        self._connection.close()
