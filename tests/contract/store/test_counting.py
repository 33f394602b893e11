"""Counts: exact after every change, whoever counted before, and what happened in which step of time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from contract.store.kit import assert_history_holds, batch_of, command, completed, counted, now, pending, uploading
from upload_server.domain.states import BatchStatus, FailureReason, FileStatus
from upload_server.domain.statistics import Buckets, Moves, Total
from upload_server.store.open import StoreAt
from upload_server.store.protocol import Store

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


async def test_every_state_is_counted_with_its_sizes(store: Store) -> None:
    nothing = await store.count(None, now())
    assert nothing.files == dict.fromkeys(FileStatus, Total(0, 0))
    assert nothing.batches == dict.fromkeys(BatchStatus, 0)

    await pending(store, 5)
    await completed(store)
    gone, bad = await uploading(store, 7), await uploading(store, 11)
    await store.cancel_file(gone.file_id, command())
    await store.fail(bad.file_id, bad.fence, FailureReason.CHECKSUM_MISMATCH, command())
    await pending(store, 1000, principal="ann")
    await batch_of(store, 2, principal="ann")

    assert (await store.count("", now())).files == {
        FileStatus.PENDING: Total(1, 5),
        FileStatus.UPLOADING: Total(0, 0),
        FileStatus.COMPLETED: Total(1, 3),
        FileStatus.FAILED: Total(1, 11),
        FileStatus.CANCELLED: Total(1, 7),
    }
    assert (await store.count(None, now())).files[FileStatus.PENDING] == Total(4, 1011)
    anns = await store.count("ann", now())
    assert (anns.files[FileStatus.PENDING], anns.batches[BatchStatus.PENDING]) == (Total(3, 1006), 1)


async def test_a_change_is_counted_once_it_is_answered(store: Store) -> None:
    batch, members = await batch_of(store, 3)
    await counted(store)
    await store.claim(members[0], 0, command("UploadFile"))
    assert (await store.count(None, now())).batches[BatchStatus.PROCESSING] == 1
    await store.cancel_file(members[1], command())
    assert (await counted(store))[FileStatus.CANCELLED] == 1
    await store.cancel_batch(batch.batch_id, command("CancelBatch"))
    assert await counted(store) == dict.fromkeys(FileStatus, 0) | {FileStatus.CANCELLED: 3}
    assert (await store.count(None, now())).batches == dict.fromkeys(BatchStatus, 0) | {BatchStatus.CANCELLED: 1}


async def test_counts_begin_anew_with_each_start(backend: StoreAt) -> None:
    store = await backend.open()
    await store.cancel_file((await pending(store, 5)).file_id, command())
    await store.delete_content((await completed(store)).file_id, command("DeleteContent"))
    before = await store.count(None, now())
    await store.close()
    store = await backend.open()
    assert await store.count(None, now()) == before
    assert before.files[FileStatus.COMPLETED] == Total(1, 0)
    await store.close()


async def test_counts_hold_while_they_are_asked_for(store: Store) -> None:
    async def work() -> None:
        for _ in range(10):
            _, members = await batch_of(store, 3)
            await store.cancel_file(members[0], command())
            await completed(store)

    async def ask() -> None:
        for _ in range(30):
            counts = await store.count(None, now())
            # Files come by batches of three, of which one is cancelled, or alone.
            assert all(total.files >= 0 for total in counts.files.values())

    await asyncio.gather(work(), work(), ask(), ask())
    await assert_history_holds(store)


async def test_what_happened_is_told_step_by_step(store: Store) -> None:
    def at(seconds: float) -> datetime:
        return NOON + timedelta(seconds=seconds)

    buckets = Buckets.until(at(65), 20, 4)
    assert [buckets.start_of(index) for index in range(4)] == [at(0), at(20), at(40), at(60)]
    for seconds in (-0.0001, 0, 19.9999, 20, 60):
        file = await pending(store, at=at(seconds))
        if seconds == 0:
            await store.cancel_file(file.file_id, command(at=at(39.999)))
    assert (await store.count(None, at(65), buckets)).moves == [
        Moves(2, 0, 0, 0),
        Moves(1, 0, 0, 1),
        Moves(0, 0, 0, 0),
        Moves(1, 0, 0, 0),
    ]
    # What comes after the first count is told too, batches are not counted, their files are.
    batch, _ = await batch_of(store, 5)
    await store.cancel_batch(batch.batch_id, command("CancelBatch", at=at(45)))
    assert (await store.count(None, at(65), buckets)).moves[2] == Moves(0, 0, 0, 5)
    assert (await store.count("ann", at(65), buckets)).moves == [Moves(0, 0, 0, 0)] * 4


async def test_a_day_is_told_and_what_is_older_forgotten(store: Store) -> None:
    await pending(store, at=NOON)
    end, day = NOON + timedelta(hours=24), Buckets.until(NOON + timedelta(hours=24) - timedelta(seconds=1), 360, 240)
    assert sum(moves.begun for moves in (await store.count(None, end, day)).moves) == 1

    later = NOON + timedelta(hours=26)
    await pending(store, at=later)
    found = await store.count(None, later, Buckets(day.first, day.slots, day.count))
    assert sum(moves.begun for moves in found.moves) == 0
    assert (await counted(store))[FileStatus.PENDING] == 2
