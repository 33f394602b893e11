"""Claim, progress, complete, fail, expire: what a writer may do, and when it has lost its right."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

import pytest

from contract.store.kit import (
    assert_history_holds,
    audit,
    batch_of,
    by_the_wall,
    command,
    completed,
    finish,
    new_id,
    now,
    pending,
    served_for,
    steps,
    uploading,
)
from upload_server.domain.errors import (
    FileNotFound,
    FileNotWritable,
    OffsetMismatch,
    UploadCancelled,
    UploadIncomplete,
    WriterReplaced,
)
from upload_server.domain.runs import Run
from upload_server.domain.states import BatchStatus, FailureReason, File, FileStatus, Source
from upload_server.store.open import StoreAt
from upload_server.store.protocol import Store
from upload_server.store.values import DueCancel, Moment, Named


async def test_the_first_claim_makes_a_file_uploading(store: Store) -> None:
    file = await pending(store)

    result = await store.claim(file.file_id, 0, command("UploadFile"))

    claimed = result.answer.file
    assert (claimed.status, claimed.fence, claimed.revision) == (FileStatus.UPLOADING, 1, 2)
    assert claimed == await store.get_file(file.file_id)
    assert steps(result.audited.events) == [("pending", "uploading")]


async def test_a_take_over_raises_the_fence_and_is_no_change_of_status(store: Store) -> None:
    file = await uploading(store)

    result = await store.claim(file.file_id, 0, command("UploadFile"))

    newer = result.answer.file
    assert newer.fence == file.fence + 1
    assert (newer.revision, newer.change_no, newer.updated_at) == (file.revision, file.change_no, file.updated_at)
    assert result.audited.events == ()
    assert newer == await store.get_file(file.file_id)


async def test_a_claim_needs_the_right_offset_and_a_file_that_is_not_final(store: Store) -> None:
    file, done = await pending(store), await completed(store)

    with pytest.raises(OffsetMismatch) as wrong:
        await store.claim(file.file_id, 1, command())
    assert wrong.value.metadata == {"file_id": file.file_id, "offset": "1", "expected_offset": "0"}
    assert await store.get_file(file.file_id) == file
    with pytest.raises(FileNotWritable) as final:
        await store.claim(done.file_id, 3, command())
    assert final.value.found == done
    for principal, file_id in (("bob", new_id()), ("ann", file.file_id)):
        with pytest.raises(FileNotFound):
            await store.claim(file_id, 0, command(principal=principal))


async def test_progress_is_recorded_while_the_fence_holds_and_never_shrinks(store: Store) -> None:
    file = await uploading(store, size_bytes=100)

    assert await store.record_progress(file.file_id, file.fence, 40, now())
    assert await store.record_progress(file.file_id, file.fence, 30, now())

    after = await store.get_file(file.file_id)
    assert after.bytes_received == 40
    assert (after.revision, after.change_no, after.updated_at) == (file.revision, file.change_no, file.updated_at)
    newer = (await store.claim(file.file_id, 40, command())).answer.file
    assert not await store.record_progress(file.file_id, file.fence, 90, now())
    assert await store.record_progress(file.file_id, newer.fence, 50, now())
    await store.cancel_file(file.file_id, command())
    assert not await store.record_progress(file.file_id, newer.fence, 60, now())
    assert not await store.record_progress(new_id(), 1, 60, now())
    assert (await store.get_file(file.file_id)).bytes_received == 50


async def test_a_claim_begins_a_run_unless_it_goes_on_with_the_newest(store: Store) -> None:
    file = await pending(store, size_bytes=100)

    async def claim(offset: int, continues: int | None = None) -> tuple[int, tuple[Run, ...]]:
        claimed = (await store.claim(file.file_id, offset, command("UploadFile"), continues)).answer
        assert claimed.file == await store.get_file(file.file_id)
        assert claimed.file.run_fence == claimed.runs[-1].fence
        return claimed.file.fence, claimed.runs

    async def record(fence: int, count: int) -> None:
        assert await store.record_progress(file.file_id, fence, count, now())

    assert await claim(0) == (1, (Run(1, 0),))
    await record(1, 10)
    assert await claim(10, continues=1) == (2, (Run(1, 0),))
    await record(2, 20)
    # Of another process: it does not know the newest, or one that is the newest no more.
    assert await claim(20) == (3, (Run(1, 0), Run(3, 20)))
    assert await claim(20, continues=1) == (4, (Run(1, 0), Run(4, 20)))
    await record(4, 30)
    assert await claim(30, continues=4) == (5, (Run(1, 0), Run(4, 20)))
    assert await claim(30, continues=3) == (6, (Run(1, 0), Run(4, 20), Run(6, 30)))
    names = await store.names_of([file.file_id])
    assert sorted(names[file.file_id].fences) == [1, 3, 4, 6]


async def test_a_run_that_nothing_came_of_is_no_part_of_the_file(store: Store) -> None:
    file = await uploading(store, size_bytes=100)
    await store.claim(file.file_id, 0, command())
    claim = (await store.claim(file.file_id, 0, command())).answer
    assert claim.runs == (Run(3, 0),)


async def test_a_completed_file_that_leaves_bytes_owes_their_deletion(store: Store) -> None:
    left, alone = await uploading(store), await uploading(store)
    newer = (await store.claim(left.file_id, 0, command())).answer.file
    for file, leaves_bytes in ((newer, True), (alone, False)):
        done = await store.complete(
            file.file_id, file.fence, "ab", file.size_bytes, command(), leaves_bytes=leaves_bytes
        )
        assert done.audited.leaves_bytes == leaves_bytes
        assert done.answer.run_fence == file.run_fence
    [owed] = await store.owed_deletions(10)
    assert owed.file_id == left.file_id
    assert (await store.names_of([left.file_id]))[left.file_id] == Named(FileStatus.COMPLETED, 2, (1, 2))

    await store.settle_deletions([owed.row])
    # Nothing is left to know of those before.
    assert (await store.names_of([left.file_id]))[left.file_id] == Named(FileStatus.COMPLETED, 2, (2,))
    assert await store.owed_deletions(10) == []


async def test_progress_of_many_streams_in_one_group(store: Store) -> None:
    files = [await uploading(store, size_bytes=100) for _ in range(5)]
    await store.cancel_file(files[4].file_id, command())

    recorded = await asyncio.gather(
        *(store.record_progress(file.file_id, file.fence, 10 + index, now()) for index, file in enumerate(files)),
        store.record_progress(files[0].file_id, files[0].fence, 70, now()),
        store.record_progress(files[0].file_id, files[0].fence, 60, now()),
        store.record_progress(files[1].file_id, files[1].fence + 1, 99, now()),
    )

    assert recorded == [True, True, True, True, False, True, True, False]
    received = [(await store.get_file(file.file_id)).bytes_received for file in files]
    assert received == [70, 11, 12, 13, 0]


async def test_complete_makes_a_file_final(store: Store) -> None:
    file = await uploading(store)
    at = now()

    result = await store.complete(file.file_id, file.fence, "ef" * 32, 3, command("UploadFile", at=at))

    after = result.answer
    assert (after.status, after.sha256, after.bytes_received) == (FileStatus.COMPLETED, "ef" * 32, 3)
    assert after.completed_at == after.updated_at == at
    assert after == await store.get_file(file.file_id)
    assert steps(result.audited.events) == [("uploading", "completed")]
    assert await store.owed_deletions(10) == []
    short = await uploading(store)
    with pytest.raises(UploadIncomplete):
        await store.complete(short.file_id, short.fence, "", 2, command())
    await assert_history_holds(store)


async def test_fail_makes_a_file_final_and_owes_its_deletion(store: Store) -> None:
    file = await uploading(store)

    result = await store.fail(file.file_id, file.fence, FailureReason.CHECKSUM_MISMATCH, command("UploadFile"))

    after = result.answer
    assert (after.status, after.failure_reason) == (FileStatus.FAILED, "checksum_mismatch")
    assert after.fence > file.fence
    assert after == await store.get_file(file.file_id)
    [event] = result.audited.events
    assert (event.to_status, event.reason, event.actor) == ("failed", "checksum_mismatch", "user")
    assert [each.file_id for each in await store.owed_deletions(10)] == [file.file_id]
    await assert_history_holds(store)


async def test_a_writer_that_lost_is_told_to_whom(store: Store) -> None:
    replaced, cancelled, failed = [await uploading(store) for _ in range(3)]
    await store.claim(replaced.file_id, 0, command())
    await store.cancel_file(cancelled.file_id, command())
    await store.fail(failed.file_id, failed.fence, FailureReason.CHECKSUM_MISMATCH, command())
    done = await completed(store)

    async def complete(file: File) -> None:
        await store.complete(file.file_id, file.fence, "", 3, command())

    async def fail(file: File) -> None:
        await store.fail(file.file_id, file.fence, FailureReason.CHECKSUM_MISMATCH, command())

    for attempt in (complete, fail):
        with pytest.raises(WriterReplaced):
            await attempt(replaced)
        with pytest.raises(UploadCancelled) as stopped:
            await attempt(cancelled)
        assert stopped.value.file == await store.get_file(cancelled.file_id)
        with pytest.raises(WriterReplaced):
            await attempt(failed)
        with pytest.raises(FileNotWritable):
            await attempt(done)
        with pytest.raises(FileNotFound):
            await store.complete(new_id(), 1, "", 3, command())
    await assert_history_holds(store)


async def test_files_nobody_sends_to_expire(store: Store) -> None:
    long_ago = now() - timedelta(days=2)
    stale = await pending(store, at=long_ago)
    claimed_long_ago = await pending(store, at=long_ago)
    await store.claim(claimed_long_ago.file_id, 0, command(at=long_ago))
    fresh = await pending(store)
    claimed_now = await pending(store, at=long_ago)
    await store.claim(claimed_now.file_id, 0, command())
    sent_to = await pending(store, at=long_ago)
    claim = (await store.claim(sent_to.file_id, 0, command(at=long_ago))).answer
    await store.record_progress(sent_to.file_id, claim.file.fence, 1, now())
    open_here = await pending(store, at=long_ago)
    final = await pending(store, at=long_ago)
    await store.cancel_file(final.file_id, command(at=long_ago))
    asked = command("expire", source=Source.EXPIRY, at=long_ago + timedelta(days=2))

    result = await store.expire(by_the_wall(now() - timedelta(days=1)), [open_here.file_id], 100, asked)

    assert {file.file_id for file in result.answer.files} == {stale.file_id, claimed_long_ago.file_id}
    for file in result.answer.files:
        assert file == await store.get_file(file.file_id)
        assert (file.status, file.failure_reason) == (FileStatus.FAILED, "expired")
    assert {(event.actor, event.source) for event in result.audited.events} == {("system", "expiry")}
    # Both ages.
    reason = r"expired: idle for 172800 s by the clock, for \d s while the service ran"
    assert all(re.fullmatch(reason, event.reason) for event in result.audited.events)
    assert (await store.get_file(fresh.file_id)).status is FileStatus.PENDING
    assert [each.file_id for each in await store.owed_deletions(10)] == [claimed_long_ago.file_id]
    again = await store.expire(by_the_wall(now() - timedelta(days=1)), [open_here.file_id], 100, asked)
    assert again.answer.files == ()
    await assert_history_holds(store)


async def test_what_is_old_by_one_clock_alone_does_not_expire(store: Store) -> None:
    """The wall clock was set forward, or the service was down for long; or the wall clock was set back."""
    old, new = await pending(store, at=now() - timedelta(days=2)), await pending(store)
    day_ago = now() - timedelta(days=1)
    for moment in (Moment(now() + timedelta(days=99), 0.0), Moment(day_ago, 0.0)):
        assert (await store.expire(moment, [], 100, command())).answer.files == ()

    expired = await store.expire(Moment(day_ago, store.served), [], 100, command())

    assert [file.file_id for file in expired.answer.files] == [old.file_id]
    assert (await store.get_file(new.file_id)).status is FileStatus.PENDING


async def test_each_activity_counts_by_the_time_served_too(store: Store) -> None:
    idle, claimed, sent_to = [await uploading(store) for _ in range(3)]
    await served_for(store, 0.01)
    since = store.served
    await store.claim(claimed.file_id, 0, command())
    assert await store.record_progress(sent_to.file_id, sent_to.fence, 1, now())
    new = await pending(store)

    expired = await store.expire(Moment(now() + timedelta(days=99), since), [], 100, command())

    assert [file.file_id for file in expired.answer.files] == [idle.file_id]
    for file in (claimed, sent_to, new):
        assert not (await store.get_file(file.file_id)).status.final


async def test_waiting_files_of_a_batch_are_as_old_as_its_last_byte(store: Store) -> None:
    long_ago = now() - timedelta(days=2)
    batch, ids = await batch_of(store, 4, at=long_ago)
    alone = await pending(store, at=long_ago)
    first = (await store.claim(ids[0], 0, command(at=long_ago))).answer.file
    interrupted = (await store.claim(ids[1], 0, command(at=long_ago))).answer.file
    assert await store.record_progress(ids[0], first.fence, 1, now() - timedelta(hours=23))
    asked, since = command("expire", source=Source.EXPIRY), by_the_wall(now() - timedelta(days=1))

    expired = await store.expire(since, [], 100, asked)
    assert {file.file_id for file in expired.answer.files} == {alone.file_id, interrupted.file_id}
    assert expired.answer.looked_at == 4
    # They were looked at: until the batch is idle they cost nothing.
    assert (await store.expire(since, [], 100, asked)).answer.looked_at == 0
    # The last one is done, and the turn of the others comes.
    await finish(store, first)
    assert (await store.expire(by_the_wall(now() - timedelta(hours=1)), [], 100, asked)).answer.files == ()

    # A stream of this node has one of them open, whatever it sends.
    late = by_the_wall(now() + timedelta(days=3))
    later = command("expire", source=Source.EXPIRY, at=now() + timedelta(days=4))
    assert (await store.expire(late, [ids[2]], 100, later)).answer.files == ()
    assert (await store.expire(late, [], 100, later)).answer.files == ()

    abandoned = by_the_wall(now() + timedelta(days=5))
    left = (await store.expire(abandoned, [], 100, command("expire", at=now() + timedelta(days=6)))).answer
    assert {file.file_id for file in left.files} == {ids[2], ids[3]}
    assert (await store.get_batch(batch.batch_id)).status is BatchStatus.FAILED
    await assert_history_holds(store)


async def test_a_batch_is_alive_by_either_clock(store: Store) -> None:
    batch, ids = await batch_of(store, 2, at=now() - timedelta(days=2))
    await served_for(store, 0.01)
    since = store.served
    sent_to = (await store.claim(ids[0], 0, command(at=now() - timedelta(days=2)))).answer.file
    await finish(store, sent_to)

    assert (await store.expire(Moment(now() + timedelta(days=9), since), [], 100, command())).answer.files == ()
    assert (await store.get_file(ids[1])).status is FileStatus.PENDING
    assert (await store.get_batch(batch.batch_id)).status is BatchStatus.PROCESSING


async def test_more_waiting_files_than_one_call_takes(store: Store) -> None:
    _, ids = await batch_of(store, 25, at=now() - timedelta(days=2))
    await store.claim(ids[0], 0, command())
    since = by_the_wall(now() - timedelta(days=1))

    looked = [(await store.expire(since, [], 10, command())).answer for _ in range(4)]

    assert [answer.looked_at for answer in looked] == [10, 10, 4, 0]
    assert not any(answer.files for answer in looked)


async def test_expiry_takes_at_most_so_many_and_rolls_their_batch_up(store: Store) -> None:
    batch, ids = await batch_of(store, 5)

    first = await store.expire(by_the_wall(now() + timedelta(seconds=1)), [], 3, command())
    assert len(first.answer.files) == 3
    assert (await store.get_batch(batch.batch_id)).status is BatchStatus.PENDING
    rest = await store.expire(by_the_wall(now() + timedelta(seconds=1)), [], 3, command())

    assert len(rest.answer.files) == 2
    after = await store.get_batch(batch.batch_id)
    assert (after.status, after.failed_files) == (BatchStatus.FAILED, 5)
    assert {file.file_id for file in (*first.answer.files, *rest.answer.files)} == set(ids)
    await assert_history_holds(store)


async def test_expiry_finds_what_is_idle_behind_what_is_not(store: Store) -> None:
    for _ in range(5):
        await pending(store)
    stale = await pending(store, at=now() - timedelta(days=2))

    expired = await store.expire(by_the_wall(now() - timedelta(days=1)), [], 1, command())

    assert [file.file_id for file in expired.answer.files] == [stale.file_id]


async def test_a_batch_follows_its_files(store: Store) -> None:
    batch, ids = await batch_of(store, 4)

    result = await store.claim(ids[0], 0, command())
    assert (await store.get_batch(batch.batch_id)).status is BatchStatus.PROCESSING
    assert [(event.source, event.actor) for event in result.audited.events] == [
        ("grpc", "user"),
        ("roll_up", "system"),
    ]
    revision = (await store.get_batch(batch.batch_id)).revision
    second = (await store.claim(ids[1], 0, command())).answer.file
    assert (await store.get_batch(batch.batch_id)).revision == revision
    done = await finish(store, result.answer.file)
    counted = await store.get_batch(batch.batch_id)
    assert (counted.completed_files, counted.revision) == (1, revision + 1)
    assert counted.change_no > done.change_no
    await store.fail(second.file_id, second.fence, FailureReason.CHECKSUM_MISMATCH, command())
    await store.cancel_file(ids[2], command())
    assert not (await store.get_batch(batch.batch_id)).status.final
    await finish(store, (await store.claim(ids[3], 0, command())).answer.file)

    after = await store.get_batch(batch.batch_id)
    assert (after.status, after.cancelled_by, after.cancelled_at) == (BatchStatus.FAILED, "", None)
    assert (after.completed_files, after.failed_files, after.cancelled_files_count) == (2, 1, 1)
    await assert_history_holds(store)


async def test_a_batch_without_a_failure_completes_even_if_some_files_were_cancelled(store: Store) -> None:
    batch, ids = await batch_of(store, 2)
    await store.cancel_file(ids[0], command())
    assert (await store.get_batch(batch.batch_id)).status is BatchStatus.PENDING

    await finish(store, (await store.claim(ids[1], 0, command())).answer.file)

    assert (await store.get_batch(batch.batch_id)).status is BatchStatus.COMPLETED
    events = [event for event in await audit(store, batch_id=batch.batch_id) if not event.file_id]
    assert steps(events) == [("", "pending"), ("pending", "processing"), ("processing", "completed")]
    await assert_history_holds(store)


async def test_a_file_of_a_final_batch_cannot_be_claimed(store: Store) -> None:
    batch, ids = await batch_of(store, 2)
    await store.cancel_batch(batch.batch_id, command("CancelBatch"))

    for file_id in ids:
        with pytest.raises(FileNotWritable):
            await store.claim(file_id, 0, command())


async def test_a_cancel_that_a_lost_page_owes_is_kept_until_a_stream_or_an_end_clears_it(backend: StoreAt) -> None:
    store = await backend.open()
    first, second = await uploading(store), await uploading(store)
    due = now() + timedelta(minutes=5)
    sooner = due - timedelta(seconds=1)
    assert not await store.cancel_later(first.file_id, first.fence + 1, due, "lost")
    assert not await store.cancel_later((await pending(store)).file_id, 0, due, "lost")
    last = store.last_change
    assert await store.cancel_later(first.file_id, first.fence, due, "lost")
    assert await store.cancel_later(second.file_id, second.fence, sooner, "lost")
    assert store.last_change == last
    await store.close()

    store = await backend.open()
    assert await store.due_cancels(1) == [DueCancel(second.file_id, "", second.fence, sooner, "lost")]
    await store.cancel_file(second.file_id, command())
    assert [one.file_id for one in await store.due_cancels(10)] == [first.file_id]
    await store.claim(first.file_id, 0, command("UploadFile"))
    assert await store.due_cancels(10) == []
    await store.close()
