"""Decides how a stopped database is mended: only by what follows from what is there, and never a final state.

Must not know how faults are found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from upload_server.domain.states import ALL_FILES, Batch, BatchStatus, FileStatus, roll_up
from upload_server.store.commands.trail import Entry, batch_columns, roll_up_event, write_entries
from upload_server.store.inspection import SchemaFault
from upload_server.store.options import StoreOptions
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.connection import DATABASE_ERRORS, connect
from upload_server.store.sqlite.inspecting import as_damaged
from upload_server.store.sqlite.rows import batch_row_of, to_json
from upload_server.store.sqlite.schema import new_schema
from upload_server.store.sqlite.transaction import Inconsistent, Transaction

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
    def _transaction(self) -> Iterator[Transaction]:
        with as_damaged(Inconsistent, ValueError, KeyError):
            transaction = Transaction.begin(self._connection)
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
            found = transaction.read(statements.READ_BATCHES_BY_ROW, rows=to_json(list(batch_rows)))
            for old in map(batch_row_of, found):
                rows = transaction.read(_COUNT_FILES, batch_row=old.row)
                new = _counted(old.batch, {FileStatus(status): count for status, count in rows})
                if new == old.batch:
                    continue
                new = replace(new, revision=new.revision + 1, change_no=transaction.number())
                if new.status is not old.batch.status:
                    write_entries(transaction, (Entry(roll_up_event(old.batch, new), None, old.row),))
                transaction.write_exactly(1, statements.WRITE_BATCHES, batches=to_json([batch_columns(old, new)]))

    def forget_debts(self, rows: Sequence[int]) -> None:
        """Delete rows of deletions owed."""
        with self._transaction() as transaction:
            transaction.write(statements.SETTLE_DELETIONS, rows=to_json(list(rows)))

    def close(self) -> None:
        """Bring the log into the file, as the service does, and close."""
        with contextlib.suppress(*DATABASE_ERRORS):
            self._connection.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()


def _counted(batch: Batch, files: dict[FileStatus, int]) -> Batch:
    """The batch as its files say; a status only ever goes on to the one that follows."""
    counted = replace(
        batch,
        completed_files=files.get(FileStatus.COMPLETED, 0),
        failed_files=files.get(FileStatus.FAILED, 0),
        cancelled_files_count=files.get(FileStatus.CANCELLED, 0),
    )
    if batch.status.final or sum(files.values()) != batch.total_files:
        return counted
    status = roll_up(batch.total_files, counted.completed_files, counted.failed_files, counted.cancelled_files_count)
    if status is None:
        started = files.get(FileStatus.UPLOADING, 0) or counted.completed_files
        status = BatchStatus.PROCESSING if started else batch.status
    if status is batch.status:
        return counted
    now = datetime.now(UTC)
    if status is BatchStatus.CANCELLED:
        counted = replace(counted, cancelled_at=now, cancelled_by=ALL_FILES)
    return replace(counted, status=status, updated_at=now)
