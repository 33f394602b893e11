"""Decides how a stopped database is mended: only by what follows from what is there, and never a final state.

Must not know how faults are found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from upload_server.domain.states import Batch, FileStatus, rolled_up
from upload_server.store.commands import statements
from upload_server.store.commands.statements import BatchRow
from upload_server.store.commands.trail import write_batches
from upload_server.store.commands.transaction import Inconsistent
from upload_server.store.inspection import SchemaFault
from upload_server.store.options import StoreOptions
from upload_server.store.sqlite.connection import SqliteConnection, connect
from upload_server.store.sqlite.inspecting import as_damaged
from upload_server.store.sqlite.schema import new_schema
from upload_server.store.sqlite.transaction import SqliteTransaction

_RAISE_LAST_CHANGE = """
    UPDATE store_info SET last_change = max(last_change, coalesce((SELECT max(change_no) FROM file), 0),
        coalesce((SELECT max(change_no) FROM batch), 0), coalesce((SELECT max(change_no) FROM audit_event), 0))"""
_COUNT_FILES = "SELECT status, count(*) FROM file WHERE batch_row = :batch_row GROUP BY status"


class SqliteMending:
    """Mends one SQLite file, which the caller has locked."""

    def __init__(self, path: Path) -> None:
        """Open it for writing; raises ``Damaged``."""
        with as_damaged(Inconsistent, ValueError, KeyError):
            self._connection = connect(path, StoreOptions(), writes=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[SqliteTransaction]:
        with as_damaged(Inconsistent, ValueError, KeyError):
            transaction = SqliteTransaction(self._connection)
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
        made = new_schema()[0]
        with self._transaction():
            for fault in faults:
                self._connection.execute(f'DROP {fault.kind} IF EXISTS "{fault.name}"')
                self._connection.execute(made[fault.kind, fault.name])

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
        """Bring the log into the file, as the service does, and close."""
        with contextlib.suppress(*SqliteConnection.errors):
            self._connection.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
