"""Get, list, audit, counts: what a caller sees, a page at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import pytest

from contract.store.kit import (
    audit,
    batch_of,
    by_the_wall,
    command,
    completed,
    new_id,
    now,
    pending,
    served_for,
    steps,
    uploading,
)
from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import BatchStatus, File, FileSpec, FileStatus
from upload_server.domain.tokens import Cursor
from upload_server.store.protocol import Store
from upload_server.store.values import Listing, Moment, Page, Trail

T = TypeVar("T")


async def all_pages(
    read: Callable[[Listing, Cursor | None, int], Awaitable[Page[T]]], listing: Listing, limit: int
) -> list[T]:
    rows: list[T] = []
    cursor = None
    while True:
        page = await read(listing, cursor, limit)
        assert len(page.rows) <= limit
        rows += page.rows
        if not page.next_cursor:
            return rows
        assert len(page.rows) == limit
        cursor = page.next_cursor


async def listed(
    store: Store,
    status: FileStatus | None = None,
    batch_id: str = "",
    limit: int = 50,
    owner: str | None = "",
    *,
    newest_first: bool = False,
) -> list[File]:
    listing = Listing(owner, [status] if status else [], batch_id, newest_first=newest_first)
    return await all_pages(store.list_files, listing, limit)


def ids(files: Sequence[File]) -> list[str]:
    return [file.file_id for file in files]


async def test_unknown_and_foreign_are_the_same(store: Store) -> None:
    file = await pending(store, principal="ann")
    batch, _ = await batch_of(store, 1, principal="ann")

    for file_id in (new_id(), file.file_id, "", "x" * 128, "'; --"):
        with pytest.raises(FileNotFound):
            await store.get_file(file_id, "bob")
    for batch_id in (new_id(), batch.batch_id):
        with pytest.raises(BatchNotFound):
            await store.get_batch(batch_id, "bob")


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_files_are_listed_in_order_of_creation_a_page_at_a_time(store: Store, limit: int) -> None:
    alone = [await pending(store) for _ in range(3)]
    batch, members = await batch_of(store, 4)
    last = await uploading(store)
    await store.cancel_file(members[1], command())
    await pending(store, principal="ann")

    assert ids(await listed(store, limit=limit)) == [*ids(alone), *members, last.file_id]
    assert ids(await listed(store, batch_id=batch.batch_id, limit=limit)) == list(members)
    pending_ids = [*ids(alone), members[0], *members[2:]]
    assert ids(await listed(store, FileStatus.PENDING, limit=limit)) == pending_ids
    cancelled = await listed(store, FileStatus.CANCELLED, batch.batch_id, limit)
    assert ids(cancelled) == [members[1]]
    assert await listed(store, FileStatus.COMPLETED, limit=limit) == []
    assert await listed(store, batch_id=new_id(), limit=limit) == []
    assert await listed(store, batch_id=batch.batch_id, owner="ann", limit=limit) == []
    assert len(await listed(store, owner="ann", limit=limit)) == 1


@pytest.mark.parametrize("limit", [1, 2, 7, 50])
async def test_any_states_are_listed_in_either_direction(store: Store, limit: int) -> None:
    alone = [await pending(store) for _ in range(3)]
    batch, members = await batch_of(store, 4)
    moving = await uploading(store)
    done = await completed(store)
    await store.cancel_file(members[1], command())
    await pending(store, principal="ann")
    every = [*ids(alone), *members, moving.file_id, done.file_id]
    wanted = {FileStatus.UPLOADING: {moving.file_id}, FileStatus.CANCELLED: {members[1]}}
    wanted[FileStatus.PENDING] = {*every} - {moving.file_id, done.file_id, members[1]}

    for statuses in ([], [FileStatus.PENDING], list(wanted), [FileStatus.CANCELLED, FileStatus.FAILED], [*FileStatus]):
        shown = set().union(*(wanted.get(status, {done.file_id}) for status in statuses)) if statuses else {*every}
        if FileStatus.COMPLETED not in statuses and statuses:
            shown -= {done.file_id}
        for newest_first in (False, True):
            for batch_id, of in (("", every), (batch.batch_id, [*members])):
                listing = Listing("", statuses, batch_id, newest_first=newest_first)
                found = await all_pages(store.list_files, listing, limit)
                order = of[::-1] if newest_first else of
                assert ids(found) == [file_id for file_id in order if file_id in shown]


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_files_without_a_batch_are_listed_alone(store: Store, limit: int) -> None:
    first = await pending(store)
    await batch_of(store, 5)
    second = await completed(store)
    await pending(store, principal="ann")
    order = ids([first, second])

    for newest_first in (False, True):
        listing = Listing("", without_batch=True, newest_first=newest_first)
        found = await all_pages(store.list_files, listing, limit)
        assert ids(found) == (order[::-1] if newest_first else order)


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_file_that_waited_for_the_writer_stands_where_its_time_does(store: Store, limit: int) -> None:
    """A write that overtakes a long one has the smaller number and the greater time."""
    at = now()
    late, first, second, early = [await pending(store, at=at + timedelta(seconds=seconds)) for seconds in (5, 0, 0, -5)]
    order = [early.file_id, first.file_id, second.file_id, late.file_id]

    assert ids(await listed(store, limit=limit)) == order
    assert ids(await listed(store, limit=limit, newest_first=True)) == order[::-1]
    assert ids(await listed(store, FileStatus.PENDING, limit=limit, newest_first=True)) == order[::-1]


@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_batches_are_listed_in_either_direction(store: Store, limit: int) -> None:
    made = [(await batch_of(store, 2))[0].batch_id for _ in range(4)]
    await batch_of(store, 1, principal="ann")
    await store.cancel_batch(made[1], command("CancelBatch"))
    rest = [made[0], *made[2:]]

    for newest_first in (False, True):
        for statuses, wanted in (
            ([], made),
            ([BatchStatus.PENDING], rest),
            ([BatchStatus.CANCELLED, BatchStatus.PENDING], made),
            ([BatchStatus.COMPLETED], []),
        ):
            listing = Listing("", statuses, newest_first=newest_first)
            found = await all_pages(store.list_batches, listing, limit)
            assert [batch.batch_id for batch in found] == (wanted[::-1] if newest_first else wanted)


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_audit_events_are_listed_in_order_a_page_at_a_time(store: Store, limit: int) -> None:
    done = await completed(store)
    batch, members = await batch_of(store, 3)
    await store.cancel_batch(batch.batch_id, command("CancelBatch"))
    before = store.last_change
    await pending(store, principal="ann")

    assert len(await audit(store, page=limit)) == 3 + 4 + 4 + 1
    everything = [event for event in await audit(store, page=limit) if event.event_id <= before]
    numbers = [event.event_id for event in everything]
    assert numbers == sorted(set(numbers))
    assert len(everything) == 3 + 4 + 4
    of_file = await audit(store, file_id=done.file_id, page=limit)
    assert steps(of_file) == [("", "pending"), ("pending", "uploading"), ("uploading", "completed")]
    assert {(event.file_id, event.batch_id) for event in of_file} == {(done.file_id, "")}
    of_batch = await audit(store, batch_id=batch.batch_id, page=limit)
    assert {event.batch_id for event in of_batch} == {batch.batch_id}
    assert [event.file_id for event in of_batch] == [*members, "", *members, ""]
    assert len(await audit(store, members[0], batch.batch_id, limit)) == 2
    assert await audit(store, done.file_id, batch.batch_id, limit) == []
    assert await audit(store, file_id=new_id()) == []
    foreign = await store.list_audit_events(Trail("ann", done.file_id), None, limit)
    assert foreign.rows == ()
    assert len((await store.list_audit_events(Trail("ann"), None, limit)).rows) == 1


async def test_an_answer_that_is_old_by_one_clock_alone_is_kept(store: Store) -> None:
    await store.initiate_upload(FileSpec("a", 1), new_id(), command("InitiateUpload", "a"))
    await served_for(store, 0.01)
    since = store.served
    await store.initiate_upload(FileSpec("b", 1), new_id(), command("InitiateUpload", "b"))

    assert await store.forget_answers(Moment(now() - timedelta(days=7), since), 10) == 0
    assert await store.forget_answers(Moment(now() + timedelta(days=7), since), 10) == 1
    assert (await store.initiate_upload(FileSpec("b", 1), new_id(), command("InitiateUpload", "b"))).replayed


async def test_names_of_bytes_are_read_by_id(store: Store) -> None:
    waiting, done = await pending(store), await completed(store)
    gone = await uploading(store)
    await store.cancel_file(gone.file_id, command())
    resumed = await uploading(store)
    for _ in range(2):
        await store.claim(resumed.file_id, 0, command())

    names = await store.names_of([waiting.file_id, done.file_id, gone.file_id, resumed.file_id, new_id()])
    assert {file_id: (one.status, one.run_fence, sorted(one.fences)) for file_id, one in names.items()} == {
        waiting.file_id: (FileStatus.PENDING, 0, [0]),
        done.file_id: (FileStatus.COMPLETED, 1, [1]),
        gone.file_id: (FileStatus.CANCELLED, 1, [1]),
        resumed.file_id: (FileStatus.UPLOADING, 3, [1, 2, 3]),
    }
    assert await store.names_of([]) == {}


async def test_old_answers_are_forgotten_a_few_at_a_time(store: Store) -> None:
    old, spec = now() - timedelta(days=8), FileSpec("a", 1)
    for request_id in "abc":
        await store.initiate_upload(spec, new_id(), command("InitiateUpload", request_id, at=old))
    recent = await store.initiate_upload(spec, new_id(), command("InitiateUpload", "d"))
    before = by_the_wall(now() - timedelta(days=7))

    assert await store.forget_answers(before, 2) == 2
    assert await store.forget_answers(before, 2) == 1
    assert await store.forget_answers(before, 2) == 0

    assert not (await store.initiate_upload(spec, new_id(), command("InitiateUpload", "a"))).replayed
    again = await store.initiate_upload(spec, new_id(), command("InitiateUpload", "d"))
    assert again.answer == recent.answer


async def test_events_around_a_large_batch_are_found_by_their_time(store: Store) -> None:
    """A change that overtakes a batch call has the smaller number and the greater time."""
    at = now()
    overtook = await pending(store, at=at + timedelta(milliseconds=5))
    await batch_of(store, 1500, at=at)
    overtaken = await pending(store, at=at - timedelta(milliseconds=5))
    for trail, file in (
        (Trail(occurred_after=at - timedelta(milliseconds=1), newest_first=True), overtook),
        (Trail(occurred_before=at + timedelta(milliseconds=1)), overtaken),
    ):
        found: list[str] = []
        cursor = None
        while True:
            page = await store.list_audit_events(trail, cursor, 1000)
            found += [event.file_id for event in page.rows]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert file.file_id in found
        # The batch, its files, and the one beside them.
        assert len(found) == len(set(found)) == 1502
