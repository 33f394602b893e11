"""How a completed file lets go of its bytes: its row stays, and says so."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import pytest

from contract.store.kit import (
    EVERYTHING,
    assert_history_holds,
    audit,
    batch_of,
    command,
    completed,
    counted,
    finish,
    new_id,
    now,
    pending,
    steps,
    uploading,
)
from upload_server.domain.errors import ContentDeleted, FileNotCompleted, FileNotFound, RequestIdReused
from upload_server.domain.states import FileStatus, Source
from upload_server.domain.statistics import Total
from upload_server.store.protocol import Store
from upload_server.store.values import Moment, Result


async def kept(store: Store) -> Total:
    """What the store counts of completed files: the bytes are those that a principal's quota is used by."""
    return (await store.count("", now())).files[FileStatus.COMPLETED]


async def test_a_completed_file_lets_go_of_its_bytes(store: Store) -> None:
    file, at = await completed(store), now() + timedelta(seconds=1)
    before = await counted(store)
    assert await kept(store) == Total(1, 3)

    done = await store.delete_content(file.file_id, command("DeleteContent", "r", reason="consumed", at=at))

    after = await store.get_file(file.file_id)
    assert done.answer == after
    assert (after.status, after.revision, after.updated_at) == (
        FileStatus.COMPLETED,
        file.revision + 1,
        file.updated_at,
    )
    assert (after.content_deleted_at, after.content_deleted_by, after.sha256) == (at, "user", file.sha256)
    event = (await audit(store, file.file_id))[-1]
    assert done.audited.events == (event,)
    assert (event.from_status, event.to_status, event.reason) == ("completed", "completed", "consumed")
    assert (event.request_id, event.occurred_at, event.event_id) == ("r", at, after.change_no)
    [owed] = await store.owed_deletions(10)
    assert owed.file_id == file.file_id
    named = (await store.names_of([file.file_id]))[file.file_id]
    assert (named.kept, named.left_over([named.run_fence])) == (None, (named.run_fence,))
    assert await counted(store) == before
    assert await kept(store) == Total(1, 0)
    [change] = (await store.read_changes(EVERYTHING, None, file.change_no, 10)).changes
    assert change.record == after
    await assert_history_holds(store)


@pytest.mark.parametrize(("source", "principal", "by"), [("http", "ann", "user:ann"), ("retention", "", "retention")])
async def test_a_file_says_who_let_go_of_its_bytes(store: Store, source: str, principal: str, by: str) -> None:
    spec = (await pending(store, principal=principal)).file_id
    claimed = (await store.claim(spec, 0, command("UploadFile", principal=principal))).answer.file
    done = await store.complete(spec, claimed.fence, "ab" * 32, 3, command("UploadFile", principal=principal))
    asked = command("DeleteContent", source=Source(source), principal=principal)

    assert (await store.delete_content(done.answer.file_id, asked)).answer.content_deleted_by == by


async def test_what_is_not_completed_or_was_let_go_is_refused_and_stays(store: Store) -> None:
    gone = await pending(store)
    await store.cancel_file(gone.file_id, command())
    gone = await store.get_file(gone.file_id)
    for file in (await pending(store), await uploading(store), gone):
        with pytest.raises(FileNotCompleted) as refused:
            await store.delete_content(file.file_id, command("DeleteContent", new_id()))
        assert refused.value.found == await store.get_file(file.file_id) == file
    with pytest.raises(FileNotFound):
        await store.delete_content(new_id(), command("DeleteContent"))
    with pytest.raises(FileNotFound):
        await store.delete_content((await completed(store)).file_id, command("DeleteContent", principal="bob"))
    file = await completed(store)
    await store.delete_content(file.file_id, command("DeleteContent", "first"))
    with pytest.raises(ContentDeleted) as again:
        await store.delete_content(file.file_id, command("DeleteContent", "second"))
    assert again.value.metadata["content_deleted_by"] == "user"
    await assert_history_holds(store)


async def test_a_repeated_call_gets_the_first_answer_and_another_request_is_refused(store: Store) -> None:
    file = await completed(store)
    first = await store.delete_content(file.file_id, command("DeleteContent", "r", b"f"))
    before = store.last_change

    again = await store.delete_content(file.file_id, command("DeleteContent", "r", b"f"))

    assert (again.answer, again.replayed, again.audited.events) == (first.answer, True, ())
    with pytest.raises(RequestIdReused):
        await store.delete_content(file.file_id, command("DeleteContent", "r", b"g"))
    assert store.last_change == before


async def test_of_many_calls_at_once_one_lets_go(store: Store) -> None:
    file = await completed(store)
    asked = [store.delete_content(file.file_id, command("DeleteContent")) for _ in range(20)]

    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert sum(isinstance(outcome, Result) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, ContentDeleted) for outcome in outcomes) == 19
    assert steps(await audit(store, file.file_id)).count(("completed", "completed")) == 1


async def test_a_file_of_a_batch_lets_go_and_its_batch_stays(store: Store) -> None:
    batch, [file_id] = await batch_of(store, 1)
    await finish(store, (await store.claim(file_id, 0, command("UploadFile"))).answer.file)
    batch = await store.get_batch(batch.batch_id)

    await store.delete_content(file_id, command("DeleteContent"))

    assert await store.get_batch(batch.batch_id) == batch
    await assert_history_holds(store)


async def test_what_is_let_go_while_left_over_bytes_are_deleted_stays_owed(store: Store) -> None:
    """The janitor has deleted what another run left of a completed file; all of it is owed by now."""
    file = await uploading(store)
    claimed = (await store.claim(file.file_id, 0, command("UploadFile"))).answer.file
    await store.complete(file.file_id, claimed.fence, "ab" * 32, 3, command("UploadFile"), leaves_bytes=True)
    [owed] = await store.owed_deletions(10)

    await store.delete_content(file.file_id, command("DeleteContent"))
    await store.settle_deletions([], [owed.row])

    assert [each.file_id for each in await store.owed_deletions(10)] == [file.file_id]
    await store.settle_deletions([owed.row])
    assert await store.owed_deletions(10) == []


async def test_what_was_completed_long_ago_is_found_by_the_trail_and_let_go(store: Store) -> None:
    """By both clocks; a page at a time, and up to the first event that is too young."""
    old = [await completed(store) for _ in range(3)]
    gone = await completed(store)
    await store.delete_content(gone.file_id, command("DeleteContent"))
    waiting = await pending(store)
    between = Moment(now(), store.served)
    young = await completed(store)
    ages = await store.aged_content(between, 0, 1000)
    assert (ages.file_ids, ages.more) == (tuple(file.file_id for file in old), False)
    assert waiting.change_no <= ages.upto < young.change_no
    assert (await store.aged_content(Moment(now(), -1.0), 0, 1000)).file_ids == ()
    assert (await store.aged_content(Moment(old[0].created_at, math.inf), 0, 1000)).file_ids == ()
    found, page = list[str](), await store.aged_content(between, 0, 2)
    while page.more:
        found += page.file_ids
        page = await store.aged_content(between, page.upto, 2)
    assert [*found, *page.file_ids] == [file.file_id for file in old]
    assert await kept(store) == Total(5, 12)

    retention = command("Prune", source=Source.RETENTION, reason="kept for 1 s")
    ids = [file.file_id for file in (*old, gone, waiting)]
    done = [await store.prune_content(ids, retention) for _ in range(2)]

    assert [result.answer for result in done] == [3, 0]
    assert await kept(store) == Total(5, 3)
    assert (done[0].audited.leaves_bytes, len(done[0].audited.events)) == (True, 3)
    for file in old:
        after = await store.get_file(file.file_id)
        assert (after.status, after.content_deleted_by) == (FileStatus.COMPLETED, "retention")
        event = (await audit(store, file.file_id))[-1]
        assert (event.actor, event.source, event.reason) == ("system", "retention", "kept for 1 s")
    assert {each.file_id for each in await store.owed_deletions(10)} == {file.file_id for file in (*old, gone)}
    assert (await store.get_file(young.file_id)) == young
    await assert_history_holds(store)
