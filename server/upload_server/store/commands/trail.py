"""Decides what a change of status leaves behind: its audit event, and what follows for the file's batch.

Must not know what made the change.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from upload_server.domain.states import ALL_FILES, SYSTEM, AuditEvent, Batch, BatchStatus, FileStatus, Source, roll_up
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.rows import BatchRow, batch_row_of, time_text, to_json
from upload_server.store.sqlite.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Entry:
    """An audit event with the rows it is about."""

    event: AuditEvent
    file_row: int | None
    batch_row: int | None


def write_entries(transaction: Transaction, entries: Sequence[Entry]) -> None:
    """Insert audit events; their ids are change numbers of this transaction."""
    if not entries:
        return
    rows = [
        (
            entry.event.event_id,
            entry.file_row,
            entry.batch_row,
            entry.event.from_status,
            entry.event.to_status,
            entry.event.actor,
            entry.event.source,
            entry.event.reason,
            entry.event.request_id,
            time_text(entry.event.occurred_at),
        )
        for entry in entries
    ]
    transaction.write_exactly(len(rows), statements.INSERT_EVENTS, events=to_json(rows))


@dataclass(frozen=True, slots=True)
class Move:
    """A file that has just changed its status, for its batch."""

    batch_row: int | None
    status: FileStatus
    at: datetime


@dataclass(slots=True)
class _Tally:
    """What the moves of one transaction mean to one batch."""

    at: datetime
    started: bool = False
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    def add(self, move: Move) -> None:
        self.at = move.at
        self.started |= move.status in (FileStatus.UPLOADING, FileStatus.COMPLETED)
        self.completed += move.status is FileStatus.COMPLETED
        self.failed += move.status is FileStatus.FAILED
        self.cancelled += move.status is FileStatus.CANCELLED

    def applied_to(self, batch: Batch) -> Batch:
        """The batch with these moves counted, and with the status that follows."""
        counted = replace(
            batch,
            completed_files=batch.completed_files + self.completed,
            failed_files=batch.failed_files + self.failed,
            cancelled_files_count=batch.cancelled_files_count + self.cancelled,
        )
        if batch.status.final:
            return counted
        status = roll_up(
            batch.total_files, counted.completed_files, counted.failed_files, counted.cancelled_files_count
        )
        if status is None:
            # A file that is cancelled or failed before it was ever sent to leaves the batch pending.
            status = BatchStatus.PROCESSING if self.started else batch.status
        if status is BatchStatus.CANCELLED:
            counted = replace(counted, cancelled_at=self.at, cancelled_by=ALL_FILES)
        return counted if status is batch.status else replace(counted, status=status, updated_at=self.at)


def follow_up(transaction: Transaction, moves: Iterable[Move]) -> dict[int, AuditEvent]:
    """Bring the moved files' batches up to date; returns the audit event of each batch whose status changed.

    Called after the files were numbered: watchers rely on a batch coming after its files.
    """
    tallies: dict[int, _Tally] = {}
    for move in moves:
        if move.batch_row is not None:
            tallies.setdefault(move.batch_row, _Tally(move.at)).add(move)
    if not tallies:
        return {}
    written: list[Sequence[object]] = []
    entries: dict[int, Entry] = {}
    found = transaction.read(statements.READ_BATCHES_BY_ROW, rows=to_json(list(tallies)))
    for old in map(batch_row_of, found):
        new = tallies[old.row].applied_to(old.batch)
        if new == old.batch:
            continue
        new = replace(new, revision=new.revision + 1, change_no=transaction.number())
        written.append(batch_columns(old, new))
        if new.status is not old.batch.status:
            entries[old.row] = Entry(roll_up_event(old.batch, new), None, old.row)
    write_entries(transaction, list(entries.values()))
    if written:
        transaction.write_exactly(len(written), statements.WRITE_BATCHES, batches=to_json(written))
    return {row: entry.event for row, entry in entries.items()}


def batch_columns(old: BatchRow, new: Batch) -> Sequence[object]:
    """Return what ``WRITE_BATCHES`` takes of a batch: where it came from, and what it becomes."""
    return (
        old.row,
        old.batch.status.value,
        new.status.value,
        new.completed_files,
        new.failed_files,
        new.cancelled_files_count,
        time_text(new.updated_at),
        new.cancelled_at and time_text(new.cancelled_at),
        new.cancelled_by,
        new.revision,
        new.change_no,
    )


def roll_up_event(old: Batch, new: Batch) -> AuditEvent:
    """Make the audit event of a batch whose status follows from its files."""
    return AuditEvent(
        event_id=new.change_no,
        file_id="",
        batch_id=new.batch_id,
        from_status=old.status.value,
        to_status=new.status.value,
        actor=SYSTEM,
        source=Source.ROLL_UP.value,
        reason="",
        request_id="",
        occurred_at=new.updated_at,
    )
