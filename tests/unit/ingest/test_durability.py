"""Durable means synced and then recorded; what is told to be durable never shrinks, whatever fails."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from unit.ingest.world import CALLER, KIB, MIB, World, open_world, send
from upload_server.domain.errors import DatabaseFailure, StorageFailure, StorageFull, UploadCancelled
from upload_server.domain.states import FileStatus
from upload_server.ingest import Limits, Upload
from upload_server.ingest.digest import Digest
from upload_server.sink.protocol import NoRoom, SinkError

SOON = 0.02
NEVER = 3600.0


async def test_bytes_become_durable_every_so_many(tmp_path: Path) -> None:
    limits = Limits(sync_bytes=256 * KIB, sync_seconds=NEVER, hop_bytes=64 * KIB)
    async with open_world(tmp_path / "node", limits) as world:
        file_id = await world.initiate(2 * MIB)
        upload = await world.open(file_id)
        reached = 0
        while reached < 2 * MIB:
            await send(upload, b"x" * 256 * KIB, 32 * KIB)
            reached = await upload.wait_durable(reached)
            # Written in the row before anybody is told.
            assert (await world.row(file_id)).bytes_received >= reached
        reported = [durable for _, durable in world.progress]
        assert reported == sorted(set(reported))
        assert reported[-1] == 2 * MIB
        assert len(reported) == 8
        await upload.close()


async def test_bytes_become_durable_in_time_though_the_sender_pauses(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_seconds=SOON)) as world:
        file_id = await world.initiate(1000)
        upload = await world.open(file_id)
        for sent in range(1, 4):
            await upload.write(b"x")
            assert await upload.wait_durable(sent - 1) == sent
            assert (await world.row(file_id)).bytes_received == sent
        await upload.close()
        # Nothing new: nothing was synced or recorded again.
        assert [durable for _, durable in world.progress] == [1, 2, 3]
        assert world.sink.syncs == 3


async def test_a_sync_that_ends_while_a_small_piece_is_hashed_begins_no_hash_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads would count a piece twice: a wrong digest, or memory that is never given back and holds up all."""
    real, hashing, go_on = Digest.go_on, threading.Event(), threading.Event()

    def held(digest: Digest, most: int, stopped: Callable[[], bool]) -> None:
        hashing.set()
        assert go_on.wait(20)
        real(digest, most, stopped)

    monkeypatch.setattr(Digest, "go_on", held)
    async with open_world(tmp_path / "node", Limits(sync_seconds=NEVER)) as world:
        data = os.urandom(2 * KIB)
        upload = await world.open(await world.initiate(len(data)))
        await upload.write(data)
        assert await asyncio.to_thread(hashing.wait, 20)
        under_way = upload._hashing
        upload._on_synced()
        assert upload._hashing is under_way
        go_on.set()
        file = await upload.commit("", CALLER)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        await upload.close()
        assert world.ingest.memory._held == 0


async def test_bytes_that_a_sync_did_not_cover_have_their_own(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_seconds=SOON)) as world:
        upload = await world.open(await world.initiate(1000))
        await upload.write(b"a")
        await world.observed.took.wait()
        world.sink.appending.close()
        await upload.write(b"b")
        await world.sink.appending.somebody_waits()
        # The time is up while the second byte hangs, and the sender says no more.
        await upload.wait_durable(0)
        world.sink.appending.open()
        assert await upload.wait_durable(1) == 2
        await upload.close()


async def test_nothing_piles_up_behind_a_slow_sync(tmp_path: Path) -> None:
    limits = Limits(sync_bytes=128 * KIB, sync_seconds=NEVER, hop_bytes=64 * KIB, buffer_bytes=256 * KIB)
    async with open_world(tmp_path / "node", limits) as world:
        upload = await world.open(await world.initiate(10 * MIB))
        world.sink.syncing.close()
        sending = asyncio.create_task(send(upload, b"x" * 10 * MIB, 32 * KIB))
        await world.sink.syncing.somebody_waits()
        file_id = upload.file.file_id
        # What one sync covers, as much again, and the hop that passed the limit.
        await asyncio.wait([sending], timeout=0.1)
        assert world.sink.bytes_of(file_id) <= (128 + 128 + 64) * KIB
        assert upload.received <= (128 + 128 + 64 + 256 + 32) * KIB
        assert not sending.done()
        world.sink.syncing.open()
        await sending
        await upload.commit("", CALLER)
        await upload.close()


async def write_synced(world: World, upload: Upload, count: int) -> None:
    """Send 64 KiB, and wait until the sink has been asked for so many syncs."""
    await upload.write(b"x" * 64 * KIB)
    while world.sink.syncs < count:
        await upload.ending.change()


async def test_the_next_sync_runs_beside_the_record_of_the_one_before(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)) as world:
        upload = await world.open(await world.initiate(MIB))
        world.store.hold_record = asyncio.Event()
        await write_synced(world, upload, 1)
        await write_synced(world, upload, 2)
        # Its bytes lie there, and no row counts them before those in front of them.
        assert world.store.records == [64 * KIB]
        assert upload.durable == (await world.row(upload.file.file_id)).bytes_received == 0
        world.store.hold_record.set()
        await upload.wait_durable(64 * KIB)
        assert world.store.records == [64 * KIB, 128 * KIB]
        await upload.close()


async def test_while_records_hang_no_more_than_one_sync_runs_ahead(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)) as world:
        upload = await world.open(await world.initiate(MIB))
        world.store.hold_record = asyncio.Event()
        await write_synced(world, upload, 1)
        await write_synced(world, upload, 2)
        sending = asyncio.create_task(send(upload, b"x" * 512 * KIB))
        await asyncio.wait([sending], timeout=0.1)
        assert world.sink.syncs == 2
        # What the next sync will cover, and the hop that passed the limit.
        assert upload.marks.written <= 3 * 64 * KIB + Limits().hop_bytes
        world.store.hold_record.set()
        await sending
        await upload.close()
        assert upload.durable == (128 + 512) * KIB


async def test_a_sync_that_fails_beside_a_record_ends_after_it(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)) as world:
        upload = await world.open(await world.initiate(MIB))
        world.store.hold_record = asyncio.Event()
        await write_synced(world, upload, 1)
        world.sink.sync_error = SinkError("gone")
        await write_synced(world, upload, 2)
        running = upload._syncer.running
        assert running is not None
        while not upload.ending.dead:
            await upload.ending.change()
        # Whoever waits for the end of all syncs would else turn round and round until the record is there.
        assert not running.done()
        world.store.hold_record.set()
        await upload.close()
        assert running.done()
        with pytest.raises(StorageFailure):
            upload.ending.check()


async def test_bytes_that_a_sync_has_stored_beside_a_refused_record_are_deleted(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)) as world:
        upload = await world.open(await world.initiate(MIB))
        world.store.hold_record = asyncio.Event()
        await write_synced(world, upload, 1)
        await write_synced(world, upload, 2)
        await world.cancel(upload.file.file_id, tell=False)
        world.store.hold_record.set()
        with pytest.raises(UploadCancelled):
            await upload.wait_durable(0)
        await upload.close()
        assert world.sink.discarded == [0]
        # Nobody asks again for what was refused.
        assert world.store.records == [64 * KIB]
        assert world.sink.bytes_of(upload.file.file_id) == 0


async def test_after_a_record_that_failed_the_sync_beside_it_is_not_recorded(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)) as world:
        upload = await world.open(await world.initiate(MIB))
        world.store.hold_record = asyncio.Event()
        await write_synced(world, upload, 1)
        await write_synced(world, upload, 2)
        world.store.progress_error = DatabaseFailure()
        world.store.hold_record.set()
        with pytest.raises(DatabaseFailure):
            await upload.wait_durable(0)
        await upload.close()
        assert world.store.records == [64 * KIB]


async def test_a_full_buffer_makes_the_sender_wait(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(buffer_bytes=128 * KIB)) as world:
        upload = await world.open(await world.initiate(10 * MIB))
        world.sink.appending.close()
        await upload.write(b"x" * 64 * KIB)  # goes with the first hop, which hangs
        await world.sink.appending.somebody_waits()
        sending = asyncio.create_task(send(upload, b"x" * 512 * KIB, 32 * KIB))
        await asyncio.wait([sending], timeout=0.1)
        assert not sending.done()
        assert upload.received <= 160 * KIB
        world.sink.appending.open()
        await sending
        await upload.close()
        assert upload.durable == 576 * KIB


async def test_when_all_hold_too_much_each_waits_for_its_own_bytes(tmp_path: Path) -> None:
    limits = Limits(buffer_bytes=MIB, total_buffer_bytes=200 * KIB)
    async with open_world(tmp_path / "node", limits) as world:
        first, second = [await world.open(await world.initiate(MIB)) for _ in range(2)]
        world.sink.appending.close()
        await first.write(b"x" * 64 * KIB)  # room for all
        waiting = [asyncio.create_task(upload.write(b"x" * 64 * KIB)) for upload in (first, second)]
        await world.sink.appending.somebody_waits()
        await asyncio.wait(waiting, timeout=0.1)
        assert not any(task.done() for task in waiting)
        world.sink.appending.open()
        await asyncio.gather(*waiting)
        for upload in (first, second):
            await upload.close()


async def test_waiting_for_durable_ends_with_the_upload(world: World) -> None:
    _, upload = await world.send_new(b"bytes")
    waiting = asyncio.create_task(upload.wait_durable(1000))
    await upload.commit("", CALLER)
    assert await waiting == 5
    await upload.close()
    upload = await world.open(await world.initiate(10))
    waiting = asyncio.create_task(upload.wait_durable(0))
    await upload.close()
    assert await waiting == 0


async def test_news_come_with_durable_bytes_and_with_the_end(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_seconds=SOON)) as world:
        upload = await world.open(await world.initiate(10))
        heard: list[int] = []
        upload.ending.on_news(lambda: heard.append(upload.durable))
        await upload.write(b"x")
        await upload.wait_durable(0)
        assert heard == [1]
        await world.cancel(upload.file.file_id)
        assert len(heard) == 2
        await upload.close()


# Faults of the disk and the database ---------------------------------------------------------------------------------


async def test_a_failed_sync_gives_the_stream_up_and_nothing_else(tmp_path: Path) -> None:
    data = os.urandom(MIB)
    async with open_world(tmp_path / "node", Limits(sync_seconds=SOON)) as world:
        file_id = await world.initiate(MIB)
        upload = await world.open(file_id)
        await upload.write(data[:1000])
        await upload.wait_durable(0)
        world.sink.sync_error = SinkError("Input/output error")
        with structlog.testing.capture_logs() as lines:
            await upload.write(data[1000:5000])
            with pytest.raises(StorageFailure):
                await upload.wait_durable(1000)
            with pytest.raises(StorageFailure):
                await upload.write(b"x")
            with pytest.raises(StorageFailure):
                upload.ending.check()
        assert [line["reason"] for line in lines if line["log_level"] == "error"] == ["failed"]
        world.sink.sync_error = None
        syncs = world.sink.syncs
        await upload.close()
        assert world.sink.syncs == syncs, "the stream was synced again and believed"
        row = await world.row(file_id)
        assert (row.status, row.bytes_received, upload.durable) == (FileStatus.UPLOADING, 1000, 1000)
        # The disk is well again: the next stream starts where the row says.
        again = await world.open(file_id, 1000)
        assert world.sink.bytes_of(file_id) == 1000
        await send(again, data[1000:])
        assert (await again.commit(hashlib.sha256(data).hexdigest(), CALLER)).status is FileStatus.COMPLETED
        await again.close()


async def test_a_failed_sync_is_not_followed_by_that_of_later_bytes(tmp_path: Path) -> None:
    limits = Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)
    async with open_world(tmp_path / "node", limits) as world:
        upload = await world.open(await world.initiate(MIB))
        world.sink.syncing.close()
        await upload.write(b"x" * 64 * KIB)
        await world.sink.syncing.somebody_waits()
        await upload.write(b"x" * 64 * KIB)
        world.sink.sync_error = SinkError("Input/output error")
        world.sink.syncing.open()
        with pytest.raises(StorageFailure):
            await upload.wait_durable(0)
        await upload.close()
        assert world.sink.syncs == 1
        assert (await world.row(upload.file.file_id)).bytes_received == 0


async def test_a_stream_that_failed_lets_go_only_after_its_sync(tmp_path: Path) -> None:
    limits = Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)
    async with open_world(tmp_path / "node", limits) as world:
        upload = await world.open(await world.initiate(MIB))
        file_id = upload.file.file_id
        world.sink.syncing.close()
        await upload.write(b"x" * 64 * KIB)
        await world.sink.syncing.somebody_waits()
        world.sink.append_error = NoRoom("No space left on device")
        await upload.write(b"x")
        with pytest.raises(StorageFull):
            await upload.wait_durable(0)
        closing = asyncio.create_task(upload.close())
        await asyncio.wait([closing], timeout=0.1)
        assert world.ingest.is_open(file_id)
        world.sink.syncing.open()
        await closing
        assert not world.ingest.is_open(file_id)
        # The sync itself went well, and what it covered is the sender's.
        assert upload.durable == (await world.row(file_id)).bytes_received == 64 * KIB


async def test_a_sync_that_leaves_bytes_out_gives_the_stream_up(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    world.sink.left_out = 1
    with pytest.raises(StorageFailure):
        await upload.commit("", CALLER)
    await upload.close()
    row = await world.row(file_id)
    assert (row.status, row.bytes_received, upload.durable) == (FileStatus.UPLOADING, 0, 0)


async def test_what_came_while_a_sync_waited_for_the_disk_is_recorded_with_it(tmp_path: Path) -> None:
    limits = Limits(sync_bytes=64 * KIB, sync_seconds=NEVER)
    async with open_world(tmp_path / "node", limits) as world:
        upload = await world.open(await world.initiate(MIB))
        world.sink.syncing.close()
        await upload.write(b"x" * 64 * KIB)
        await world.sink.syncing.somebody_waits()
        world.observed.took.clear()
        await upload.write(b"x" * KIB)
        await world.observed.took.wait()
        world.sink.syncing.open()
        assert await upload.wait_durable(0) == 65 * KIB
        assert world.sink.syncs == 1
        await upload.close()
        assert world.sink.syncs == 1


async def test_a_sync_that_fails_at_the_commit_completes_nothing(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    world.sink.sync_error = NoRoom("No space left on device")
    with pytest.raises(StorageFull) as raised:
        await upload.commit("", CALLER)
    assert str(world.sink.root) not in str(raised.value)
    await upload.close()
    row = await world.row(file_id)
    assert (row.status, row.bytes_received) == (FileStatus.UPLOADING, 0)


async def test_a_file_that_lost_bytes_on_disk_is_not_written(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    await upload.close()
    world.sink.remove(file_id)
    with pytest.raises(StorageFailure):
        await world.open(file_id, 5)
    assert not world.ingest.is_open(file_id)


async def test_a_failing_database_ends_the_stream_and_keeps_what_was_durable(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_seconds=SOON)) as world:
        file_id = await world.initiate(100)
        upload = await world.open(file_id)
        await upload.write(b"x" * 10)
        await upload.wait_durable(0)
        world.store.progress_error = DatabaseFailure()
        await upload.write(b"x" * 10)
        with pytest.raises(DatabaseFailure):
            await upload.wait_durable(10)
        await upload.close()
        world.store.progress_error = None
        assert (await world.row(file_id)).bytes_received == 10
        again = await world.open(file_id, 10)
        await again.write(b"x" * 90)
        await again.commit("", CALLER)
        await again.close()


async def test_a_full_disk_fails_the_stream_and_recovers_when_there_is_room(tmp_path: Path) -> None:
    mounted = await _small_disk(tmp_path / "node" / "bytes")
    try:
        async with open_world(tmp_path / "node", Limits(sync_bytes=256 * KIB)) as world:
            data = os.urandom(MIB)
            ballast = world.sink.root / "ballast"
            await asyncio.to_thread(ballast.write_bytes, b"x" * 3_500 * KIB)
            file_id = await world.initiate(MIB)
            upload = await world.open(file_id)
            with pytest.raises(StorageFull):
                await _send_and_commit(upload, data)
            await upload.close()
            row = await world.row(file_id)
            assert (row.status, row.bytes_received) == (FileStatus.UPLOADING, upload.durable)
            assert world.sink.content(file_id)[: row.bytes_received] == data[: row.bytes_received]
            await asyncio.to_thread(ballast.unlink)
            again = await world.open(file_id, row.bytes_received)
            await send(again, data[row.bytes_received :])
            await again.commit(hashlib.sha256(data).hexdigest(), CALLER)
            await again.close()
    finally:
        await _run("umount", str(mounted))


async def _send_and_commit(upload: Upload, data: bytes) -> None:
    await send(upload, data)
    await upload.commit("", CALLER)


async def _small_disk(folder: Path) -> Path:
    await asyncio.to_thread(folder.mkdir, parents=True)
    if os.geteuid() != 0 or await _run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)):
        pytest.skip("needs root and mounts for a small disk of its own")
    return folder


async def _run(*command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    return await process.wait()
