"""Decides how files and batches come into being: pending, numbered, audited.

Must not know what makes an announcement acceptable: it was checked before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from upload_server.domain.errors import BatchNotFound
from upload_server.domain.states import Batch, BatchStatus, File, FileSpec, FileStatus
from upload_server.store.commands import statements
from upload_server.store.commands.answers import Answers, keys_of
from upload_server.store.commands.files import read_file
from upload_server.store.commands.trail import make_event, values_of
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Wants, Write
from upload_server.store.values import Audited, Command, Result

# Files that one statement inserts. To write 10,000 as JSON keeps Python's lock, and the event loop from it, for 20 ms.
_AT_ONCE = 500

InitiatedBatch = tuple[Batch, tuple[str, ...]]


def claim_room(transaction: Transaction, specs: Sequence[FileSpec]) -> None:
    """Refuse announcements, before anything is written, that would leave too little room for cancels."""
    # A name is in the row and in the trail.
    texts = sum(
        2 * len(spec.filename.encode()) + len(spec.content_type) + len(spec.sha256) + len(spec.tus_metadata)
        for spec in specs
    )
    transaction.claim_room(len(specs), texts)


def _insert_files(
    transaction: Transaction,
    specs: Sequence[FileSpec],
    file_ids: Sequence[str],
    command: Command,
    first: int,
    batch_id: str | None = None,
) -> None:
    """Insert pending files, numbered from ``first`` on in the order given; the batch that they are of is there."""
    for start in range(0, len(specs), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        files = [
            (file_id, spec.filename, spec.content_type, spec.size_bytes, spec.sha256)
            for file_id, spec in zip(file_ids[some], specs[some], strict=True)
        ]
        transaction.write_exactly(
            len(files),
            statements.INSERT_FILES,
            files=files,
            batch_id=batch_id,
            at=command.at,
            served=transaction.served,
            owner=command.caller.principal,
            first=first + start,
        )


def keep_tus_metadata(transaction: Transaction, announced: Iterable[tuple[str, FileSpec]]) -> None:
    """Write, of files that were just inserted, what their tus clients said of them."""
    files = [(file_id, spec.tus_metadata) for file_id, spec in announced if spec.tus_metadata]
    if files:
        transaction.write_exactly(len(files), statements.KEEP_TUS_METADATA, files=files)


def _audit(transaction: Transaction, first: int, last: int, command: Command) -> None:
    """Insert the audit events of new rows, whose numbers are ``first`` to ``last``."""
    transaction.write_exactly(
        last - first + 1,
        statements.INSERT_EVENTS_OF_NEW,
        first=first,
        last=last,
        **values_of(command, command.caller.source),
    )


@dataclass(frozen=True, slots=True)
class InitiateUpload(Write[Result[File]]):
    """Announce one file that stands alone."""

    spec: FileSpec
    file_id: str
    command: Command

    @property
    def wants(self) -> Wants:
        """That its answer is given once."""
        return Wants(keys_of(self.command))

    def run(self, transaction: Transaction) -> Result[File]:
        """Insert it, or return the file of the first call with this request id as it is now."""
        answers = Answers(transaction, (self.command,))
        stored = answers.replay(self.command)
        if stored is not None:
            return Result(read_file(transaction, stored, self.command.caller).file, replayed=True)
        claim_room(transaction, (self.spec,))
        change_no = transaction.number()
        _insert_files(transaction, (self.spec,), (self.file_id,), self.command, change_no)
        keep_tus_metadata(transaction, [(self.file_id, self.spec)])
        _audit(transaction, change_no, change_no, self.command)
        event = make_event(
            self.command, change_no, "", FileStatus.PENDING, file_id=self.file_id, filename=self.spec.filename
        )
        answers.keep(self.command, self.file_id)
        answers.write()
        return Result(self._file(change_no), Audited((event,)))

    def _file(self, change_no: int) -> File:
        spec, at = self.spec, self.command.at
        return File(
            file_id=self.file_id,
            filename=spec.filename,
            content_type=spec.content_type,
            size_bytes=spec.size_bytes,
            bytes_received=0,
            status=FileStatus.PENDING,
            batch_id="",
            owner=self.command.caller.principal,
            sha256="",
            created_at=at,
            updated_at=at,
            completed_at=None,
            cancelled_at=None,
            cancelled_by="",
            cancel_reason="",
            failure_reason="",
            revision=1,
            change_no=change_no,
            fence=0,
        )


@dataclass(frozen=True, slots=True)
class InitiateBatch(Write[Result[InitiatedBatch]]):
    """Announce files that belong together."""

    specs: Sequence[FileSpec]
    batch_id: str
    file_ids: Sequence[str]
    command: Command
    long: ClassVar[bool] = True

    @property
    def wants(self) -> Wants:
        """That its answer is given once."""
        return Wants(keys_of(self.command))

    def run(self, transaction: Transaction) -> Result[InitiatedBatch]:
        """Insert them, or return the ids of the first call with this request id with the current state."""
        command, count = self.command, len(self.specs)
        answers = Answers(transaction, (command,))
        stored = answers.replay(command)
        if stored is not None:
            return Result(_current(transaction, stored), replayed=True)
        claim_room(transaction, self.specs)
        # A batch is numbered after its files.
        first = transaction.number(count + 1)
        batch_no = first + count
        self._insert_batch(transaction, batch_no)
        _insert_files(transaction, self.specs, self.file_ids, command, first, self.batch_id)
        _audit(transaction, first, batch_no, command)
        event = make_event(command, batch_no, "", BatchStatus.PENDING, batch_id=self.batch_id)
        answers.keep(command, self.batch_id)
        answers.write()
        answer = self._batch(batch_no), tuple(self.file_ids)
        return Result(answer, Audited((event,), count, first, first + count - 1))

    def _insert_batch(self, transaction: Transaction, change_no: int) -> None:
        transaction.write_exactly(
            1,
            statements.INSERT_BATCH,
            batch_id=self.batch_id,
            total_files=len(self.specs),
            at=self.command.at,
            owner=self.command.caller.principal,
            change_no=change_no,
        )

    def _batch(self, change_no: int) -> Batch:
        return Batch(
            batch_id=self.batch_id,
            status=BatchStatus.PENDING,
            owner=self.command.caller.principal,
            total_files=len(self.specs),
            completed_files=0,
            failed_files=0,
            cancelled_files_count=0,
            created_at=self.command.at,
            updated_at=self.command.at,
            cancelled_at=None,
            cancelled_by="",
            cancel_reason="",
            revision=1,
            change_no=change_no,
        )


def _current(transaction: Transaction, batch_id: str) -> InitiatedBatch:
    """Read a batch and its files' ids in the order they were announced."""
    rows = transaction.read(statements.READ_BATCH, batch_id=batch_id)
    if not rows:
        # Retention took it since; its answer is forgotten a little later.
        raise BatchNotFound(batch_id)
    [found] = rows
    ids = transaction.read(statements.READ_IDS_OF_BATCH, batch_row=found.row)
    return found.batch, tuple(row[0] for row in ids)
