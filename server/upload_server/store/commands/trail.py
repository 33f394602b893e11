"""Decides what a change of status leaves behind: its audit event, and what follows for the file's batch.

Must not know what made the change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from upload_server.domain.caller import Caller
from upload_server.domain.states import AuditEvent, Batch, BatchStatus, FileStatus, Source, rolled_up
from upload_server.store.commands import statements
from upload_server.store.commands.statements import BatchRow, EventRow
from upload_server.store.commands.transaction import Transaction
from upload_server.store.values import Command

_ROLL_UP = Caller(Source.ROLL_UP)


def make_event(
    command: Command,
    number: int,
    from_status: str,
    to_status: FileStatus | BatchStatus,
    *,
    file_id: str = "",
    batch_id: str = "",
    filename: str = "",
) -> AuditEvent:
    """Make the audit event of a change that ``command`` makes; ``from_status`` is empty for a creation."""
    return AuditEvent(
        event_id=number,
        file_id=file_id,
        batch_id=batch_id,
        from_status=from_status,
        to_status=to_status.value,
        actor=command.caller.actor,
        source=command.caller.source.value,
        reason=command.reason,
        request_id=command.request_id,
        occurred_at=command.at,
        credential=command.caller.credential,
        peer=command.caller.peer,
        filename=filename,
    )


def values_of(command: Command, source: Source) -> dict[str, object]:
    """Return what all events of a batch call have, for the statements that write them."""
    return {
        "actor": command.caller.actor,
        "source": source.value,
        "reason": command.reason,
        "request_id": command.request_id,
        "at": command.at,
        "credential": command.caller.credential,
        "peer": command.caller.peer,
    }


def write_events(transaction: Transaction, rows: Sequence[EventRow]) -> None:
    """Insert audit events; their ids are change numbers of this transaction."""
    if not rows:
        return
    events = [
        (
            event.event_id,
            file_row,
            batch_row,
            event.from_status,
            event.to_status,
            event.actor,
            event.source,
            event.reason,
            event.request_id,
            event.occurred_at,
            event.credential,
            event.peer,
            "" if event.from_status else event.filename,
        )
        for event, file_row, batch_row in rows
    ]
    transaction.write_exactly(len(events), statements.INSERT_EVENTS, events=events)


def read_batches(transaction: Transaction, rows: Iterable[int]) -> list[BatchRow]:
    """Read batches by row, as the transaction leaves them."""
    known, wanted = transaction.batches, list(rows)
    missing = [row for row in wanted if row not in known]
    if missing:
        known.update((found.row, found) for found in transaction.read(statements.READ_BATCHES_BY_ROW, rows=missing))
    return [known[row] for row in wanted]


def follow_up(transaction: Transaction, changed: Iterable[EventRow]) -> dict[int | None, AuditEvent]:
    """Bring the batches of changed files up to date; returns by row the audit event of each that changes its status.

    Called after the files were numbered: watchers rely on a batch coming after its files.
    """
    by_batch: dict[int, list[AuditEvent]] = {}
    for event, _, batch_row in changed:
        if batch_row is not None:
            by_batch.setdefault(batch_row, []).append(event)
    if not by_batch:
        return {}
    before = read_batches(transaction, by_batch)
    return write_batches(transaction, [(row, _counted(row.batch, by_batch[row.row])) for row in before])


def _counted(batch: Batch, events: Sequence[AuditEvent]) -> Batch:
    """Return the batch with its files' changes counted, in the status that follows."""
    files = Counter(event.to_status for event in events)
    counted = replace(
        batch,
        completed_files=batch.completed_files + files[FileStatus.COMPLETED],
        failed_files=batch.failed_files + files[FileStatus.FAILED],
        cancelled_files_count=batch.cancelled_files_count + files[FileStatus.CANCELLED],
    )
    return rolled_up(counted, events[-1].occurred_at, started=FileStatus.UPLOADING in files)


def write_batches(transaction: Transaction, changes: Iterable[tuple[BatchRow, Batch]]) -> dict[int | None, AuditEvent]:
    """Write batches as they became, numbered; returns by row the audit events of those that changed their status."""
    batches: list[tuple[object, ...]] = []
    rows: list[EventRow] = []
    for before, counted in changes:
        if counted == before.batch:
            continue
        after = replace(counted, revision=counted.revision + 1, change_no=transaction.number())
        transaction.batches[before.row] = BatchRow(before.row, after)
        batches.append(_columns(before, after))
        if after.status is not before.batch.status:
            command = Command(_ROLL_UP, "", after.updated_at)
            event = make_event(
                command, after.change_no, before.batch.status.value, after.status, batch_id=after.batch_id
            )
            rows.append(EventRow(event, None, before.row))
    write_events(transaction, rows)
    if batches:
        transaction.write_exactly(len(batches), statements.WRITE_BATCHES, batches=batches)
    return {row.batch_row: row.event for row in rows}


def _columns(before: BatchRow, after: Batch) -> tuple[object, ...]:
    return (
        before.row,
        before.batch.status,
        after.status,
        after.completed_files,
        after.failed_files,
        after.cancelled_files_count,
        after.updated_at,
        after.cancelled_at,
        after.cancelled_by,
        after.revision,
        after.change_no,
    )
