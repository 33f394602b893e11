"""The room that a store keeps on its own disk for the ends of the files that are open: it follows every change."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from contract.store.kit import (
    batch_of,
    by_the_wall,
    command,
    completed,
    finish,
    now,
    pending,
    uploading,
)
from upload_server.domain.errors import StorageFull
from upload_server.domain.states import FailureReason, Source
from upload_server.process.room import Room
from upload_server.store.open import StoreAt, store_at
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store

MIB = 1024 * 1024


@pytest.fixture
def backend(tmp_path: Path) -> StoreAt:
    return store_at(f"sqlite:///{tmp_path / 'upload.sqlite3'}")


@pytest.fixture
def room() -> Room:
    return Room()


@pytest_asyncio.fixture
async def store(backend: StoreAt, room: Room) -> AsyncIterator[Store]:
    opened = await backend.open(StoreOptions(room=room, max_database_bytes=MIB))
    yield opened
    await opened.close()


async def forever(announce: Callable[[], Awaitable[object]]) -> None:
    while True:
        await announce()


async def test_room_is_kept_for_each_open_file_until_its_end(store: Store, room: Room, tmp_path: Path) -> None:
    empty = room.kept(tmp_path)
    for _ in range(2):
        batch, files = await batch_of(store, 3)
        [single, written, failing] = await pending(store), await uploading(store), await uploading(store)
        six = room.kept(tmp_path)
        assert (six - empty) % 6 == 0
        each = (six - empty) // 6
        assert each > 1024
        # A take-over opens nothing, a refused or repeated announcement neither.
        await store.claim(written.file_id, 0, command("UploadFile"))
        assert room.kept(tmp_path) == six
        await store.cancel_file(single.file_id, command("CancelFile"))
        assert room.kept(tmp_path) == six - each
        claim = await store.claim(files[0], 0, command("UploadFile"))
        await finish(store, claim.answer.file)
        assert room.kept(tmp_path) == six - 2 * each
        await store.cancel_batch(batch.batch_id, command("CancelBatch"))
        assert room.kept(tmp_path) == six - 4 * each
        await store.fail(failing.file_id, failing.fence, FailureReason.CHECKSUM_MISMATCH, command("UploadFile"))
        later = now() + timedelta(days=1)
        await store.expire(by_the_wall(later), [], 10, command("Expire", source=Source.EXPIRY))
        assert room.kept(tmp_path) == empty
    await completed(store)
    assert room.kept(tmp_path) == empty


async def test_an_opened_store_keeps_room_for_what_is_open(backend: StoreAt, tmp_path: Path) -> None:
    store = await backend.open()
    await batch_of(store, 5)
    await store.close()
    room = Room()
    before = room.kept(tmp_path)
    again = await backend.open(StoreOptions(room=room))
    assert room.kept(tmp_path) > before + 5 * 1024
    await again.close()


async def test_without_room_on_the_disk_nothing_is_announced_and_all_ends(backend: StoreAt) -> None:
    class Filling(Room):
        full = False

        def left(self, place: int | Path) -> int:
            return 0 if self.full else super().left(place)

    room = Filling()
    store = await backend.open(StoreOptions(room=room))
    [batch, files] = await batch_of(store, 2)
    room.full = True
    with pytest.raises(StorageFull) as raised:
        await forever(lambda: pending(store))
    assert raised.value.metadata["limit"] == "disk"
    # A cancel is never refused; of what is longer than there is room kept for, the beginning is kept.
    cancelled = await store.cancel_file(files[0], command("CancelFile", reason="\N{WASTEBASKET}" * 500))
    assert cancelled.audited.events[0].reason == "\N{WASTEBASKET}" * 128
    assert (await store.get_file(files[0])).cancel_reason == "\N{WASTEBASKET}" * 128
    await store.cancel_batch(batch.batch_id, command("CancelBatch", reason="r" * 500))
    assert (await store.get_batch(batch.batch_id)).cancel_reason == "r" * 500
    await store.close()
