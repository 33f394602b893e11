"""How files that come whole get their rows: completed at once, with the events of the whole way, many in a group."""

from __future__ import annotations

import asyncio

import pytest

from contract.store.kit import assert_history_holds, audit, command, everything, new_id, now, pending
from upload_server.domain.errors import CutOff, FileNotFound, FileNotWritable, RequestIdReused, StorageFailure
from upload_server.domain.states import File, FileSpec, FileStatus
from upload_server.store.protocol import Store
from upload_server.store.values import Result

DIGEST = "ab" * 32


async def put(store: Store, name: str = "a.txt", request_id: str = "", fingerprint: bytes = b"") -> Result[File]:
    spec = FileSpec(name, 3, "text/plain", DIGEST)
    return await store.put_file(spec, new_id(), DIGEST, command("PutFile", request_id, fingerprint, reason=""))


async def test_it_is_completed_at_revision_three_with_three_events(store: Store) -> None:
    file_id, at = new_id(), now()
    spec = FileSpec("dir/über.pdf", 5, "application/pdf", DIGEST)

    result = await store.put_file(spec, file_id, DIGEST, command("PutFile", "p1", at=at))

    file = result.answer
    assert (file.file_id, file.filename, file.content_type) == (file_id, "dir/über.pdf", "application/pdf")
    assert (file.status, file.size_bytes, file.bytes_received) == (FileStatus.COMPLETED, 5, 5)
    assert (file.sha256, file.revision, file.fence, file.batch_id) == (DIGEST, 3, 1, "")
    assert file.created_at == file.updated_at == file.completed_at == at
    assert not result.replayed
    assert await store.get_file(file_id) == file
    events = list(result.audited.events)
    assert await audit(store, file_id) == events
    moves = [("", "pending"), ("pending", "uploading"), ("uploading", "completed")]
    assert [(event.from_status, event.to_status) for event in events] == moves
    assert [event.event_id for event in events] == [file.change_no - 2, file.change_no - 1, file.change_no]
    assert {(event.actor, event.source, event.request_id) for event in events} == {("user", "grpc", "p1")}
    await assert_history_holds(store)


async def test_many_at_once_are_numbered_one_after_the_other(store: Store) -> None:
    before = await pending(store)
    results = await asyncio.gather(*(put(store, f"{number}.txt") for number in range(40)))

    numbers = [event.event_id for result in results for event in result.audited.events]
    assert sorted(numbers) == list(range(before.change_no + 1, before.change_no + 1 + 120))
    for result in results:
        assert await audit(store, result.answer.file_id) == list(result.audited.events)
    # A watcher finds each once, as its last event left it.
    found = {change.record.file_id: change for change in await everything(store) if isinstance(change.record, File)}
    assert all(found[result.answer.file_id].record == result.answer for result in results)
    await assert_history_holds(store)


async def test_a_repeated_call_gets_the_file_of_the_first_also_in_the_same_group(store: Store) -> None:
    first, *others = await asyncio.gather(*(put(store, request_id="r", fingerprint=b"f") for _ in range(5)))

    assert not first.replayed
    assert all(other.replayed and other.answer == first.answer and not other.audited.events for other in others)
    assert [change.record for change in await everything(store)] == [first.answer]
    again = await put(store, request_id="r", fingerprint=b"f")
    assert (again.replayed, again.answer) == (True, first.answer)
    await assert_history_holds(store)


async def test_another_request_under_the_id_is_refused_and_the_others_of_the_group_go_on(store: Store) -> None:
    outcomes = await asyncio.gather(
        put(store, "a", "r", b"one"), put(store, "b", "r", b"two"), put(store, "c", "s", b"two"), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [Result, RequestIdReused, Result]
    names = {change.record.filename for change in await everything(store) if isinstance(change.record, File)}
    assert names == {"a", "c"}


async def test_lost_bytes_get_no_row_but_a_repeated_call_its_answer(store: Store) -> None:
    first = await put(store, request_id="r", fingerprint=b"f")
    spec = FileSpec("a.txt", 3)

    lost = command("PutFile", "r", b"f")
    again = await store.put_file(spec, new_id(), DIGEST, lost, StorageFailure())
    with pytest.raises(StorageFailure):
        await store.put_file(spec, new_id(), DIGEST, command("PutFile", "other", b"f"), StorageFailure())

    assert (again.replayed, again.answer) == (True, first.answer)
    assert len(await everything(store)) == 1
    # The refusal is not the answer to its request id.
    assert not (await put(store, request_id="other", fingerprint=b"f")).replayed


async def test_bytes_that_another_node_may_have_swept_up_get_no_row(store: Store) -> None:
    file = await pending(store, 3)

    with pytest.raises(CutOff):
        await store.put_file(FileSpec("a.txt", 3), new_id(), DIGEST, command("PutFile"), alive=lambda: False)
    with pytest.raises(CutOff):
        await store.complete_whole(file.file_id, DIGEST, 3, command("UploadFile"), alive=lambda: False)

    assert [change.record for change in await everything(store)] == [file]
    assert store.life()()


async def test_initiations_have_request_ids_of_their_own(store: Store) -> None:
    await store.initiate_upload(FileSpec("a.txt", 3), new_id(), command("InitiateUpload", "r", b"f"))
    assert not (await put(store, request_id="r", fingerprint=b"f")).replayed


# A file that was announced -------------------------------------------------------------------------------------------


async def whole(store: Store, file_id: str, size: int = 3, principal: str = "") -> Result[File]:
    return await store.complete_whole(file_id, DIGEST, size, command("UploadFile", principal=principal))


async def test_a_pending_file_is_completed_by_one_write_with_both_events(store: Store) -> None:
    before = await pending(store)

    result = await whole(store, before.file_id)

    file = result.answer
    assert (file.status, file.revision, file.bytes_received) == (FileStatus.COMPLETED, 3, 3)
    assert (file.sha256, file.fence, file.created_at) == (DIGEST, 1, before.created_at)
    assert file.completed_at == file.updated_at
    assert await store.get_file(file.file_id) == file
    moves = [("pending", "uploading"), ("uploading", "completed")]
    assert [(event.from_status, event.to_status) for event in result.audited.events] == moves
    assert (await audit(store, file.file_id))[1:] == list(result.audited.events)
    await assert_history_holds(store)


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_a_batch_is_processing_before_it_is_completed_also_in_one_group(store: Store, count: int) -> None:
    specs, ids, batch_id = [FileSpec(f"{i}", 3) for i in range(count)], [new_id() for _ in range(count)], new_id()
    await store.initiate_batch(specs, batch_id, ids, command("InitiateBatch"))

    await asyncio.gather(*(whole(store, file_id) for file_id in ids))

    batch = await store.get_batch(batch_id)
    assert (batch.status.value, batch.completed_files) == ("completed", count)
    trail = [event for event in await audit(store, batch_id=batch_id) if not event.file_id]
    assert [event.to_status for event in trail] == ["pending", "processing", "completed"]
    # Watchers rely on it: the batch comes after its files.
    assert max([(await store.get_file(file_id)).change_no for file_id in ids]) < batch.change_no
    await assert_history_holds(store)


async def test_who_is_late_is_refused_and_changes_nothing(store: Store) -> None:
    cancelled, streamed, short, other = [await pending(store) for _ in range(4)]
    announced = FileSpec("a", 3, "", "cd" * 32)
    digest = (await store.initiate_upload(announced, new_id(), command("InitiateUpload"))).answer
    await store.cancel_file(cancelled.file_id, command())
    await store.claim(streamed.file_id, 0, command("UploadFile"))

    outcomes = await asyncio.gather(
        whole(store, cancelled.file_id),
        whole(store, streamed.file_id),
        whole(store, short.file_id, size=2),
        whole(store, digest.file_id),
        whole(store, other.file_id, principal="eve"),
        whole(store, new_id()),
        whole(store, other.file_id),
        whole(store, other.file_id),
        return_exceptions=True,
    )

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [*[FileNotWritable] * 4, *[FileNotFound] * 2, Result, FileNotWritable]
    statuses = [(await store.get_file(file.file_id)).status for file in (cancelled, streamed, short, digest)]
    assert [status.value for status in statuses] == ["cancelled", "uploading", "pending", "pending"]
    await assert_history_holds(store)


async def test_of_a_cancel_and_a_whole_file_in_one_group_exactly_one_wins(store: Store) -> None:
    files = [await pending(store) for _ in range(20)]
    finishing = [whole(store, file.file_id) for file in files]
    cancelling = [store.cancel_file(file.file_id, command()) for file in files]
    outcomes = await asyncio.gather(*finishing, *cancelling, return_exceptions=True)
    for won, cancel in zip(outcomes[:20], outcomes[20:], strict=True):
        assert isinstance(won, Result) != isinstance(cancel, Result)
    await assert_history_holds(store)


async def test_a_file_of_a_cancelled_batch_is_refused(store: Store) -> None:
    file_id, batch_id = new_id(), new_id()
    await store.initiate_batch([FileSpec("a", 3)], batch_id, [file_id], command("InitiateBatch"))
    await store.cancel_batch(batch_id, command("CancelBatch"))
    with pytest.raises(FileNotWritable):
        await whole(store, file_id)
