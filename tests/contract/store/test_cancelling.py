"""What a cancel does, of a file and of a batch, in every state."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from contract.store.kit import (
    assert_history_holds,
    audit,
    batch_of,
    command,
    completed,
    everything,
    finish,
    new_id,
    now,
    pending,
    steps,
    uploading,
)
from upload_server.domain.caller import Caller
from upload_server.domain.errors import (
    BatchNotCancellable,
    BatchNotFound,
    FileNotCancellable,
    FileNotFound,
    RequestIdReused,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.states import BatchStatus, FailureReason, File, FileSpec, FileStatus, Source
from upload_server.store.protocol import Store
from upload_server.store.values import Trail


@pytest.mark.parametrize("make", [pending, uploading])
async def test_a_file_that_is_not_final_is_cancelled(store: Store, make: object) -> None:
    file = await (pending(store) if make is pending else uploading(store))
    at = now()

    result = await store.cancel_file(file.file_id, command(reason="no longer wanted", request_id="r", at=at))

    answer = result.answer
    assert (answer.file_id, answer.filename, answer.cancelled_at) == (file.file_id, file.filename, at)
    after = await store.get_file(file.file_id)
    assert (after.status, after.cancelled_at, after.cancelled_by) == (FileStatus.CANCELLED, at, "user")
    assert (after.cancel_reason, after.updated_at) == ("no longer wanted", at)
    assert after.revision == file.revision + 1
    assert after.fence > file.fence
    [event] = result.audited.events
    assert event == (await audit(store, file.file_id))[-1]
    assert (event.from_status, event.to_status) == (file.status, "cancelled")
    assert (event.reason, event.request_id, event.event_id) == ("no longer wanted", "r", after.change_no)
    await assert_history_holds(store)


@pytest.mark.parametrize("source", list(Source))
@pytest.mark.parametrize("principal", ["", "ann"])
async def test_a_cancelled_file_says_who(store: Store, source: Source, principal: str) -> None:
    file = await pending(store, principal=principal)
    asked = command(source=source, principal=principal)

    await store.cancel_file(file.file_id, asked)

    after = await store.get_file(file.file_id, principal)
    # `batch_cancel` as a source of one file's cancel does not come from a caller; the rest is the domain's rule.
    if source is not Source.BATCH_CANCEL:
        assert after.cancelled_by == asked.caller.cancelled_by
    events = await store.list_audit_events(Trail(principal, file.file_id), None, 10)
    assert (events.rows[-1].actor, events.rows[-1].source) == (asked.caller.actor, source)


async def test_a_final_file_is_refused_and_stays(store: Store) -> None:
    done, failed, gone = await completed(store), await uploading(store), await pending(store)
    failed = (await store.fail(failed.file_id, failed.fence, FailureReason.CHECKSUM_MISMATCH, command())).answer
    await store.cancel_file(gone.file_id, command())
    gone = await store.get_file(gone.file_id)
    before = store.last_change

    for file in (done, failed, gone):
        with pytest.raises(FileNotCancellable) as refused:
            await store.cancel_file(file.file_id, command(request_id=new_id()))
        assert refused.value.found == file
        assert await store.get_file(file.file_id) == file

    assert store.last_change == before
    await assert_history_holds(store)


async def test_an_unknown_or_foreign_file_is_not_found(store: Store) -> None:
    file = await pending(store, principal="ann")

    for file_id in (new_id(), "", "x" * 128, file.file_id):
        with pytest.raises(FileNotFound):
            await store.cancel_file(file_id, command(principal="bob"))

    assert (await store.get_file(file.file_id, "ann")) == file
    # Who sees everybody's may, and is named.
    await store.cancel_file(file.file_id, command()._replace(caller=Caller(Source.GRPC, "operator")))
    assert (await store.get_file(file.file_id, "ann")).cancelled_by == "user:operator"


async def test_a_cancel_with_a_fence_needs_the_row_to_carry_it(store: Store) -> None:
    file = await uploading(store)
    newer = (await store.claim(file.file_id, 0, command())).answer.file

    with pytest.raises(WriterReplaced):
        await store.cancel_file(file.file_id, command(), fence=file.fence)
    await store.cancel_file(file.file_id, command(), fence=newer.fence)
    with pytest.raises(FileNotCancellable):
        await store.cancel_file(file.file_id, command(), fence=newer.fence)


async def test_a_repeated_cancel_gets_the_first_answer_again(store: Store) -> None:
    file = await pending(store)
    first = await store.cancel_file(file.file_id, command(request_id="r", fingerprint=b"f"))

    again = await store.cancel_file(file.file_id, command(request_id="r", fingerprint=b"f"))

    assert again.answer == first.answer
    assert again.replayed
    assert again.audited.events == ()
    with pytest.raises(RequestIdReused):
        await store.cancel_file(file.file_id, command(request_id="r", fingerprint=b"g"))
    with pytest.raises(FileNotCancellable):
        await store.cancel_file(file.file_id, command(request_id="other"))


async def test_a_refused_cancel_keeps_no_answer(store: Store) -> None:
    file = await completed(store)
    with pytest.raises(FileNotCancellable):
        await store.cancel_file(file.file_id, command(request_id="r", fingerprint=b"f"))

    other = await pending(store)
    result = await store.cancel_file(other.file_id, command(request_id="r", fingerprint=b"g"))

    assert not result.replayed


async def test_commands_of_one_group_for_one_file_get_the_right_answers(store: Store) -> None:
    file = await pending(store)
    asked = [
        store.cancel_file(file.file_id, command(request_id="same", fingerprint=b"f")),
        store.cancel_file(file.file_id, command(request_id="same", fingerprint=b"f")),
        store.cancel_file(file.file_id, command(request_id="same", fingerprint=b"other")),
        store.cancel_file(file.file_id, command(request_id="different")),
        store.cancel_file(file.file_id, command()),
        store.cancel_file(new_id(), command()),
    ]

    first, same, reused, different, plain, unknown = await asyncio.gather(*asked, return_exceptions=True)

    assert not isinstance(first, BaseException)
    assert not first.replayed
    assert not isinstance(same, BaseException)
    assert same.replayed
    assert same.answer == first.answer
    assert isinstance(reused, RequestIdReused)
    after = await store.get_file(file.file_id)
    for refused in (different, plain):
        assert isinstance(refused, FileNotCancellable)
        assert refused.found == after
    assert isinstance(unknown, FileNotFound)
    assert after.revision == 2
    await assert_history_holds(store)


async def test_one_request_id_for_two_files_cancels_only_the_first(store: Store) -> None:
    one, two = await pending(store), await pending(store)

    results = await asyncio.gather(
        store.cancel_file(one.file_id, command(request_id="r", fingerprint=b"one")),
        store.cancel_file(two.file_id, command(request_id="r", fingerprint=b"two")),
        return_exceptions=True,
    )

    assert not isinstance(results[0], BaseException)
    assert isinstance(results[1], RequestIdReused)
    assert (await store.get_file(two.file_id)) == two


async def test_a_batch_cancel_takes_every_file_that_is_not_final(store: Store) -> None:
    batch, ids = await batch_of(store, 5)
    done = (await store.claim(ids[0], 0, command())).answer.file
    done = await finish(store, done)
    await store.claim(ids[1], 0, command())
    at = now()

    result = await store.cancel_batch(
        batch.batch_id, command("CancelBatch", reason="stop", request_id="r", at=at, source=Source.HTTP)
    )

    answer = result.answer
    assert (answer.cancelled_files_count, answer.total_files_in_batch, answer.cancelled_at) == (4, 5, at)
    after = await store.get_batch(batch.batch_id)
    assert (after.status, after.cancelled_at, after.cancelled_by) == (BatchStatus.CANCELLED, at, "user")
    assert (after.cancel_reason, after.cancelled_files_count, after.completed_files) == ("stop", 4, 1)
    files = [await store.get_file(file_id) for file_id in ids]
    assert files[0] == done
    assert {(file.status, file.cancelled_by, file.cancel_reason, file.cancelled_at) for file in files[1:]} == {
        (FileStatus.CANCELLED, "batch_cancel", "stop", at)
    }
    numbers = [file.change_no for file in files[1:]]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert after.change_no == numbers[-1] + 1
    audited = result.audited
    assert (audited.files, audited.first_event_id, audited.last_event_id) == (4, numbers[0], numbers[-1])
    events = [event for event in await audit(store, batch_id=batch.batch_id) if event.to_status == "cancelled"]
    assert {(event.actor, event.reason, event.request_id) for event in events} == {("user", "stop", "r")}
    assert [event.source for event in events] == ["batch_cancel"] * 4 + ["http"]
    assert events[-1] == audited.events[0]
    await assert_history_holds(store)


async def test_a_final_or_unknown_batch_is_refused(store: Store) -> None:
    batch, _ = await batch_of(store, 2)
    foreign, _ = await batch_of(store, 2, principal="ann")
    await store.cancel_batch(batch.batch_id, command("CancelBatch"))
    before = store.last_change

    with pytest.raises(BatchNotCancellable) as refused:
        await store.cancel_batch(batch.batch_id, command("CancelBatch", request_id="other"))
    assert refused.value.found == await store.get_batch(batch.batch_id)
    for batch_id in (new_id(), foreign.batch_id):
        with pytest.raises(BatchNotFound):
            await store.cancel_batch(batch_id, command("CancelBatch", principal="bob"))
    assert store.last_change == before


async def test_a_repeated_batch_cancel_gets_the_first_answer_again(store: Store) -> None:
    batch, _ = await batch_of(store, 3)
    first = await store.cancel_batch(batch.batch_id, command("CancelBatch", "r", b"f"))

    again = await store.cancel_batch(batch.batch_id, command("CancelBatch", "r", b"f"))

    assert (again.answer, again.replayed, again.audited.files) == (first.answer, True, 0)
    with pytest.raises(RequestIdReused):
        await store.cancel_batch(batch.batch_id, command("CancelBatch", "r", b"g"))


async def test_a_file_that_its_batch_cancelled_was_not_cancelled_by_this_request_id(store: Store) -> None:
    batch, ids = await batch_of(store, 1)
    await store.cancel_batch(batch.batch_id, command("CancelBatch", "r", b"f"))

    with pytest.raises(FileNotCancellable):
        await store.cancel_file(ids[0], command("CancelFile", "r", b"f"))


async def test_ten_thousand_files_are_cancelled_in_one_change_of_the_batch(store: Store) -> None:
    batch, ids = await batch_of(store, 10_000)

    result = await store.cancel_batch(batch.batch_id, command("CancelBatch"))

    assert result.answer.cancelled_files_count == 10_000
    after = await store.get_batch(batch.batch_id)
    assert after.revision == 2
    changed = await everything(store, after=batch.change_no, page=1000)
    assert [change.no for change in changed] == list(range(batch.change_no + 1, batch.change_no + 10_002))
    assert [c.record.file_id for c in changed[:-1] if isinstance(c.record, File)] == list(ids)
    assert changed[-1].record == after
    await assert_history_holds(store)


async def test_only_what_a_stream_ever_touched_is_owed_deletion(store: Store) -> None:
    untouched, touched = await pending(store), await uploading(store)
    batch, ids = await batch_of(store, 3)
    await store.claim(ids[1], 0, command())

    await store.cancel_file(untouched.file_id, command())
    await store.cancel_file(touched.file_id, command())
    await store.cancel_batch(batch.batch_id, command("CancelBatch"))

    owed = await store.owed_deletions(10)
    assert [each.file_id for each in owed] == [touched.file_id, ids[1]]
    assert len(await store.owed_deletions(1)) == 1
    await store.settle_deletions([owed[0].row])
    assert [each.file_id for each in await store.owed_deletions(10)] == [ids[1]]
    await store.settle_deletions([each.row for each in owed])
    assert await store.owed_deletions(10) == []


async def test_a_batch_whose_files_were_all_cancelled_one_by_one_is_cancelled(store: Store) -> None:
    batch, ids = await batch_of(store, 3)
    at = now()

    for delay, file_id in enumerate(ids[:-1]):
        await store.cancel_file(file_id, command(at=at + timedelta(seconds=delay)))
        assert (await store.get_batch(batch.batch_id)).status is BatchStatus.PENDING
    result = await store.cancel_file(ids[-1], command(at=at + timedelta(seconds=9)))

    after = await store.get_batch(batch.batch_id)
    assert (after.status, after.cancelled_by) == (BatchStatus.CANCELLED, "all_files")
    assert after.cancelled_at == after.updated_at == at + timedelta(seconds=9)
    assert (after.revision, after.cancelled_files_count) == (4, 3)
    event = result.audited.events[1]
    assert (event.batch_id, event.file_id, event.actor, event.source) == (batch.batch_id, "", "system", "roll_up")
    assert steps(result.audited.events) == [("pending", "cancelled"), ("pending", "cancelled")]
    await assert_history_holds(store)


async def test_all_files_of_a_batch_cancelled_in_one_group_cancel_it_once(store: Store) -> None:
    batch, ids = await batch_of(store, 30)

    times = [now() + timedelta(seconds=number) for number in range(30)]

    await asyncio.gather(*(store.cancel_file(file_id, command(at=at)) for file_id, at in zip(ids, times, strict=True)))

    after = await store.get_batch(batch.batch_id)
    assert (after.status, after.cancelled_by, after.cancelled_files_count) == (
        BatchStatus.CANCELLED,
        "all_files",
        30,
    )
    # The last file's, also when they are cancelled together.
    assert after.cancelled_at == after.updated_at == times[-1]
    assert steps([e for e in await audit(store, batch_id=batch.batch_id) if not e.file_id]) == [
        ("", "pending"),
        ("pending", "cancelled"),
    ]
    await assert_history_holds(store)


async def test_a_refusal_in_a_group_spoils_no_other_write(store: Store) -> None:
    files = [await pending(store) for _ in range(5)]
    done = await completed(store)

    results = await asyncio.gather(
        store.cancel_file(files[0].file_id, command()),
        store.cancel_file(done.file_id, command()),
        store.claim(done.file_id, 0, command()),
        store.claim(files[1].file_id, 7, command()),
        store.cancel_file(new_id(), command()),
        store.claim(files[2].file_id, 0, command()),
        return_exceptions=True,
    )

    assert [isinstance(result, UploadError) for result in results] == [False, True, True, True, True, False]
    assert (await store.get_file(files[0].file_id)).status is FileStatus.CANCELLED
    assert (await store.get_file(files[2].file_id)).status is FileStatus.UPLOADING
    await assert_history_holds(store)


async def test_cancels_wait_for_one_long_write_however_many_wait(store: Store) -> None:
    alone = await pending(store)
    batch, _ = await batch_of(store, 100)
    told: list[str] = []
    store.on_commit(lambda commits: told.extend(commit.audited.events[0].to_status for commit in commits))

    specs = [FileSpec(f"{index}.bin", 3) for index in range(2000)]
    ids = [[new_id() for _ in specs] for _ in range(5)]
    announced = [store.initiate_batch(specs, new_id(), each, command("InitiateBatch")) for each in ids]
    cancelled = store.cancel_file(alone.file_id, command()), store.cancel_batch(batch.batch_id, command("CancelBatch"))
    await asyncio.gather(*announced, *cancelled)

    # The first one announced may have begun; between the two cancels there is none.
    first = told.index("cancelled")
    assert first <= 1
    assert told[first : first + 2] == ["cancelled"] * 2
    assert sorted(told) == ["cancelled"] * 2 + ["pending"] * 5
