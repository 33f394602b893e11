"""A file has one writer: the newest. What it goes on from is what its row says."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import pytest

from unit.ingest.world import CALLER, KIB, MIB, World, open_world, send, stopped
from upload_server.domain.errors import StorageFailure, WriterReplaced
from upload_server.domain.states import FileStatus
from upload_server.ingest import Limits, Upload

FAR = Limits(lag_bytes=64 * KIB, hop_bytes=64 * KIB)


async def begin(world: World, data: bytes, upto: int) -> str:
    """A file of which the first ``upto`` bytes are durable."""
    file_id = await world.initiate(len(data))
    upload = await world.open(file_id)
    await send(upload, data[:upto])
    await upload.close()
    return file_id


@pytest.mark.parametrize("limits", [Limits(), FAR], ids=["prefix near", "prefix far"])
@pytest.mark.parametrize("upto", [0, 1, 100 * KIB, 3 * MIB, 4 * MIB])
async def test_a_resumed_file_has_the_digest_of_all_its_bytes(tmp_path: Path, limits: Limits, upto: int) -> None:
    data = os.urandom(4 * MIB)
    async with open_world(tmp_path / "node", limits) as world:
        file_id = await begin(world, data, upto)
        upload = await world.open(file_id, upto)
        await send(upload, data[upto:], 10_007)
        file = await upload.commit(hashlib.sha256(data).hexdigest(), CALLER)
        assert file.status is FileStatus.COMPLETED
        assert world.sink.content(file_id) == data
        await upload.close()


async def test_a_file_sent_in_many_pieces(tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    async with open_world(tmp_path / "node", FAR) as world:
        file_id = await world.initiate(len(data), hashlib.sha256(data).hexdigest())
        offset = 0
        while offset < len(data):
            upload = await world.open(file_id, offset)
            await send(upload, data[offset : offset + 300 * KIB], 17 * KIB)
            await upload.close()
            offset = upload.durable
        upload = await world.open(file_id, offset)
        assert (await upload.commit("", CALLER)).status is FileStatus.COMPLETED
        await upload.close()


async def test_only_the_prefix_is_read_back(tmp_path: Path) -> None:
    data = os.urandom(4 * MIB)
    async with open_world(tmp_path / "node") as world:
        file_id = await begin(world, data, MIB)
        upload = await world.open(file_id, MIB)
        await send(upload, data[MIB:])
        await upload.commit(hashlib.sha256(data).hexdigest(), CALLER)
        assert world.sink.bytes_read == MIB
        await upload.close()


async def test_the_stream_goes_on_while_its_prefix_is_hashed_and_the_commit_waits(tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    async with open_world(tmp_path / "node", FAR) as world:
        file_id = await begin(world, data, MIB)
        world.sink.reading.close()
        upload = await world.open(file_id, MIB)
        await world.sink.reading.somebody_waits()
        await send(upload, data[MIB:])
        commit = asyncio.create_task(upload.commit(hashlib.sha256(data).hexdigest(), CALLER))
        # Everything comes to lie on the disk, though not one byte was hashed.
        async with asyncio.timeout(30):
            while world.sink.bytes_of(file_id) < 2 * MIB:  # noqa: ASYNC110 - the disk tells nobody
                await asyncio.sleep(0.01)
        assert not commit.done()
        world.sink.reading.open()
        assert (await commit).status is FileStatus.COMPLETED
        await upload.close()


async def test_a_prefix_that_changed_on_disk_is_found_out(tmp_path: Path) -> None:
    data = os.urandom(MIB)
    async with open_world(tmp_path / "node", FAR) as world:
        file_id = await begin(world, data, 512 * KIB)
        path = world.sink.root / file_id[:2] / f"{file_id}.1"
        await asyncio.to_thread(path.write_bytes, bytes([data[0] ^ 1]) + data[1 : 512 * KIB])
        upload = await world.open(file_id, 512 * KIB)
        await send(upload, data[512 * KIB :])
        with pytest.raises(Exception, match="SHA-256"):
            await upload.commit(hashlib.sha256(data).hexdigest(), CALLER)
        await upload.close()


async def test_a_prefix_that_cannot_be_read_fails_the_stream(tmp_path: Path) -> None:
    data = os.urandom(MIB)
    async with open_world(tmp_path / "node", FAR) as world:
        file_id = await begin(world, data, 512 * KIB)
        world.sink.reading.close()
        upload = await world.open(file_id, 512 * KIB)
        await world.sink.reading.somebody_waits()
        os.truncate(world.sink.root / file_id[:2] / f"{file_id}.1", 1000)
        world.sink.reading.open()
        with pytest.raises(StorageFailure):
            await upload.wait_durable(MIB)
        await upload.close()
        assert (await world.row(file_id)).bytes_received == 512 * KIB


# Take-over -----------------------------------------------------------------------------------------------------------


async def test_a_new_stream_takes_over_at_once(world: World) -> None:
    file_id = await world.initiate(10)
    old = await world.open(file_id)
    await old.write(b"lost")
    new = await world.open(file_id, 0)
    assert new.file.fence > old.file.fence
    for call in (old.write(b"x"), old.commit("", CALLER), old.wait_durable(0)):
        with pytest.raises(WriterReplaced):
            await call
    await old.close()
    await new.write(b"0123456789")
    assert (await new.commit("", CALLER)).status is FileStatus.COMPLETED
    assert world.sink.content(file_id) == b"0123456789"
    assert old.durable == 0
    await new.close()


async def test_a_new_stream_waits_for_the_old_one_s_hop(world: World) -> None:
    file_id = await world.initiate(4)
    old = await world.open(file_id)
    world.sink.appending.close()
    await old.write(b"old!")
    await world.sink.appending.somebody_waits()
    opening = asyncio.create_task(world.open(file_id, 0))
    assert isinstance(await stopped(old), WriterReplaced)
    await asyncio.wait([opening], timeout=0.1)
    assert not opening.done(), "two writers at once"
    world.sink.appending.open()
    new = await opening
    assert world.sink.bytes_of(file_id) == 0
    await new.write(b"new!")
    await new.commit("", CALLER)
    assert world.sink.content(file_id) == b"new!"
    await new.close()
    await old.close()


async def test_a_new_stream_waits_for_the_old_one_s_sync(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_seconds=0.02)) as world:
        file_id = await world.initiate(4)
        old = await world.open(file_id)
        world.sink.syncing.close()
        await old.write(b"old!")
        await world.sink.syncing.somebody_waits()
        opening = asyncio.create_task(world.open(file_id, 0))
        await stopped(old)
        world.sink.syncing.open()
        new = await opening
        # What the old stream synced was not recorded: the row is the new one's.
        assert (await world.row(file_id)).bytes_received == 0
        assert old.durable == 0
        await new.close()
        await old.close()


async def test_a_disk_that_hangs_under_the_old_stream_refuses_the_new_one(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(takeover_seconds=0.05, close_seconds=0.05)) as world:
        file_id = await world.initiate(4)
        old = await world.open(file_id)
        world.sink.appending.close()
        await old.write(b"old!")
        await world.sink.appending.somebody_waits()
        with pytest.raises(StorageFailure):
            await world.open(file_id, 0)
        await old.close()
        assert world.ingest.is_open(file_id), "deleted or written under a thread that may still write"
        world.sink.appending.open()
        await world.ingest.wait_closed(file_id)
        new = await world.open(file_id, 0)
        await new.close()


async def test_many_open_one_file_at_once(world: World) -> None:
    file_id = await world.initiate(6)
    uploads: list[Upload] = list(await asyncio.gather(*(world.open(file_id) for _ in range(20))))
    alive = [upload for upload in uploads if upload.ending.cause is None]
    assert len(alive) == 1
    assert len({upload.file.fence for upload in uploads}) == 20
    assert alive[0].file.fence == max(upload.file.fence for upload in uploads)
    await alive[0].write(b"winner")
    await alive[0].commit("", CALLER)
    assert world.sink.content(file_id) == b"winner"
    for upload in uploads:
        await upload.close()
    assert world.ingest.open_count == 0
    assert (world.observed.opened, world.observed.closed) == (20, 20)


async def test_a_take_over_found_in_the_row_alone(tmp_path: Path) -> None:
    """Another node's claim: nobody tells this one."""
    async with open_world(tmp_path / "node", Limits(sync_seconds=0.02)) as world:
        file_id = await world.initiate(10)
        upload = await world.open(file_id)
        await world.store.claim(file_id, 0, world.command("UploadFile"))
        await upload.write(b"x")
        assert isinstance(await stopped(upload), WriterReplaced)
        assert upload.durable == 0
        await upload.close()


@pytest.mark.parametrize("held", ["claim", "disk"])
async def test_a_caller_that_leaves_while_it_opens_leaves_nothing_open(world: World, held: str) -> None:
    file_id = await world.initiate(10)
    world.store.hold_claim = asyncio.Event()
    if held == "disk":
        world.store.hold_claim.set()
        world.sink.opening.close()
    opening = asyncio.create_task(world.open(file_id))
    await (world.store.claimed.wait() if held == "claim" else world.sink.opening.somebody_waits())
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert world.ingest.is_open(file_id)
    world.store.hold_claim.set()
    world.sink.opening.open()
    await world.ingest.wait_closed(file_id)
    assert world.ingest.open_count == 0
    upload = await world.open(file_id)
    await upload.close()
