"""How files that come whole get their rows: completed at once, with the events of the whole way, many in a group."""

from __future__ import annotations

import asyncio

import pytest

from contract.store.kit import assert_history_holds, audit, command, everything, new_id, now, pending
from upload_server.domain.errors import RequestIdReused, StorageFailure
from upload_server.domain.states import File, FileSpec, FileStatus
from upload_server.store.protocol import Result, Store

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
    assert await store.get_file(file_id, "") == file
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


async def test_initiations_have_request_ids_of_their_own(store: Store) -> None:
    await store.initiate_upload(FileSpec("a.txt", 3), new_id(), command("InitiateUpload", "r", b"f"))
    assert not (await put(store, request_id="r", fingerprint=b"f")).replayed
