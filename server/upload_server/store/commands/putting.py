"""Decides how a file that came whole gets its row: completed at once, with the audit events of the whole way there.

Must not know the sink. Its bytes are durable before; without the row they are a draft that nobody keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

from upload_server.domain.errors import (
    CutOff,
    FileNotFound,
    FileNotWritable,
    RequestIdReused,
    StorageFull,
    UploadError,
)
from upload_server.domain.states import AuditEvent, File, FileSpec, FileStatus
from upload_server.store.commands import statements
from upload_server.store.commands.answers import Answers, keys_of
from upload_server.store.commands.files import file_event, next_state, read_files
from upload_server.store.commands.initiating import claim_room, keep_tus_metadata
from upload_server.store.commands.statements import EventRow, FileRow
from upload_server.store.commands.trail import follow_up, make_event, read_batches, write_events
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Outcome, Wants, Write
from upload_server.store.values import Alive, Audited, Command, Result, always

# What its audit trail says; the row is at the last of them.
_WAY = (FileStatus.PENDING, FileStatus.UPLOADING, FileStatus.COMPLETED)


@dataclass(frozen=True, slots=True)
class PutFile(Write[Result[File]]):
    """Insert a completed file; those of a group are inserted by one set of statements."""

    spec: FileSpec
    file_id: str
    sha256: str
    command: Command
    # Why its bytes could not be stored: nothing is left then but to repeat an answer.
    lost: UploadError | None = None
    # Whether its bytes still lie there for sure.
    alive: Alive = always

    @property
    def wants(self) -> Wants:
        """That its answer is given once."""
        return Wants(keys_of(self.command))

    @classmethod
    def run_all(cls, transaction: Transaction, writes: Sequence[PutFile]) -> list[Outcome]:
        """Insert the files, or return those of the first calls with their request ids as they are now."""
        answers = Answers(transaction, [write.command for write in writes])
        decisions = [_decide(transaction, write, answers) for write in writes]
        made = [
            (decision, write) for write, decision in zip(writes, decisions, strict=True) if isinstance(decision, File)
        ]
        events = _insert(transaction, made) if made else {}
        answers.write()
        replayed = [decision for decision in decisions if isinstance(decision, str)]
        found = read_files(transaction, replayed) if replayed else {}
        outcomes: list[Outcome] = []
        for decision in decisions:
            if isinstance(decision, File):
                outcomes.append(Result(decision, Audited(tuple(events[decision.file_id]))))
            elif isinstance(decision, str):
                # Retention may have taken it since; its answer is forgotten a little later.
                there = found.get(decision)
                outcomes.append(Result(there.file, replayed=True) if there else FileNotFound(decision))
            else:
                outcomes.append(decision)
        return outcomes


def _decide(transaction: Transaction, write: PutFile, answers: Answers) -> File | str | UploadError:
    """Return the file that is to be inserted, the id of one whose call is repeated, or why neither."""
    try:
        stored: str | None = answers.replay(write.command)
        if stored is not None:
            return stored
        if write.lost is not None:
            return write.lost
        if not write.alive():
            return CutOff()
        claim_room(transaction, (write.spec,))
    except (RequestIdReused, StorageFull) as refusal:
        return refusal
    answers.keep(write.command, write.file_id)
    return _file(write, transaction.number(len(_WAY)) + len(_WAY) - 1)


def _file(write: PutFile, change_no: int) -> File:
    spec, at = write.spec, write.command.at
    return File(
        file_id=write.file_id,
        filename=spec.filename,
        content_type=spec.content_type,
        size_bytes=spec.size_bytes,
        bytes_received=spec.size_bytes,
        status=FileStatus.COMPLETED,
        batch_id="",
        owner=write.command.caller.principal,
        sha256=write.sha256,
        created_at=at,
        updated_at=at,
        completed_at=at,
        cancelled_at=None,
        cancelled_by="",
        cancel_reason="",
        failure_reason="",
        revision=len(_WAY),
        change_no=change_no,
        # As a stream's claim would have left it.
        fence=1,
    )


def _insert(transaction: Transaction, made: Sequence[tuple[File, PutFile]]) -> dict[str, list[AuditEvent]]:
    """Insert completed files and their audit events, which are returned by file."""
    files = [
        (
            *(file.file_id, file.filename, file.content_type, file.size_bytes, file.created_at, file.owner),
            *(write.spec.sha256, file.sha256, file.revision, file.change_no, file.fence),
        )
        for file, write in made
    ]
    transaction.write_exactly(len(files), statements.PUT_FILES, files=files, served=transaction.served)
    keep_tus_metadata(transaction, [(file.file_id, write.spec) for file, write in made])
    events = {file.file_id: _events(file, write.command) for file, write in made}
    trail = [
        (
            *(event.event_id, file.change_no, event.from_status, event.to_status, event.actor, event.source),
            *(event.reason, event.request_id, event.occurred_at, event.credential, event.peer),
        )
        for file, _ in made
        for event in events[file.file_id]
    ]
    transaction.write_exactly(len(trail), statements.INSERT_EVENTS_OF_PUT, events=trail)
    return events


def _events(file: File, command: Command) -> list[AuditEvent]:
    first = file.change_no - len(_WAY) + 1
    return [
        make_event(command, first + step, before, after, file_id=file.file_id, filename=file.filename)
        for step, (before, after) in enumerate(zip(("", *_WAY), _WAY, strict=False))
    ]


@dataclass(frozen=True, slots=True)
class CompleteWhole(Write[Result[File]]):
    """Make a pending file completed whose bytes all came at once; those of a group by one set of statements."""

    file_id: str
    sha256: str
    size_bytes: int
    command: Command
    alive: Alive = always
    by_sets: ClassVar[bool] = True

    @property
    def wants(self) -> Wants:
        """Its file."""
        return Wants(file_ids=(self.file_id,))

    @classmethod
    def run_all(cls, transaction: Transaction, writes: Sequence[CompleteWhole]) -> list[Outcome]:
        """Complete the files, each from its announcement on; who is late is refused with the state it finds."""
        found = read_files(transaction, {write.file_id for write in writes})
        batch_rows = sorted({row.batch_row for row in found.values() if row.batch_row is not None})
        closed = {row.row for row in read_batches(transaction, batch_rows) if row.batch.status.final}
        ends: dict[str, _End] = {}
        outcomes: list[Outcome] = []
        for write in writes:
            try:
                outcomes.append(_begin(transaction, write, found, ends, closed))
            except UploadError as refusal:
                outcomes.append(refusal)
        if ends:
            batch_events = _finish(transaction, ends.values())
            for index, end in enumerate(outcomes):
                if isinstance(end, _End):
                    # The first that touched a batch also carries that batch's events.
                    events = (end.opened.event, end.closed.event, *batch_events.pop(end.opened.batch_row, ()))
                    outcomes[index] = Result(end.after, Audited(events))
        return outcomes


class _End(NamedTuple):
    """What a whole file becomes, and how its trail tells it."""

    before: FileRow
    after: File
    opened: EventRow
    closed: EventRow


def _begin(
    transaction: Transaction,
    write: CompleteWhole,
    found: Mapping[str, FileRow],
    ends: dict[str, _End],
    closed_batches: Collection[int | None],
) -> _End:
    """Decide what a file becomes; raises what hinders it."""
    row, command = found.get(write.file_id), write.command
    if row is None or not command.caller.does_see(row.file.owner):
        raise FileNotFound(write.file_id)
    if not write.alive():
        raise CutOff
    file = row.file
    as_announced = file.size_bytes == write.size_bytes and row.expected_sha256 in ("", write.sha256)
    is_free = file.status is FileStatus.PENDING and write.file_id not in ends and row.batch_row not in closed_batches
    if not (as_announced and is_free):
        raise FileNotWritable(file)
    opened = next_state(transaction, file, FileStatus.UPLOADING, command.at, fence=file.fence + 1)
    done = {"sha256": write.sha256, "bytes_received": file.size_bytes, "completed_at": command.at}
    after = next_state(transaction, opened, FileStatus.COMPLETED, command.at, **done)
    first = file_event(command, row, opened)
    last = file_event(command, replace(row, file=opened), after)
    ends[write.file_id] = _End(row, after, first, last)
    return ends[write.file_id]


def _finish(transaction: Transaction, ends: Collection[_End]) -> dict[int | None, list[AuditEvent]]:
    """Write what files become and what follows for their batches, whose audit events are returned by row."""
    write_events(transaction, [event for end in ends for event in (end.opened, end.closed)])
    files = [
        (
            *(end.before.row, end.before.file.fence, end.after.sha256, end.after.updated_at),
            *(end.after.revision, end.after.change_no, end.after.fence),
        )
        for end in ends
    ]
    transaction.write_exactly(len(files), statements.COMPLETE_WHOLE, files=files, served=transaction.served)
    # A batch is under way before it is completed, also when all its files come in one group.
    found: dict[int | None, list[AuditEvent]] = {}
    for step in ([end.opened for end in ends], [end.closed for end in ends]):
        for row, event in follow_up(transaction, step).items():
            found.setdefault(row, []).append(event)
    return found
