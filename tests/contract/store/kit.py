"""What the store's tests share: short ways to ask, and the oracles that hold after any history."""

from __future__ import annotations

import asyncio
import itertools
import math
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from upload_server.domain.caller import Caller
from upload_server.domain.states import (
    NEXT_BATCH,
    NEXT_FILE,
    AuditEvent,
    Batch,
    BatchStatus,
    File,
    FileSpec,
    FileStatus,
    Source,
    roll_up,
)
from upload_server.domain.statistics import Total
from upload_server.store.protocol import Store
from upload_server.store.values import Change, Command, Moment, Targets, Trail

EVERYTHING = Targets(all=True)


def now() -> datetime:
    return datetime.now(UTC)


def by_the_wall(at: datetime) -> Moment:
    """A moment that by the time served lies behind everything there is."""
    return Moment(at, math.inf)


async def served_for(store: Store, seconds: float) -> None:
    """Wait until the store has served for so much longer."""
    until = store.served + seconds
    while store.served < until:  # noqa: ASYNC110 - time passes by itself
        await asyncio.sleep(seconds / 10)


def new_id() -> str:
    return str(uuid.uuid4())


def id_of(record: File | Batch) -> str:
    return record.file_id if isinstance(record, File) else record.batch_id


def command(
    method: str = "CancelFile",
    request_id: str = "",
    fingerprint: bytes = b"",
    reason: str = "",
    principal: str = "",
    source: Source = Source.GRPC,
    at: datetime | None = None,
) -> Command:
    """A name sees what is its own, nobody everything."""
    return Command(Caller(source, principal, principal or None), method, at or now(), reason, request_id, fingerprint)


async def pending(store: Store, size_bytes: int = 3, principal: str = "", at: datetime | None = None) -> File:
    spec = FileSpec("a.txt", size_bytes, "text/plain")
    return (await store.initiate_upload(spec, new_id(), command("InitiateUpload", principal=principal, at=at))).answer


async def uploading(store: Store, size_bytes: int = 3) -> File:
    file = await pending(store, size_bytes)
    return (await store.claim(file.file_id, 0, command("UploadFile"))).answer.file


async def completed(store: Store) -> File:
    return await finish(store, await uploading(store))


async def finish(store: Store, file: File) -> File:
    return (await store.complete(file.file_id, file.fence, "ab" * 32, file.size_bytes, command("UploadFile"))).answer


async def batch_of(
    store: Store, files: int, principal: str = "", at: datetime | None = None
) -> tuple[Batch, Sequence[str]]:
    specs = [FileSpec(f"dir/{index}.bin", 3) for index in range(files)]
    ids = [new_id() for _ in specs]
    made = await store.initiate_batch(specs, new_id(), ids, command("InitiateBatch", principal=principal, at=at))
    return made.answer


async def everything(store: Store, after: int = 0, page: int = 100) -> list[Change]:
    """All rows that changed after ``after``, read as a watcher does."""
    found: list[Change] = []
    while True:
        changes = await store.read_changes(EVERYTHING, None, after, page)
        found += changes.changes
        if changes.complete:
            return found
        after = found[-1].no


async def audit(store: Store, file_id: str = "", batch_id: str = "", page: int = 1000) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    cursor = None
    while True:
        found = await store.list_audit_events(Trail(file_id=file_id, batch_id=batch_id), cursor, page)
        events += found.rows
        if not found.next_cursor:
            return events
        cursor = found.next_cursor


def steps(events: Sequence[AuditEvent]) -> list[tuple[str, str]]:
    return [(event.from_status, event.to_status) for event in events]


async def counted(store: Store) -> dict[FileStatus, int]:
    """How many files are in each state."""
    return {status: total.files for status, total in (await store.count(None, now())).files.items()}


async def assert_counts_hold(store: Store, files: Iterable[File], batches: Iterable[Batch]) -> None:
    """What is counted is what is there."""
    by_status: dict[FileStatus, list[int]] = {status: [] for status in FileStatus}
    for file in files:
        by_status[file.status].append(0 if file.content_deleted_at else file.size_bytes)
    counts = await store.count(None, now())
    assert counts.files == {status: Total(len(sizes), sum(sizes)) for status, sizes in by_status.items()}
    assert counts.batches == dict.fromkeys(BatchStatus, 0) | Counter(batch.status for batch in batches)


async def assert_history_holds(store: Store) -> None:
    """The audit trail replays to the tables, moves are legal, batches follow from their files, and so do the counts."""
    rows = [change.record for change in await everything(store, page=1000)]
    files = {row.file_id: row for row in rows if isinstance(row, File)}
    batches = {row.batch_id: row for row in rows if isinstance(row, Batch)}
    events = await audit(store)
    of_files: dict[str, list[AuditEvent]] = defaultdict(list)
    of_batches: dict[str, list[AuditEvent]] = defaultdict(list)
    for event in events:
        if event.file_id:
            of_files[event.file_id].append(event)
        else:
            of_batches[event.batch_id].append(event)
    assert of_files.keys() == files.keys()
    assert of_batches.keys() == batches.keys()
    for file_id, file in files.items():
        _assert_file_follows(file, of_files[file_id])
    await assert_counts_hold(store, files.values(), batches.values())
    for batch_id, batch in batches.items():
        members = [file for file in files.values() if file.batch_id == batch_id]
        _assert_batch_follows(batch, members, of_batches[batch_id])


def _assert_file_follows(file: File, events: Sequence[AuditEvent]) -> None:
    assert (events[0].from_status, events[0].to_status) == ("", "pending")
    last = events[-1]
    assert (last.event_id, len(events)) == (file.change_no, file.revision)
    let_go = last.from_status == last.to_status
    assert file.content_deleted_at == (last.occurred_at if let_go else None)
    if let_go:
        assert file.status is FileStatus.COMPLETED
        events = events[:-1]
    for before, event in itertools.pairwise(events):
        assert event.from_status == before.to_status
        assert FileStatus(event.to_status) in NEXT_FILE[FileStatus(event.from_status)]
        assert event.event_id > before.event_id
    last = events[-1]
    assert (last.to_status, last.occurred_at) == (file.status, file.updated_at)
    assert (file.cancelled_at == last.occurred_at) is (file.status is FileStatus.CANCELLED)
    assert (file.completed_at == last.occurred_at) is (file.status is FileStatus.COMPLETED)


def _assert_batch_follows(batch: Batch, members: Sequence[File], events: Sequence[AuditEvent]) -> None:
    assert (events[0].from_status, events[0].to_status) == ("", "pending")
    for before, event in itertools.pairwise(events):
        assert event.from_status == before.to_status
        assert BatchStatus(event.to_status) in NEXT_BATCH[BatchStatus(event.from_status)]
    assert (events[-1].to_status, events[-1].occurred_at) == (batch.status, batch.updated_at)
    assert len(members) == batch.total_files
    counted = {status: sum(file.status is status for file in members) for status in FileStatus}
    assert batch.completed_files == counted[FileStatus.COMPLETED]
    assert batch.failed_files == counted[FileStatus.FAILED]
    assert batch.cancelled_files_count == counted[FileStatus.CANCELLED]
    if batch.cancelled_by in ("", "all_files"):
        derived = roll_up(batch.total_files, batch.completed_files, batch.failed_files, batch.cancelled_files_count)
        assert (derived is None) is (not batch.status.final)
        assert derived in (None, batch.status)
    else:
        assert batch.status is BatchStatus.CANCELLED
        assert all(file.status.final for file in members)
    # A batch is numbered after its files; that they let go of bytes later is nothing to it.
    final = [file.change_no for file in members if file.status.final and not file.content_deleted_at]
    assert batch.change_no > max(final, default=0)
