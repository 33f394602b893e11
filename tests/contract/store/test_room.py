"""The room that a store keeps for the ends of the files that are open, within its own bound: it is asked first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from contract.store.kit import command, everything, new_id
from upload_server.domain.errors import StorageFull
from upload_server.domain.states import FileSpec
from upload_server.store.open import StoreAt
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store

MIB = 1024 * 1024


@pytest_asyncio.fixture
async def store(backend: StoreAt) -> AsyncIterator[Store]:
    opened = await backend.open(StoreOptions(max_database_bytes=MIB))
    yield opened
    await opened.close()


async def forever(announce: Callable[[], Awaitable[object]]) -> None:
    while True:
        await announce()


async def test_announcements_are_refused_before_anything_is_written(store: Store) -> None:
    spec, ids = FileSpec("n" * 250, 1, "", ""), [new_id() for _ in range(1000)]
    last = store.last_change
    with pytest.raises(StorageFull) as raised:
        await store.initiate_batch([spec] * len(ids), new_id(), ids, command("InitiateBatch"))
    assert raised.value.metadata["limit"] == "max_database_bytes"
    assert store.last_change == last
    assert not (await everything(store))
    # What is smaller finds room; and when that is used up, a repeated call still gets its answer.
    first = await store.initiate_upload(spec, new_id(), command("InitiateUpload", request_id="first"))
    with pytest.raises(StorageFull):
        await forever(lambda: store.initiate_upload(spec, new_id(), command("InitiateUpload")))
    again = await store.initiate_upload(spec, new_id(), command("InitiateUpload", request_id="first"))
    assert (again.replayed, again.answer.file_id) == (True, first.answer.file_id)
    assert store.room() < 16 * 1024
    await store.cancel_file(first.answer.file_id, command("CancelFile"))
