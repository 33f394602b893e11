"""Decides how files and batches come into being: pending, numbered, audited.

Must not know what makes an announcement acceptable: it was checked before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from upload_server.domain.states import AuditEvent, Batch, BatchStatus, File, FileSpec, FileStatus
from upload_server.store.commands.answers import Answers
from upload_server.store.commands.files import Who, read_file
from upload_server.store.commands.trail import Entry, write_entries
from upload_server.store.commands.writes import Write
from upload_server.store.protocol import Audited, Command, Result
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.rows import batch_row_of, time_text, to_json
from upload_server.store.sqlite.transaction import Transaction

InitiatedBatch = tuple[Batch, tuple[str, ...]]


def _insert_files(
    transaction: Transaction,
    specs: Sequence[FileSpec],
    file_ids: Sequence[str],
    batch: tuple[str, int] | None,
    command: Command,
) -> int:
    """Insert pending files in the order given; returns the number of the first."""
    first = transaction.number(len(specs))
    rows = [
        (file_id, spec.filename, spec.content_type, spec.size_bytes, spec.sha256)
        for file_id, spec in zip(file_ids, specs, strict=True)
    ]
    transaction.write_exactly(
        len(rows),
        statements.INSERT_FILES,
        files=to_json(rows),
        batch_id=None if batch is None else batch[0],
        batch_row=None if batch is None else batch[1],
        at=time_text(command.at),
        owner=command.caller.principal,
        first=first,
    )
    return first


def _creation(command: Command, change_no: int, file_id: str, batch_id: str) -> AuditEvent:
    who = Who.of(command)
    return AuditEvent(
        event_id=change_no,
        file_id=file_id,
        batch_id=batch_id,
        from_status="",
        to_status=FileStatus.PENDING.value,
        actor=who.actor,
        source=who.source,
        reason=who.reason,
        request_id=who.request_id,
        occurred_at=command.at,
    )


@dataclass(frozen=True, slots=True)
class InitiateUpload(Write[Result[File]]):
    """Announce one file that stands alone."""

    spec: FileSpec
    file_id: str
    command: Command

    def run(self, transaction: Transaction) -> Result[File]:
        """Insert it, or return the file of the first call with this request id as it is now."""
        answers = Answers(transaction, (self.command,))
        stored = answers.replay(self.command)
        if stored is not None:
            found = read_file(transaction, stored, self.command.caller)
            return Result(found.file, replayed=True)
        change_no = _insert_files(transaction, (self.spec,), (self.file_id,), None, self.command)
        inserted = read_file(transaction, self.file_id, self.command.caller)
        event = _creation(self.command, change_no, self.file_id, "")
        write_entries(transaction, (Entry(event, inserted.row, None),))
        answers.keep(self.command, self.file_id)
        answers.write()
        return Result(inserted.file, Audited((event,)))


@dataclass(frozen=True, slots=True)
class InitiateBatch(Write[Result[InitiatedBatch]]):
    """Announce files that belong together."""

    specs: Sequence[FileSpec]
    batch_id: str
    file_ids: Sequence[str]
    command: Command
    small_batch_files: int

    @property
    def alone(self) -> bool:
        """Whether it has many files."""
        return len(self.specs) > self.small_batch_files

    def run(self, transaction: Transaction) -> Result[InitiatedBatch]:
        """Insert them, or return the ids of the first call with this request id with the current state."""
        answers = Answers(transaction, (self.command,))
        stored = answers.replay(self.command)
        if stored is not None:
            return Result(_current(transaction, stored), replayed=True)
        count = len(self.specs)
        # A batch is numbered after its files.
        batch_no = transaction.last_change + count + 1
        row = self._insert_batch(transaction, batch_no)
        first = _insert_files(transaction, self.specs, self.file_ids, (self.batch_id, row), self.command)
        transaction.number()
        self._audit_files(transaction, row)
        event = _creation(self.command, batch_no, "", self.batch_id)
        write_entries(transaction, (Entry(event, None, row),))
        answers.keep(self.command, self.batch_id)
        answers.write()
        batch = self._batch(batch_no, self.command.at)
        audited = Audited((event,), count, first, first + count - 1)
        return Result((batch, tuple(self.file_ids)), audited)

    def _insert_batch(self, transaction: Transaction, change_no: int) -> int:
        rows = transaction.write_returning(
            statements.INSERT_BATCH,
            batch_id=self.batch_id,
            total_files=len(self.specs),
            at=time_text(self.command.at),
            owner=self.command.caller.principal,
            change_no=change_no,
        )
        return int(rows[0][0])

    def _audit_files(self, transaction: Transaction, batch_row: int) -> None:
        who = Who.of(self.command)
        transaction.write_exactly(
            len(self.specs),
            statements.INSERT_EVENTS_OF_NEW_BATCH,
            batch_row=batch_row,
            actor=who.actor,
            source=who.source,
            reason=who.reason,
            request_id=who.request_id,
            at=time_text(self.command.at),
        )

    def _batch(self, change_no: int, at: datetime) -> Batch:
        return Batch(
            batch_id=self.batch_id,
            status=BatchStatus.PENDING,
            owner=self.command.caller.principal,
            total_files=len(self.specs),
            completed_files=0,
            failed_files=0,
            cancelled_files_count=0,
            created_at=at,
            updated_at=at,
            cancelled_at=None,
            cancelled_by="",
            cancel_reason="",
            revision=1,
            change_no=change_no,
        )


def _current(transaction: Transaction, batch_id: str) -> InitiatedBatch:
    """Read a batch and its files' ids in the order they were announced."""
    found = batch_row_of(transaction.read(statements.READ_BATCH, batch_id=batch_id)[0])
    ids = transaction.read(statements.READ_IDS_OF_BATCH, batch_row=found.row)
    return found.batch, tuple(row[0] for row in ids)
