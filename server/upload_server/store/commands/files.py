"""Decides how the writer finds the files it is asked to change, and how one file goes to its next state.

Must not know which call asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from upload_server.domain.errors import FileNotFound
from upload_server.domain.states import NEXT_FILE, AuditEvent, Caller, File, FileStatus
from upload_server.store.commands.trail import Entry, Move, follow_up, write_entries
from upload_server.store.protocol import Audited, Command
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.rows import FileRow, file_row_of, time_text, to_json
from upload_server.store.sqlite.transaction import Inconsistent, Transaction


def read_files(transaction: Transaction, file_ids: Iterable[str]) -> dict[str, FileRow]:
    """Read files by id, whoever owns them."""
    rows = transaction.read(statements.READ_FILES, file_ids=to_json(list(file_ids)))
    return {found.file.file_id: found for found in map(file_row_of, rows)}


def owned(found: FileRow | None, file_id: str, caller: Caller) -> FileRow:
    """Return what was found if it is the caller's to see; raises ``FileNotFound``."""
    if found is None or found.file.owner != caller.principal:
        raise FileNotFound(file_id)
    return found


def read_file(transaction: Transaction, file_id: str, caller: Caller) -> FileRow:
    """Read one file of the caller's; raises ``FileNotFound``."""
    return owned(read_files(transaction, (file_id,)).get(file_id), file_id, caller)


def moved(transaction: Transaction, file: File, status: FileStatus, at: datetime, **changes: Any) -> File:
    """Return the file as it will be in ``status``, with ``changes``: numbered, with its next revision."""
    if status not in NEXT_FILE[file.status]:
        raise Inconsistent(f"{file.status} cannot become {status}")
    revision, change_no = file.revision + 1, transaction.number()
    return replace(file, status=status, updated_at=at, revision=revision, change_no=change_no, **changes)


@dataclass(frozen=True, slots=True)
class Who:
    """What an audit event says of the one who made the change."""

    actor: str
    source: str
    reason: str
    request_id: str

    @classmethod
    def of(cls, command: Command) -> Who:
        """The command's caller, reason and request id."""
        return cls(command.caller.actor, command.caller.source.value, command.reason, command.request_id)


def file_entry(found: FileRow, after: File, who: Who) -> Entry:
    """Make the audit entry of one file's change from ``found`` to ``after``."""
    event = AuditEvent(
        event_id=after.change_no,
        file_id=after.file_id,
        batch_id=after.batch_id,
        from_status=found.file.status.value,
        to_status=after.status.value,
        actor=who.actor,
        source=who.source,
        reason=who.reason,
        request_id=who.request_id,
        occurred_at=after.updated_at,
    )
    return Entry(event, found.row, found.batch_row)


def write_file(transaction: Transaction, found: FileRow, after: File, active_at: datetime) -> None:
    """Write one file, on condition that it still is what was found."""
    transaction.write_exactly(
        1,
        statements.WRITE_FILE,
        row=found.row,
        old_status=found.file.status.value,
        old_fence=found.file.fence,
        status=after.status.value,
        bytes_received=after.bytes_received,
        sha256=after.sha256,
        updated_at=time_text(after.updated_at),
        completed_at=after.completed_at and time_text(after.completed_at),
        failure_reason=after.failure_reason,
        revision=after.revision,
        change_no=after.change_no,
        fence=after.fence,
        active_at=time_text(active_at),
    )


def change_status(transaction: Transaction, found: FileRow, after: File, who: Who, active_at: datetime) -> Audited:
    """Write one file in its new status with its audit event, and what follows for its batch."""
    entry = file_entry(found, after, who)
    write_entries(transaction, (entry,))
    write_file(transaction, found, after, active_at)
    batch_events = follow_up(transaction, (Move(found.batch_row, after.status, after.updated_at),))
    return Audited((entry.event, *batch_events.values()))
