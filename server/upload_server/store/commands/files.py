"""Decides how the writer finds the files it is asked to change, and how one file goes to its next state.

Must not know which call asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from upload_server.domain.caller import Caller
from upload_server.domain.errors import FileNotFound
from upload_server.domain.states import NEXT_FILE, File, FileStatus
from upload_server.store.commands import statements
from upload_server.store.commands.statements import EventRow, FileRow
from upload_server.store.commands.trail import follow_up, make_event, write_events
from upload_server.store.commands.transaction import Inconsistent, Transaction
from upload_server.store.values import Audited, Command, Result


def read_files(transaction: Transaction, file_ids: Iterable[str]) -> dict[str, FileRow]:
    """Read files by id, whoever owns them."""
    rows = transaction.read(statements.READ_FILES, file_ids=list(file_ids))
    return {row.file.file_id: row for row in rows}


def read_file(transaction: Transaction, file_id: str, caller: Caller) -> FileRow:
    """Read one file of the caller's; raises ``FileNotFound``."""
    row = read_files(transaction, (file_id,)).get(file_id)
    if row is None or not caller.does_see(row.file.owner):
        raise FileNotFound(file_id)
    return row


def next_state(transaction: Transaction, file: File, status: FileStatus, at: datetime, **changes: Any) -> File:
    """Return the file as it will be in ``status``, with ``changes``: numbered, with its next revision."""
    if status not in NEXT_FILE[file.status]:
        raise Inconsistent(f"{file.status} cannot become {status}")
    revision, change_no = file.revision + 1, transaction.number()
    return replace(file, status=status, updated_at=at, revision=revision, change_no=change_no, **changes)


def file_event(command: Command, before: FileRow, after: File) -> EventRow:
    """Make the audit event of one file's change of status."""
    event = make_event(
        command,
        after.change_no,
        before.file.status.value,
        after.status,
        file_id=after.file_id,
        batch_id=after.batch_id,
        filename=after.filename,
    )
    return EventRow(event, before.row, before.batch_row)


def write_file(transaction: Transaction, before: FileRow, after: File, active_at: datetime) -> None:
    """Write one file, on condition that it still is as it was ``before``."""
    transaction.write_exactly(
        1,
        statements.WRITE_FILE,
        row=before.row,
        old_status=before.file.status.value,
        old_fence=before.file.fence,
        status=after.status.value,
        bytes_received=after.bytes_received,
        sha256=after.sha256,
        updated_at=after.updated_at,
        completed_at=after.completed_at,
        failure_reason=after.failure_reason,
        revision=after.revision,
        change_no=after.change_no,
        fence=after.fence,
        run_fence=after.run_fence,
        active_at=active_at,
        active_served=transaction.served,
        # Of a node's stream that claims the file, else as it is.
        holder=(transaction.node_id or None) if after.fence > before.file.fence else None,
    )


def change_status(
    transaction: Transaction, before: FileRow, status: FileStatus, command: Command, **changes: Any
) -> Result[File]:
    """Write one file in its new status with its audit event, and what follows for its batch."""
    after = next_state(transaction, before.file, status, command.at, **changes)
    row = file_event(command, before, after)
    write_events(transaction, (row,))
    write_file(transaction, before, after, command.at)
    batch_events = follow_up(transaction, (row,))
    return Result(after, Audited((row.event, *batch_events.values())))
