"""Decides how a file gets its bytes recorded and comes to its end: claim, progress, complete, fail, expire.

Must not know where the bytes lie. A writer's right to a file is the fence in its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from upload_server.domain.errors import (
    FileNotWritable,
    OffsetMismatch,
    UploadCancelled,
    UploadIncomplete,
    WriterReplaced,
)
from upload_server.domain.states import SYSTEM, BatchStatus, FailureReason, File, FileStatus, Source
from upload_server.store.commands.files import (
    Who,
    change_status,
    file_entry,
    moved,
    read_file,
    write_file,
)
from upload_server.store.commands.trail import Move, follow_up, write_entries
from upload_server.store.commands.writes import Outcome, Write
from upload_server.store.protocol import Audited, Claim, Command, Result
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.rows import FileRow, file_row_of, time_text, to_json
from upload_server.store.sqlite.transaction import Transaction


@dataclass(frozen=True, slots=True)
class ClaimFile(Write[Result[Claim]]):
    """Give the caller's stream the right to write a file; an older stream loses it."""

    file_id: str
    offset: int
    command: Command

    def run(self, transaction: Transaction) -> Result[Claim]:
        """Raise the fence; a pending file becomes uploading, a take-over is no change of status."""
        found = read_file(transaction, self.file_id, self.command.caller)
        file = found.file
        if file.status.final or _batch_is_final(transaction, found):
            raise FileNotWritable(file)
        if self.offset != file.bytes_received:
            raise OffsetMismatch(self.file_id, self.offset, file.bytes_received)
        at = self.command.at
        if file.status is FileStatus.UPLOADING:
            after = replace(file, fence=file.fence + 1)
            write_file(transaction, found, after, at)
            return Result(Claim(after, found.expected_sha256))
        after = moved(transaction, file, FileStatus.UPLOADING, at, fence=file.fence + 1)
        audited = change_status(transaction, found, after, Who.of(self.command), at)
        return Result(Claim(after, found.expected_sha256), audited)


def _batch_is_final(transaction: Transaction, found: FileRow) -> bool:
    if found.batch_row is None:
        return False
    rows = transaction.read(statements.READ_BATCH_STATUS, batch_row=found.batch_row)
    return BatchStatus(rows[0][0]).final


@dataclass(frozen=True, slots=True)
class RecordProgress(Write[bool]):
    """Record durable bytes of a file, as long as the fence holds; those of a group in one statement."""

    file_id: str
    fence: int
    bytes_received: int
    at: datetime

    def run(self, transaction: Transaction) -> bool:
        """Record them; False when the right to write is lost."""
        return bool(self.run_all(transaction, (self,))[0])

    @classmethod
    def run_all(cls, transaction: Transaction, writes: Sequence[RecordProgress]) -> list[Outcome]:
        """Record the newest of each stream: an UPDATE takes each row once."""
        newest: dict[tuple[str, int], RecordProgress] = {}
        for write in writes:
            key = write.file_id, write.fence
            if key not in newest or newest[key].bytes_received < write.bytes_received:
                newest[key] = write
        rows = [(*key, write.bytes_received, time_text(write.at)) for key, write in newest.items()]
        taken = transaction.write_returning(statements.RECORD_PROGRESS, progress=to_json(rows))
        recorded = {(row[0], row[1]) for row in taken}
        return [(write.file_id, write.fence) in recorded for write in writes]


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

    def run(self, transaction: Transaction) -> Result[File]:
        """Complete it if every byte is there and the stream still is the file's writer."""
        found = _writable(transaction, self.file_id, self.fence, self.command)
        if self.bytes_received != found.file.size_bytes:
            raise UploadIncomplete(self.file_id, self.bytes_received, found.file.size_bytes)
        at = self.command.at
        after = moved(
            transaction,
            found.file,
            FileStatus.COMPLETED,
            at,
            sha256=self.sha256,
            bytes_received=self.bytes_received,
            completed_at=at,
        )
        audited = change_status(transaction, found, after, Who.of(self.command), at)
        return Result(after, audited)


@dataclass(frozen=True, slots=True)
class FailFile(Write[Result[File]]):
    """Make an uploading file failed; its bytes are owed deletion."""

    file_id: str
    fence: int
    failure: FailureReason
    command: Command

    def run(self, transaction: Transaction) -> Result[File]:
        """Fail it if the stream still is the file's writer."""
        found = _writable(transaction, self.file_id, self.fence, self.command)
        at = self.command.at
        after = moved(
            transaction,
            found.file,
            FileStatus.FAILED,
            at,
            failure_reason=self.failure.value,
            fence=found.file.fence + 1,
        )
        who = replace(Who.of(self.command), reason=self.command.reason or self.failure.value)
        audited = change_status(transaction, found, after, who, at)
        no = after.change_no
        transaction.write(statements.OWE_DELETIONS, first=no, last=no)
        return Result(after, audited)


@dataclass(frozen=True, slots=True)
class ExpireFiles(Write[Result[tuple[File, ...]]]):
    """Fail files that nobody sends to; ``rows`` were found by a reader and are checked again."""

    rows: Sequence[int]
    idle_since: datetime
    command: Command

    def run(self, transaction: Transaction) -> Result[tuple[File, ...]]:
        """Fail those that are still idle, with one set of statements."""
        stale = transaction.read(
            statements.READ_EXPIRED,
            rows=to_json(list(self.rows)),
            idle_since=time_text(self.idle_since),
        )
        if not stale:
            return Result(())
        reason = FailureReason.EXPIRED.value
        who = Who(SYSTEM, Source.EXPIRY.value, reason, self.command.request_id)
        found = [file_row_of(row) for row in stale]
        failed = [self._failed(transaction, row.file) for row in found]
        entries = [file_entry(row, after, who) for row, after in zip(found, failed, strict=True)]
        write_entries(transaction, entries)
        first, last = failed[0].change_no, failed[-1].change_no
        transaction.write(statements.OWE_DELETIONS, first=first, last=last)
        transaction.write_exactly(len(failed), statements.FAIL_FILES, first=first, last=last, failure_reason=reason)
        moves = [Move(row.batch_row, after.status, after.updated_at) for row, after in zip(found, failed, strict=True)]
        batch_events = follow_up(transaction, moves)
        events = (*(entry.event for entry in entries), *batch_events.values())
        return Result(tuple(failed), Audited(events))

    def _failed(self, transaction: Transaction, file: File) -> File:
        return moved(
            transaction,
            file,
            FileStatus.FAILED,
            self.command.at,
            failure_reason=FailureReason.EXPIRED.value,
            fence=file.fence + 1,
        )
