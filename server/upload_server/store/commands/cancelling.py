"""Decides how files and batches are cancelled: conditionally, with everything that follows, in one transaction.

Must not know who has to hear of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from upload_server.domain.errors import (
    BatchNotCancellable,
    BatchNotFound,
    FileNotCancellable,
    FileNotFound,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.states import AuditEvent, Batch, CancelledBatch, CancelledFile, FileStatus, Source
from upload_server.store.commands.answers import Answers
from upload_server.store.commands.files import Who, read_files
from upload_server.store.commands.trail import Entry, Move, follow_up, write_entries
from upload_server.store.commands.writes import Outcome, Write
from upload_server.store.protocol import Audited, Command, Result
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.rows import FileRow, batch_row_of, time_of, time_text, to_json
from upload_server.store.sqlite.transaction import Transaction


@dataclass(frozen=True, slots=True)
class CancelFile(Write[Result[CancelledFile]]):
    """Cancel one file; those of a group are cancelled by one set of statements."""

    file_id: str
    command: Command
    fence: int | None = None
    urgent: ClassVar[bool] = True

    def run(self, transaction: Transaction) -> Result[CancelledFile]:
        """Cancel the file."""
        outcome = self.run_all(transaction, (self,))[0]
        if isinstance(outcome, UploadError):
            raise outcome
        result: Result[CancelledFile] = outcome
        return result

    @classmethod
    def run_all(cls, transaction: Transaction, writes: Sequence[CancelFile]) -> list[Outcome]:
        """Cancel the files: the first command for a file wins, the rest are told of the state it left."""
        group = _Group(transaction, writes)
        decisions = [group.decide(write) for write in writes]
        batch_events = group.write()
        files = read_files(transaction, late) if (late := group.late(decisions)) else {}
        return [group.result(decision, batch_events, files) for decision in decisions]


class _Found(NamedTuple):
    """What ``READ_TO_CANCEL`` says of a file."""

    row: int
    batch_row: int | None
    file_id: str
    filename: str
    batch_id: str
    status: str
    owner: str
    fence: int
    may_cancel: int
    # Whether a stream ever touched it, so that bytes of it may lie somewhere.
    touched: int


@dataclass(frozen=True, slots=True)
class _Cancelled:
    """A command that won: what it wrote, and its answer."""

    entry: Entry
    answer: CancelledFile


@dataclass(frozen=True, slots=True)
class _TooLate:
    """A command that found the file final, or lost to another of its group."""

    file_id: str


class _Group:
    """Cancels that share a transaction: decided one after the other in memory, then written together.

    Those that come too late are told what is read after the write, also when they lost to another of the group.
    """

    def __init__(self, transaction: Transaction, writes: Sequence[CancelFile]) -> None:
        self._transaction = transaction
        self._answers = Answers(transaction, (write.command for write in writes))
        file_ids = to_json(list(dict.fromkeys(write.file_id for write in writes)))
        rows = transaction.read(statements.READ_TO_CANCEL, file_ids=file_ids)
        self._files = {found.file_id: found for found in map(_Found._make, rows)}
        self._won: set[str] = set()
        self._entries: list[Entry] = []
        self._moves: list[Move] = []
        self._touched = False

    def decide(self, write: CancelFile) -> _Cancelled | _TooLate | Outcome:
        """Return the cancel to be written, or the answer of a command that changes nothing."""
        try:
            stored = self._answers.replay(write.command)
            if stored is not None:
                return Result(_file_answer(stored), replayed=True)
        except UploadError as refusal:
            return refusal
        found = self._files.get(write.file_id)
        if found is None or found.owner != write.command.caller.principal:
            return FileNotFound(write.file_id)
        if not found.may_cancel or found.file_id in self._won:
            return _TooLate(found.file_id)
        if write.fence is not None and found.fence != write.fence:
            return WriterReplaced(write.file_id)
        return self._cancel(write.command, found)

    def _cancel(self, command: Command, found: _Found) -> _Cancelled:
        event = AuditEvent(
            event_id=self._transaction.number(),
            file_id=found.file_id,
            batch_id=found.batch_id,
            from_status=found.status,
            to_status=FileStatus.CANCELLED.value,
            actor=command.caller.actor,
            source=command.caller.source.value,
            reason=command.reason,
            request_id=command.request_id,
            occurred_at=command.at,
        )
        entry = Entry(event, found.row, found.batch_row)
        self._won.add(found.file_id)
        self._entries.append(entry)
        if found.batch_row is not None:
            self._moves.append(Move(found.batch_row, FileStatus.CANCELLED, command.at))
        self._touched |= bool(found.touched)
        if command.request_id:
            self._answers.keep(command, to_json([found.file_id, found.filename, time_text(command.at)]))
        return _Cancelled(entry, CancelledFile(found.file_id, found.filename, command.at))

    def write(self) -> dict[int, AuditEvent]:
        """Write every cancel that was decided; returns the audit events of batches by row."""
        if not self._entries:
            return {}
        write_entries(self._transaction, self._entries)
        first, last = self._entries[0].event.event_id, self._entries[-1].event.event_id
        _cancel_audited(self._transaction, first, last, touched=self._touched)
        self._answers.write()
        return follow_up(self._transaction, self._moves)

    def late(self, decisions: Iterable[_Cancelled | _TooLate | Outcome]) -> Sequence[str]:
        """Return the files whose state has to be told to those that came too late."""
        return list({decision.file_id for decision in decisions if isinstance(decision, _TooLate)})

    def result(
        self,
        decision: _Cancelled | _TooLate | Outcome,
        batch_events: dict[int, AuditEvent],
        files: Mapping[str, FileRow],
    ) -> Outcome:
        """Return a command's answer; the first that touched a batch also carries that batch's event."""
        if isinstance(decision, _TooLate):
            return FileNotCancellable(files[decision.file_id].file)
        if not isinstance(decision, _Cancelled):
            return decision
        events = (decision.entry.event,)
        batch_event = batch_events.pop(decision.entry.batch_row or 0, None)
        return Result(decision.answer, Audited(events if batch_event is None else (*events, batch_event)))


def _cancel_audited(transaction: Transaction, first: int, last: int, *, touched: bool = True) -> None:
    """Cancel the files whose audit events are ``first`` to ``last``: the same statements for one or 10,000.

    Not ``touched``: no stream ever touched any of them, so nothing is owed.
    """
    if touched:
        transaction.write(statements.OWE_DELETIONS, first=first, last=last)
    transaction.write_exactly(last - first + 1, statements.CANCEL_FILES, first=first, last=last)


def _file_answer(stored: str) -> CancelledFile:
    file_id, filename, cancelled_at = json.loads(stored)
    return CancelledFile(file_id, filename, time_of(cancelled_at))


@dataclass(frozen=True, slots=True)
class CancelBatch(Write[Result[CancelledBatch]]):
    """Cancel a batch and every file of it that is not final."""

    batch_id: str
    command: Command
    urgent: ClassVar[bool] = True

    @property
    def alone(self) -> bool:
        """How many files it has is not known before it runs."""
        return True

    def run(self, transaction: Transaction) -> Result[CancelledBatch]:
        """Cancel them; the batch gets its number after its files."""
        answers = Answers(transaction, (self.command,))
        stored = answers.replay(self.command)
        if stored is not None:
            return Result(_batch_answer(stored), replayed=True)
        row, batch = self._find(transaction)
        first = transaction.last_change + 1
        count = self._cancel_files(transaction, row)
        change_no = transaction.number()
        transaction.write_exactly(
            1,
            statements.CANCEL_BATCH,
            batch_row=row,
            count=count,
            at=time_text(self.command.at),
            cancelled_by=self.command.caller.cancelled_by,
            reason=self.command.reason,
            change_no=change_no,
        )
        entry = self._entry(row, batch, change_no)
        write_entries(transaction, (entry,))
        answer = CancelledBatch(self.batch_id, count, batch.total_files, self.command.at)
        answers.keep(
            self.command,
            to_json([self.batch_id, count, batch.total_files, time_text(self.command.at)]),
        )
        answers.write()
        audited = Audited((entry.event,))
        if count:
            audited = Audited((entry.event,), count, first, first + count - 1)
        return Result(answer, audited)

    def _find(self, transaction: Transaction) -> tuple[int, Batch]:
        rows = transaction.read(statements.READ_BATCH, batch_id=self.batch_id)
        if not rows:
            raise BatchNotFound(self.batch_id)
        found = batch_row_of(rows[0])
        if found.batch.owner != self.command.caller.principal:
            raise BatchNotFound(self.batch_id)
        if found.batch.status.final:
            raise BatchNotCancellable(found.batch)
        return found.row, found.batch

    def _cancel_files(self, transaction: Transaction, batch_row: int) -> int:
        before = transaction.last_change
        count = transaction.write(
            statements.INSERT_EVENTS_OF_CANCELLED_BATCH,
            before=before,
            batch_row=batch_row,
            actor=self.command.caller.actor,
            source=Source.BATCH_CANCEL.value,
            reason=self.command.reason,
            request_id=self.command.request_id,
            at=time_text(self.command.at),
        )
        if count:
            transaction.number(count)
            _cancel_audited(transaction, before + 1, before + count)
        return count

    def _entry(self, row: int, batch: Batch, change_no: int) -> Entry:
        who = Who.of(self.command)
        event = AuditEvent(
            event_id=change_no,
            file_id="",
            batch_id=batch.batch_id,
            from_status=batch.status.value,
            to_status=FileStatus.CANCELLED.value,
            actor=who.actor,
            source=who.source,
            reason=who.reason,
            request_id=who.request_id,
            occurred_at=self.command.at,
        )
        return Entry(event, None, row)


def _batch_answer(stored: str) -> CancelledBatch:
    fields: list[Any] = json.loads(stored)
    return CancelledBatch(fields[0], fields[1], fields[2], time_of(fields[3]))
