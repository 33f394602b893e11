"""Decides how a file gets its bytes recorded and comes to its end: claim, progress, complete, fail.

Must not know the sink. A writer's right to a file is the fence in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import ClassVar

from upload_server.domain.errors import (
    FileNotWritable,
    OffsetMismatch,
    UploadCancelled,
    UploadIncomplete,
    WriterReplaced,
)
from upload_server.domain.runs import Run, runs_of
from upload_server.domain.states import FailureReason, File, FileStatus
from upload_server.store.commands import statements
from upload_server.store.commands.files import change_status, read_file, write_file
from upload_server.store.commands.statements import FileRow
from upload_server.store.commands.trail import read_batches
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Outcome, Wants, Write
from upload_server.store.values import Claim, Command, Result


@dataclass(frozen=True, slots=True)
class ClaimFile(Write[Result[Claim]]):
    """Give the caller's stream the right to write a file; an older stream loses it."""

    file_id: str
    offset: int
    command: Command
    continues: int | None = None

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(file_ids=(self.file_id,))

    def run(self, transaction: Transaction) -> Result[Claim]:
        """Raise the fence; a pending file becomes uploading, a take-over is no change of status."""
        found = read_file(transaction, self.file_id, self.command.caller)
        file, fence = found.file, found.file.fence + 1
        if file.status.final or _batch_is_final(transaction, found):
            raise FileNotWritable(file)
        if self.offset != file.bytes_received:
            raise OffsetMismatch(self.file_id, self.offset, file.bytes_received)
        if file.status is FileStatus.UPLOADING:
            if transaction.node_id:
                transaction.write(statements.STOP_STREAM, row=found.row, node=transaction.node_id)
            run_fence = file.run_fence if file.run_fence == self.continues else fence
            taken_over = replace(file, fence=fence, run_fence=run_fence)
            write_file(transaction, found, taken_over, self.command.at)
            return Result(Claim(taken_over, found.expected_sha256, self._runs(transaction, found, run_fence)))
        changed = change_status(transaction, found, FileStatus.UPLOADING, self.command, fence=fence, run_fence=fence)
        return Result(Claim(changed.answer, found.expected_sha256, runs_of((), fence)), changed.audited)

    @staticmethod
    def _runs(transaction: Transaction, found: FileRow, newest: int) -> tuple[Run, ...]:
        """Return the file's runs; the one before ``newest``, if that is a new one, ends here."""
        before, end = found.file.run_fence, found.file.bytes_received
        # The first claim of all begins the first run.
        ended = transaction.read(statements.READ_RUNS, file_row=found.row) if newest > 1 else []
        if newest != before:
            transaction.write_exactly(1, statements.END_RUN, file_row=found.row, fence=before, upto=end)
            ended.append((before, end))
        return runs_of(ended, newest)


def _batch_is_final(transaction: Transaction, found: FileRow) -> bool:
    if found.batch_row is None:
        return False
    [batch] = read_batches(transaction, (found.batch_row,))
    return batch.batch.status.final


@dataclass(frozen=True, slots=True)
class RecordProgress(Write[bool]):
    """Record durable bytes of a file, as long as the fence holds; False when the right to write is lost."""

    file_id: str
    fence: int
    bytes_received: int
    at: datetime
    writer: str
    by_sets: ClassVar[bool] = True

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(uncounted=(self.file_id,))

    @classmethod
    def run_all(cls, transaction: Transaction, writes: Sequence[RecordProgress]) -> list[Outcome]:
        """Record the newest of each stream, all in one statement: an UPDATE takes each row once."""
        newest: dict[tuple[str, int], RecordProgress] = {}
        for write in writes:
            key = write.file_id, write.fence
            if key not in newest or newest[key].bytes_received <= write.bytes_received:
                newest[key] = write
        progress = [(*key, write.bytes_received, write.at, write.writer) for key, write in newest.items()]
        recorded = set(
            transaction.write_returning(statements.RECORD_PROGRESS, progress=progress, served=transaction.served)
        )
        return [(write.file_id, write.fence) in recorded for write in writes]


@dataclass(frozen=True, slots=True)
class CancelLater(Write[bool]):
    """Note when a file is to be cancelled whose page was lost; False when the fence or the status is another."""

    file_id: str
    fence: int
    due_at: datetime
    reason: str

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(uncounted=(self.file_id,))

    def run(self, transaction: Transaction) -> bool:
        """Note it in the row; a claim clears it."""
        values = {"file_id": self.file_id, "fence": self.fence, "due_at": self.due_at, "reason": self.reason}
        return transaction.write_counted(statements.CANCEL_LATER, **values) == 1


@dataclass(frozen=True, slots=True)
class ReleaseFile(Write[None]):
    """Say that no stream of this node has a file open any more."""

    file_id: str
    fence: int

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(uncounted=(self.file_id,))

    def run(self, transaction: Transaction) -> None:
        """Say so, unless a newer stream of this node has it."""
        transaction.write(statements.RELEASE_FILE, file_id=self.file_id, fence=self.fence, node=transaction.node_id)


def _writable(transaction: Transaction, file_id: str, fence: int, command: Command) -> FileRow:
    """Return the file if it is uploading under ``fence``; else raise what ended or replaced the stream."""
    found = read_file(transaction, file_id, command.caller)
    if found.file.status is FileStatus.CANCELLED:
        raise UploadCancelled(found.file)
    if found.file.fence != fence:
        raise WriterReplaced(file_id)
    if found.file.status is not FileStatus.UPLOADING:
        raise FileNotWritable(found.file)
    return found


@dataclass(frozen=True, slots=True)
class CompleteFile(Write[Result[File]]):
    """Make an uploading file completed."""

    file_id: str
    fence: int
    sha256: str
    bytes_received: int
    command: Command
    leaves_bytes: bool = False

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(file_ids=(self.file_id,))

    def run(self, transaction: Transaction) -> Result[File]:
        """Complete it if every byte is there and the stream still is the file's writer."""
        found = _writable(transaction, self.file_id, self.fence, self.command)
        if self.bytes_received != found.file.size_bytes:
            raise UploadIncomplete(self.file_id, self.bytes_received, found.file.size_bytes)
        completed = change_status(
            transaction,
            found,
            FileStatus.COMPLETED,
            self.command,
            sha256=self.sha256,
            bytes_received=self.bytes_received,
            completed_at=self.command.at,
        )
        if not self.leaves_bytes:
            return completed
        _owe(transaction, completed.answer)
        return completed._replace(audited=completed.audited._replace(leaves_bytes=True))


@dataclass(frozen=True, slots=True)
class FailFile(Write[Result[File]]):
    """Make an uploading file failed; its bytes are owed deletion."""

    file_id: str
    fence: int
    failure: FailureReason
    command: Command

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(file_ids=(self.file_id,))

    def run(self, transaction: Transaction) -> Result[File]:
        """Fail it if the stream still is the file's writer."""
        found = _writable(transaction, self.file_id, self.fence, self.command)
        reason = self.failure.value
        command = self.command._replace(reason=self.command.reason or reason)
        failed = change_status(
            transaction, found, FileStatus.FAILED, command, failure_reason=reason, fence=found.file.fence + 1
        )
        _owe(transaction, failed.answer)
        return failed


def _owe(transaction: Transaction, file: File) -> None:
    """Note that bytes of a file that has just come to its end are to be deleted."""
    transaction.write(statements.OWE_DELETIONS, first=file.change_no, last=file.change_no)
