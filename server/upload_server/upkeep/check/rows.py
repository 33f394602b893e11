"""Decides what is wrong with a row by its audit trail, and with a batch by its files. Pure.

Must not know where rows come from. Rows from before the audit began have no trail, or no first part of one: a note.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from upload_server.domain.states import ALL_FILES, NEXT_BATCH, NEXT_FILE, BatchStatus, FileStatus, named, roll_up
from upload_server.store.inspection import AnswerFacts, BatchFacts, Debt, EventFacts, FileFacts, Trail
from upload_server.upkeep.check.findings import Finding, Mend

BEFORE_AUDIT = "rows from before the audit began, or whose first events were pruned, have not all events of their own"
PRUNED = "rows whose events were all pruned: the service deletes them, or does it after its next start"

_FILE_MOVES: Mapping[str, frozenset[str]] = {
    "": frozenset({FileStatus.PENDING.value}),
    **{status.value: frozenset(word.value for word in following) for status, following in NEXT_FILE.items()},
    # No change of status: its bytes were let go.
    FileStatus.COMPLETED.value: frozenset({FileStatus.COMPLETED.value}),
}
_BATCH_MOVES: Mapping[str, frozenset[str]] = {
    "": frozenset({BatchStatus.PENDING.value}),
    **{status.value: frozenset(word.value for word in following) for status, following in NEXT_BATCH.items()},
}
_FINAL_BATCH = frozenset(status.value for status in BatchStatus if status.final)
_OPEN_FILE = frozenset(status.value for status in FileStatus if not status.final)

_KEEP_COPY = "keep a copy of the data directory, then compare with a backup; `upload-server audit verify` tells more"
_BY_HAND = "nothing mends it by itself: restore a backup, or keep it and know of it"


def before_audit(trail: Trail[object]) -> bool:
    """Whether the row was there before its first event."""
    return not trail.events or trail.events[0].from_status != ""


def check_file(trail: Trail[FileFacts]) -> Iterator[Finding]:
    """Replay a file's trail into its row."""
    file = trail.facts
    if file is None:
        yield from _no_row(trail, "file")
        return
    ids = {"file_id": file.file_id}
    if file.status not in _FILE_MOVES or not file.status:
        yield Finding("file.status", f"file {file.file_id} is in no known state: {file.status!r}", _BY_HAND, ids)
        return
    yield from _legal(f"file {file.file_id}", trail.events, _FILE_MOVES, ids)
    for text in _against_trail(file, trail.events):
        yield Finding("file.audit", f"file {file.file_id} {text}", _KEEP_COPY, ids)
    for text in _by_itself(file):
        yield Finding("file.row", f"file {file.file_id} {text}", _BY_HAND, ids)


def _no_row(trail: Trail[FileFacts] | Trail[BatchFacts], what: str) -> Iterator[Finding]:
    event = trail.events[0].event_id
    text = f"event {event} is about a {what} that is gone (row {trail.row}); it has {len(trail.events)} event(s)"
    yield Finding("audit.no_row", text, _KEEP_COPY, {"event_id": str(event)})


def _legal(
    name: str, events: Sequence[EventFacts], moves: Mapping[str, frozenset[str]], ids: Mapping[str, str]
) -> Iterator[Finding]:
    for event in events:
        if event.to_status not in moves.get(event.from_status, frozenset()):
            words = f"{event.from_status or 'nothing'!r} to {event.to_status!r}"
            text = f"event {event.event_id} takes {name} from {words}, which is no legal move"
            yield Finding("audit.move", text, _KEEP_COPY, {**ids, "event_id": str(event.event_id)})
    for before, event in itertools.pairwise(events):
        if event.from_status != before.to_status:
            text = (
                f"event {event.event_id} takes {name} from {event.from_status!r}, but event {before.event_id}"
                f" had left it {before.to_status!r}"
            )
            yield Finding("audit.gap", text, _KEEP_COPY, {**ids, "event_id": str(event.event_id)})


def _against_trail(file: FileFacts, events: Sequence[EventFacts]) -> Iterator[str]:
    if not events:
        if file.status == "cancelled" or file.sha256 or file.failure_reason:
            yield f"is {file.status}, and no audit event says so"
        return
    last = events[-1]
    if last.to_status != file.status:
        yield f"is {file.status}, but by its last audit event ({last.event_id}) {last.to_status}"
        return
    if last.event_id != file.change_no:
        yield f"carries change {file.change_no}, but its last audit event is {last.event_id}"
    ends = [event for event in events if event.from_status == event.to_status]
    yield from _content(file, ends)
    changes = [event for event in events if event not in ends]
    if not changes:
        return
    last = changes[-1]
    if last.occurred_at != file.updated_at:
        yield f"was updated at {file.updated_at}, by its last audit event at {last.occurred_at}"
    if events[0].from_status == "" and len(events) != file.revision:
        yield f"is at revision {file.revision}, but has {len(events)} audit events"
    if file.status == "cancelled":
        yield from _cancelled(file, last)
    if file.status == "completed" and file.completed_at != last.occurred_at:
        yield f"was completed at {file.completed_at}, by its audit event at {last.occurred_at}"


def _content(file: FileFacts, ends: Sequence[EventFacts]) -> Iterator[str]:
    """Compare with the events by which its bytes were let go: one at most."""
    if len(ends) > 1:
        yield f"has {len(ends)} audit events by which its bytes were let go"
    said = (ends[-1].occurred_at, named(ends[-1].source, ends[-1].actor)) if ends else (None, "")
    if (file.content_deleted_at, file.content_deleted_by) != said:
        row = f"at {file.content_deleted_at} by {file.content_deleted_by!r}"
        yield f"says that its bytes were let go {row}, its trail says at {said[0]} by {said[1]!r}"


def _cancelled(file: FileFacts, last: EventFacts) -> Iterator[str]:
    said = (last.occurred_at, named(last.source, last.actor), last.reason)
    if (file.cancelled_at, file.cancelled_by, file.cancel_reason) != said:
        yield f"was cancelled otherwise than its audit event {last.event_id} says (time, who or why)"


def _by_itself(file: FileFacts) -> Iterator[str]:
    if not 0 <= file.bytes_received <= file.size_bytes:
        yield f"has {file.bytes_received} bytes recorded of {file.size_bytes}"
    elif file.status == "completed" and file.bytes_received != file.size_bytes:
        yield f"is completed with {file.bytes_received} of {file.size_bytes} bytes"
    if file.strange:
        yield f"has another owner than its batch {file.batch_id}"
    if file.status in _OPEN_FILE and file.batch_status in _FINAL_BATCH:
        yield f"is {file.status} in batch {file.batch_id}, which is {file.batch_status}"


def check_batch(trail: Trail[BatchFacts]) -> Iterator[Finding]:
    """Replay a batch's trail into its row, and compare it with its files."""
    batch = trail.facts
    if batch is None:
        yield from _no_row(trail, "batch")
        return
    ids = {"batch_id": batch.batch_id}
    if batch.status not in _BATCH_MOVES or not batch.status:
        yield Finding("batch.status", f"batch {batch.batch_id} is in no known state: {batch.status!r}", _BY_HAND, ids)
        return
    against = [*_legal(f"batch {batch.batch_id}", trail.events, _BATCH_MOVES, ids), *_batch_trail(batch, trail.events)]
    yield from against
    for finding in _counters(batch, ids, legacy=before_audit(trail)):
        # What contradicts its trail is evidence, or needs a backup: an audited roll-up on top would make it worse.
        yield replace(finding, mend=Mend.NONE, advice=_KEEP_COPY) if against else finding


def _batch_trail(batch: BatchFacts, events: Sequence[EventFacts]) -> Iterator[Finding]:
    if not events:
        return
    ids, last = {"batch_id": batch.batch_id}, events[-1]
    if last.to_status != batch.status:
        text = f"is {batch.status}, but by its last audit event ({last.event_id}) {last.to_status}"
        yield Finding("batch.audit", f"batch {batch.batch_id} {text}", _KEEP_COPY, ids)
    if batch.revision < len(events):
        text = f"is at revision {batch.revision} after {len(events)} audit events"
        yield Finding("batch.audit", f"batch {batch.batch_id} {text}", _KEEP_COPY, ids)


def _counters(batch: BatchFacts, ids: Mapping[str, str], *, legacy: bool) -> Iterator[Finding]:
    name = f"batch {batch.batch_id}"
    kept = (batch.completed_files, batch.failed_files, batch.cancelled_files_count)
    counted = (batch.completed, batch.failed, batch.cancelled)
    if kept != counted:
        text = f"{name} counts {_words(kept)}; its files are {_words(counted)}"
        yield Finding("batch.counters", text, "`--repair` counts anew", ids, Mend.RECOUNT, batch.row)
    if batch.files != batch.total_files:
        # Before cancellation existed a batch could be announced without its files.
        if not legacy:
            text = f"{name} has {batch.files} files, {batch.total_files} were announced"
            yield Finding("batch.files", text, _BY_HAND, ids)
        return
    yield from _derived(batch, name, ids)


def _words(counts: Sequence[int]) -> str:
    return "{} completed, {} failed, {} cancelled".format(*counts)


def _derived(batch: BatchFacts, name: str, ids: Mapping[str, str]) -> Iterator[Finding]:
    follows = roll_up(batch.total_files, *(batch.completed, batch.failed, batch.cancelled))
    status = BatchStatus(batch.status)
    if status is BatchStatus.CANCELLED and batch.cancelled_by != ALL_FILES:
        # A call cancelled it, whatever its final files are. The rules for files report those that are still open.
        return
    if status.final:
        if follows is not status:
            text = f"{name} is {status}, but by its files {follows or 'not final'}"
            yield Finding("batch.derived", text, _BY_HAND, ids)
    elif follows is not None and batch.total_files > 0:
        text = f"{name} is {status}, but all its files are final: it should be {follows}"
        yield Finding("batch.derived", text, "`--repair` makes it so, audited", ids, Mend.RECOUNT, batch.row)
    elif status is BatchStatus.PENDING and batch.uploading:
        text = f"{name} is pending, but {batch.uploading} of its files are uploading"
        yield Finding("batch.derived", text, "`--repair` makes it so, audited", ids, Mend.RECOUNT, batch.row)


def check_answer(answer: AnswerFacts, *, pruned: bool = False) -> Iterator[Finding]:
    """Look whether a stored answer speaks of something that is there, as it is there; with ``pruned`` it may have gone
    since."""
    ids = {"request_id": answer.request_id}
    name = f"the stored answer of {answer.method} to request {answer.request_id!r}"
    advice = "a repeated call would get an answer that is not true; the answer is forgotten after --request-ttl"
    if answer.named_id is None:
        yield Finding("answer.form", f"{name} cannot be read", advice, ids)
    elif answer.row_status is None:
        if not pruned:
            text = f"{name} speaks of {answer.named_id}, which is not there"
            yield Finding("answer.nothing", text, advice, ids)
    elif answer.method in ("CancelFile", "CancelBatch") and (
        answer.row_status != "cancelled" or answer.row_cancelled_at != answer.answer_cancelled_at
    ):
        text = (
            f"{name} says that {answer.named_id} was cancelled at {answer.answer_cancelled_at}; its row says otherwise"
        )
        yield Finding("answer.untrue", text, advice, ids)


def check_debt(debt: Debt, overdue_before: str) -> Iterator[Finding]:
    """Look whether bytes are owed deletion for a file that may lose them, and not for too long (empty: never)."""
    if debt.file_id is None:
        text = f"a deletion is owed for a file that is not there (row {debt.file_row})"
        yield Finding("debt.nothing", text, "`--repair` forgets it", {}, Mend.FORGET_DEBT, debt.file_row)
        return
    ids = {"file_id": debt.file_id}
    if debt.status not in ("cancelled", "failed", "completed"):
        text = f"a deletion is owed for file {debt.file_id}, which is {debt.status} and keeps its bytes"
        advice = "the service refuses to carry it out; `--repair` forgets it"
        yield Finding("debt.wrong", text, advice, ids, Mend.FORGET_DEBT, debt.file_row)
    elif debt.since is not None and debt.since < overdue_before:
        text = f"the bytes of file {debt.file_id} are owed deletion since {debt.since}"
        yield Finding("debt.overdue", text, "the service's log says why: look for `bytes could not be deleted`", ids)
