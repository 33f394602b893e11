"""Decides how files and batches are cancelled: conditionally, with everything that follows, in one transaction.

Must not know senders or watchers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from upload_server.domain.errors import (
    BatchNotCancellable,
    BatchNotFound,
    FileNotCancellable,
    FileNotFound,
    RequestIdReused,
    WriterReplaced,
)
from upload_server.domain.states import (
    AuditEvent,
    BatchStatus,
    CancelledBatch,
    CancelledFile,
    File,
    FileStatus,
    Source,
    sources_of,
)
from upload_server.domain.states import cancelled as cancelled_file
from upload_server.store.commands import statements
from upload_server.store.commands.answers import Answers, keys_of
from upload_server.store.commands.files import read_files
from upload_server.store.commands.statements import BatchRow, EventRow, FileToCancel
from upload_server.store.commands.trail import follow_up, make_event, values_of, write_events
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Outcome, Wants, Write
from upload_server.store.values import Audited, Command, Result

_MAY_CANCEL = sources_of(FileStatus.CANCELLED)
# Characters of a reason that finds room on any disk.
_SHORT_REASON = 128


@dataclass(frozen=True, slots=True)
class CancelFile(Write[Result[CancelledFile]]):
    """Cancel one file; those of a group are cancelled by one set of statements."""

    file_id: str
    command: Command
    fence: int | None = None
    urgent: ClassVar[bool] = True
    by_sets: ClassVar[bool] = True

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(keys_of(self.command), (self.file_id,))

    @classmethod
    def run_all(cls, transaction: Transaction, writes: Sequence[CancelFile]) -> list[Outcome]:
        """Cancel the files: the first command for a file wins, the others are refused with the state it left."""
        answers = Answers(transaction, [write.command for write in writes])
        file_ids = list(dict.fromkeys(write.file_id for write in writes))
        files = {file.file_id: file for file in transaction.read(statements.READ_TO_CANCEL, file_ids=file_ids)}
        cancelled: dict[str, CancelledFile] = {}
        decisions: list[Outcome] = []
        for write in writes:
            decision = _decide(transaction, write, files.get(write.file_id), answers, cancelled)
            if isinstance(decision, EventRow):
                cancelled[write.file_id] = CancelledFile(write.file_id, files[write.file_id].filename, write.command.at)
                if write.command.request_id:
                    answers.keep(write.command, cancelled[write.file_id])
            decisions.append(decision)
        rows = [decision for decision in decisions if isinstance(decision, EventRow)]
        refused = {write.file_id for write, decision in zip(writes, decisions, strict=True) if decision is None}
        final = _read_final(transaction, refused, rows) if refused else {}
        batch_events: dict[int | None, AuditEvent] = {}
        if rows:
            write_events(transaction, rows)
            touched = any(files[row.event.file_id].touched for row in rows)
            _cancel_audited(transaction, rows[0].event.event_id, rows[-1].event.event_id, touched=touched)
            batch_events = follow_up(transaction, rows)
            answers.write()
        outcomes: list[Outcome] = []
        for write, decision in zip(writes, decisions, strict=True):
            if isinstance(decision, EventRow):
                # The first that touched a batch also carries that batch's event.
                batch_event = batch_events.pop(decision.batch_row, None)
                events = (decision.event,) if batch_event is None else (decision.event, batch_event)
                outcomes.append(Result(cancelled[write.file_id], Audited(events)))
            else:
                outcomes.append(FileNotCancellable(final[write.file_id]) if decision is None else decision)
        return outcomes


def _read_final(transaction: Transaction, file_ids: Iterable[str], rows: Iterable[EventRow]) -> dict[str, File]:
    """Read files that were final, or that another cancel of the group is about to make so."""
    files = {file_id: row.file for file_id, row in read_files(transaction, file_ids).items()}
    for event, _, _ in rows:
        if event.file_id in files:
            files[event.file_id] = cancelled_file(files[event.file_id], event)
    return files


def _decide(
    transaction: Transaction,
    write: CancelFile,
    file: FileToCancel | None,
    answers: Answers,
    cancelled: Mapping[str, CancelledFile],
) -> Outcome:
    """Return the audit event of a cancel to be written, None when the file is final, else the outcome."""
    try:
        answer = answers.replay(write.command) if write.command.request_id else None
    except RequestIdReused as refusal:
        return refusal
    if answer is not None:
        return Result(answer, replayed=True)
    if file is None or not write.command.caller.does_see(file.owner):
        return FileNotFound(write.file_id)
    if file.status not in _MAY_CANCEL or write.file_id in cancelled:
        return None
    if write.fence is not None and file.fence != write.fence:
        return WriterReplaced(write.file_id)
    number = transaction.number()
    event = make_event(
        _fitted(transaction, write.command, 1),
        number,
        file.status,
        FileStatus.CANCELLED,
        file_id=write.file_id,
        batch_id=file.batch_id,
        filename=file.filename,
    )
    return EventRow(event, file.row, file.batch_row)


def _fitted(transaction: Transaction, command: Command, files: int) -> Command:
    """Return the command of a cancel, its reason cut short on a full disk: the cancel matters more than its reason."""
    if len(command.reason) <= _SHORT_REASON:
        return command
    return command._replace(reason=transaction.fit(command.reason, files))


def _cancel_audited(transaction: Transaction, first: int, last: int, *, touched: bool = True) -> None:
    """Cancel the files whose audit events are ``first`` to ``last``: the same statements for one or 10,000.

    Not ``touched``: no stream ever touched any of them, so nothing is owed.
    """
    if touched:
        transaction.write(statements.OWE_DELETIONS, first=first, last=last)
        if transaction.node_id:
            transaction.write(statements.STOP_STREAMS, first=first, last=last, node=transaction.node_id)
    transaction.write_exactly(last - first + 1, statements.CANCEL_FILES, first=first, last=last)


@dataclass(frozen=True, slots=True)
class CancelBatch(Write[Result[CancelledBatch]]):
    """Cancel a batch and every file of it that is not final."""

    batch_id: str
    command: Command
    urgent: ClassVar[bool] = True
    long: ClassVar[bool] = True

    @property
    def wants(self) -> Wants:
        """The batch with its files."""
        return Wants(keys_of(self.command), batch_ids=(self.batch_id,))

    def run(self, transaction: Transaction) -> Result[CancelledBatch]:
        """Cancel them; the batch gets its number after its files."""
        answers = Answers(transaction, (self.command,))
        answer = answers.replay(self.command)
        if answer is not None:
            return Result(answer, replayed=True)
        before = self._find(transaction)
        command = _fitted(transaction, self.command, before.batch.total_files)
        # Counted, not told by the batch's counters: a cancel holds also where those of an older program are wrong.
        [(count,)] = transaction.read(statements.COUNT_OPEN_OF_BATCH, batch_row=before.row)
        first = self._cancel_files(transaction, before.row, count, command) if count else 0
        change_no = transaction.number()
        transaction.write_exactly(
            1,
            statements.CANCEL_BATCH,
            batch_row=before.row,
            count=count,
            at=command.at,
            cancelled_by=command.caller.cancelled_by,
            reason=command.reason,
            change_no=change_no,
        )
        event = make_event(command, change_no, before.batch.status.value, BatchStatus.CANCELLED, batch_id=self.batch_id)
        write_events(transaction, (EventRow(event, None, before.row),))
        answer = CancelledBatch(self.batch_id, count, before.batch.total_files, command.at)
        answers.keep(command, answer)
        answers.write()
        audited = Audited((event,), count, first, first + count - 1) if count else Audited((event,))
        return Result(answer, audited)

    def _find(self, transaction: Transaction) -> BatchRow:
        found = transaction.read(statements.READ_BATCH, batch_id=self.batch_id)
        if not found or not self.command.caller.does_see(found[0].batch.owner):
            raise BatchNotFound(self.batch_id)
        if found[0].batch.status.final:
            raise BatchNotCancellable(found[0].batch)
        return found[0]

    def _cancel_files(self, transaction: Transaction, batch_row: int, count: int, command: Command) -> int:
        """Cancel the files that are not final, ``count`` of them; returns the number of the first."""
        first = transaction.number(count)
        transaction.write_exactly(
            count,
            statements.INSERT_EVENTS_OF_CANCELLED_BATCH,
            first=first,
            batch_row=batch_row,
            **values_of(command, Source.BATCH_CANCEL),
        )
        _cancel_audited(transaction, first, first + count - 1)
        return first
