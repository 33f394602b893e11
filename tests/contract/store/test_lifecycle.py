"""Opening, closing, reopening, bounds: what a store keeps and what it refuses."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from contract.store.kit import (
    assert_history_holds,
    batch_of,
    command,
    completed,
    counted,
    everything,
    new_id,
    pending,
    uploading,
)
from support.stores import url_in
from upload_server.domain.errors import DatabaseFailure, Overloaded, ShuttingDown
from upload_server.domain.states import FileSpec, FileStatus
from upload_server.store.lock import AlreadyInUse
from upload_server.store.open import StoreAt, open_store
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store


async def test_everything_is_there_after_a_restart(backend: StoreAt) -> None:
    store = await backend.open()
    await completed(store)
    batch, ids = await batch_of(store, 3)
    touched = (await store.claim(ids[0], 0, command())).answer.file
    first = await store.cancel_batch(batch.batch_id, command("CancelBatch", "r", b"f"))
    made = await store.initiate_upload(FileSpec("a", 1), new_id(), command("InitiateUpload", "i", b"g"))
    before = await everything(store)
    identity = (store.store_id, store.incarnation, store.last_change)
    await store.close()

    store = await backend.open()

    try:
        assert (store.store_id, store.incarnation, store.last_change) == identity
        assert uuid.UUID(store.store_id)
        assert uuid.UUID(store.incarnation)
        assert await everything(store) == before
        again = await store.cancel_batch(batch.batch_id, command("CancelBatch", "r", b"f"))
        assert (again.answer, again.replayed) == (first.answer, True)
        same = await store.initiate_upload(FileSpec("a", 1), new_id(), command("InitiateUpload", "i", b"g"))
        assert same.answer == made.answer
        assert [owed.file_id for owed in await store.owed_deletions(9)] == [touched.file_id]
        await assert_history_holds(store)
        assert (await pending(store)).change_no == identity[-1] + 1
    finally:
        await store.close()


async def test_two_stores_have_two_identities(
    backend: StoreAt, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = await backend.open()
    two = await open_store(url_in(tmp_path_factory.mktemp("other"), kind))

    assert one.store_id != two.store_id
    assert one.incarnation != two.incarnation

    await one.close()
    await two.close()


async def test_closing_finishes_what_is_queued_and_then_takes_no_more(backend: StoreAt) -> None:
    store = await backend.open()
    files = [await uploading(store) for _ in range(50)]
    cancels = [asyncio.create_task(store.cancel_file(file.file_id, command())) for file in files]
    await asyncio.sleep(0)

    await store.close()
    await store.close()

    assert len(await asyncio.gather(*cancels)) == 50
    with pytest.raises(ShuttingDown):
        await store.cancel_file(files[0].file_id, command())
    with pytest.raises(ShuttingDown):
        await store.get_file(files[0].file_id)
    reopened = await backend.open()
    assert (await counted(reopened))[FileStatus.CANCELLED] == 50
    await reopened.close()


async def test_a_second_server_is_refused(backend: StoreAt, kind: str) -> None:
    """Of PostgreSQL any number may be."""
    store = await backend.open()

    if kind == "sqlite":
        with pytest.raises(AlreadyInUse, match=r"is in use by another upload-server \(pid \d+\)"):
            await backend.open()
    else:
        await (await backend.open()).close()

    # The first goes on; once it is closed the place is free.
    await pending(store)
    await store.close()
    await (await backend.open()).close()


async def test_a_healthy_store_answers_a_ping(store: Store) -> None:
    before = store.last_change
    await store.ping()
    assert store.last_change == before


async def test_too_many_writes_are_refused_and_cancels_have_places_of_their_own(backend: StoreAt) -> None:
    store = await backend.open(StoreOptions(queued_writes=10, queued_cancels_reserve=20, queued_batch_calls=2))
    try:
        batch, _ = await batch_of(store, 200)
        file = await pending(store)

        # All of them are queued in one turn of the loop, which the writer cannot keep up with.
        writes = [store.claim(file.file_id, 0, command()) for _ in range(400)]
        cancels = [store.cancel_file(new_id(), command()) for _ in range(10)]
        batches = [batch_of(store, 200) for _ in range(50)]
        results = await asyncio.gather(*writes, *cancels, *batches, return_exceptions=True)

        refused = [isinstance(result, Overloaded) for result in results]
        assert any(refused[:400])
        assert not any(refused[400:410])
        assert any(refused[410:])
        assert not any(isinstance(result, DatabaseFailure) for result in results)
        # It recovers by itself.
        await store.cancel_batch(batch.batch_id, command("CancelBatch"))
        await assert_history_holds(store)
    finally:
        await store.close()


async def test_too_many_reads_are_refused(backend: StoreAt) -> None:
    store = await backend.open(StoreOptions(queued_reads=5))
    try:
        file = await pending(store)
        results = await asyncio.gather(*(store.get_file(file.file_id) for _ in range(50)), return_exceptions=True)
        assert sum(result == file for result in results) == 5
        assert sum(isinstance(result, Overloaded) for result in results) == 45
        assert await store.get_file(file.file_id) == file
    finally:
        await store.close()
