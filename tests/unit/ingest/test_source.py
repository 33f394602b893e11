"""Bytes that a hop reads from a socket by itself: as safe from cancels, take-overs and disks as queued ones."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Self

import pytest

from unit.ingest.world import CALLER, MIB, World, open_world, send
from upload_server.domain.errors import ShuttingDown, SizeExceeded, StorageFailure, UploadCancelled, WriterReplaced
from upload_server.domain.states import FileStatus
from upload_server.doors.http import pump
from upload_server.doors.http.pump import LentSocket
from upload_server.ingest import Limits, Upload
from upload_server.sink.protocol import SinkError

PIECE = Limits().piece_bytes


class Feed:
    """A sender at the other end of a real socket, who sends as fast as it is read; ``with`` it."""

    def __init__(self, data: bytes, left: int | None = None) -> None:
        self.size = len(data)
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._sending = threading.Thread(target=self._send, args=(data,))
        self._sending.start()
        self.taken = 0
        self.lent = LentSocket(self._ours.fileno(), self.size if left is None else left, self._on_back)

    def _send(self, data: bytes) -> None:
        try:
            self._theirs.sendall(data)
        except OSError:
            return

    def _on_back(self, count: int) -> None:
        self.taken = count

    async def into(self, upload: Upload) -> None:
        """Have the upload take all of it."""
        with self.lent:
            while self.lent.left:
                await upload.write_from(self.lent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lent.revoke()
        for end in (self._theirs, self._ours):
            end.shutdown(socket.SHUT_RDWR)
        self._sending.join(10)
        for end in (self._theirs, self._ours):
            end.close()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    descriptors = set(Path("/proc/self/fd").iterdir())
    yield
    assert not pump._lent
    assert set(Path("/proc/self/fd").iterdir()) <= descriptors


async def test_memory_of_a_source_is_used_again(world: World) -> None:
    made: list[int] = []
    buffers = world.ingest._parts.buffers
    take = buffers.take

    def noted() -> bytearray:
        buffer = take()
        made.append(id(buffer))
        return buffer

    buffers.take = noted  # type: ignore[method-assign]
    data = os.urandom(20 * MIB)
    upload = await world.open(await world.initiate(len(data)))
    with Feed(data) as feed:
        await feed.into(upload)
    assert (await upload.commit("", CALLER)).sha256 == hashlib.sha256(data).hexdigest()
    assert len(made) >= len(data) // PIECE
    assert len(set(made)) * 2 < len(made)


async def test_what_a_source_has_follows_what_was_queued(world: World) -> None:
    data = os.urandom(20 * MIB + 12345)
    file_id = await world.initiate(len(data) + 3)
    upload = await world.open(file_id)
    with Feed(data) as feed:
        await upload.write(b"abc")
        await feed.into(upload)
    assert (upload.received, feed.taken) == (len(data) + 3, len(data))
    file = await upload.commit("", CALLER)
    assert file.status is FileStatus.COMPLETED
    assert file.sha256 == hashlib.sha256(b"abc" + data).hexdigest()
    assert world.sink.content(file_id) == b"abc" + data
    assert world.observed.taken == len(data) + 3
    assert world.sink.bytes_read == 0, "read back what it had in memory"
    await upload.close()
    assert world.ingest.memory._held == 0


async def test_a_source_without_bytes_gives_the_thread_back(world: World) -> None:
    """However slow its sender is: nobody waits for it but the event loop."""
    upload = await world.open(await world.initiate(100))
    with Feed(b"x" * 10, 100) as feed, feed.lent:
        async with asyncio.timeout(30):
            while upload.received < 10:
                await upload.write_from(feed.lent)
            await upload.write_from(feed.lent)
    assert upload.received == 10
    await upload.close()
    assert upload.durable == 10


async def test_what_comes_slowly_becomes_durable_in_time(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_seconds=0.01)) as world:
        upload = await world.open(await world.initiate(100))
        with Feed(b"x" * 10, 100) as feed, feed.lent:
            while upload.received < 10:
                await upload.write_from(feed.lent)
            async with asyncio.timeout(30):
                assert await upload.wait_durable(0) == 10
        await upload.close()


async def test_a_source_of_more_than_the_rest_of_the_file_is_refused_unread(world: World) -> None:
    file_id = await world.initiate(100)
    upload = await world.open(file_id)
    await upload.write(b"a" * 60)
    with Feed(b"b" * 41) as feed:
        with pytest.raises(SizeExceeded):
            await feed.into(upload)
        assert feed.taken == 0
    await upload.close()
    assert world.sink.content(file_id) == b"a" * 60


async def under_way(world: World, size: int = 64 * MIB) -> tuple[str, Upload, Feed, asyncio.Task[None]]:
    """An upload from a source, whose thread has read its first piece and is about to write it."""
    file_id = await world.initiate(size)
    upload = await world.open(file_id)
    feed = Feed(bytes(size))
    world.sink.appending.close()
    drawing = asyncio.create_task(feed.into(upload))
    await world.sink.appending.somebody_waits()
    return file_id, upload, feed, drawing


async def test_a_cancel_lets_the_piece_under_way_through_and_no_other(world: World) -> None:
    file_id, upload, feed, drawing = await under_way(world)
    with feed:
        await world.cancel(file_id)
        with pytest.raises(UploadCancelled):
            await drawing
        taken = feed.taken
        assert world.ingest.is_open(file_id), "let go of a file that a thread is about to write"
        world.sink.appending.open()
        await world.ingest.wait_closed(file_id)
        assert 0 < world.sink.bytes_of(file_id) <= PIECE
        # Its sender was answered: what follows on its connection is no thread's.
        assert feed.lent.left == feed.size - taken
    await upload.close()
    assert world.ingest.memory._held == 0


async def test_a_hold_keeps_back_what_a_thread_has_read_already(world: World) -> None:
    file_id, upload, feed, drawing = await under_way(world)
    with feed:
        # The store decides: it takes time, and is refused here.
        world.ingest.holds.hold(file_id, None)
        world.sink.appended.close()
        world.sink.appending.open()
        await world.sink.appended.somebody_waits()
        at_hold = world.sink.bytes_of(file_id)
        world.sink.appended.open()
        await hop_ended(upload)
        assert world.sink.bytes_of(file_id) == at_hold <= PIECE
        world.ingest.holds.release(file_id, None)
        await drawing
        await upload.commit("", CALLER)
    await upload.close()
    assert world.sink.content(file_id) == bytes(feed.size)


async def hop_ended(upload: Upload) -> None:
    """Wait until a thread has come back from a hop."""
    while not upload._pending:
        await upload.ending.change()


async def test_a_take_over_ends_the_older_source(world: World) -> None:
    file_id, older, feed, drawing = await under_way(world)
    with feed:
        opening = asyncio.create_task(world.open(file_id))
        with pytest.raises(WriterReplaced):
            await drawing
        world.sink.appending.open()
        newer = await opening
    with Feed(b"n" * newer.file.size_bytes) as feed:
        await feed.into(newer)
    await newer.commit("", CALLER)
    await newer.close()
    await older.close()
    assert world.sink.content(file_id) == b"n" * newer.file.size_bytes


async def test_a_drain_makes_durable_every_byte_that_was_read(world: World) -> None:
    file_id, upload, feed, drawing = await under_way(world)
    with feed:
        world.ingest.stop_all(ShuttingDown())
        with pytest.raises(ShuttingDown):
            await drawing
        world.sink.appending.open()
        await upload.close()
        assert upload.durable == upload.received == feed.taken == world.sink.bytes_of(file_id)
        assert (await world.row(file_id)).bytes_received == feed.taken > 0


async def test_a_disk_that_fails_under_a_source(world: World) -> None:
    file_id, upload, feed, drawing = await under_way(world)
    with feed:
        world.sink.append_error = SinkError("broken")
        world.sink.appending.open()
        with pytest.raises(StorageFailure):
            await drawing
        await world.ingest.wait_closed(file_id)
    await upload.close()
    assert (await world.row(file_id)).bytes_received == 0
    assert world.ingest.memory._held == 0


async def test_a_sync_that_fails_under_a_source(world: World) -> None:
    file_id = await world.initiate(64 * MIB)
    upload = await world.open(file_id)
    world.sink.sync_error = SinkError("broken")
    with Feed(bytes(64 * MIB)) as feed:
        with pytest.raises(StorageFailure):
            await feed.into(upload)
        await world.ingest.wait_closed(file_id)
        assert feed.taken < feed.size
    await upload.close()


async def test_a_source_waits_for_a_disk_that_does_not_sync(tmp_path: Path) -> None:
    """Of a source no more is read than the page cache may hold: its sender waits."""
    async with open_world(tmp_path / "node", Limits(sync_bytes=1 * MIB, draw_bytes=1 * MIB)) as world:
        file_id = await world.initiate(64 * MIB)
        upload = await world.open(file_id)
        world.sink.syncing.close()
        with Feed(bytes(64 * MIB)) as feed:
            drawing = asyncio.create_task(feed.into(upload))
            await world.sink.syncing.somebody_waits()
            while not upload._syncer.lags:
                await upload.ending.change()
            # The threads do another's work meanwhile, so they had time for this one's.
            other = await world.open(await world.initiate(MIB))
            for number in range(16):
                await other.write(bytes(64 * 1024))
                while other.marks.written < (number + 1) * 64 * 1024:
                    await other.ending.change()
            assert upload.received <= 4 * MIB + PIECE
            world.sink.syncing.open()
            await drawing
        await upload.commit("", CALLER)
        await upload.close()
        await other.close()


async def test_a_source_waits_for_the_digest(tmp_path: Path) -> None:
    """A stream holds no more than it may, however fast its sender and slow its hash."""
    limits = Limits(draw_bytes=1 * MIB)
    async with open_world(tmp_path / "node", limits) as world:
        file_id = await world.initiate(64 * MIB)
        first = await world.open(file_id)
        await send(first, bytes(MIB))
        await first.close()
        world.sink.reading.close()
        upload = await world.open(file_id, MIB)
        most = 0
        with Feed(bytes(63 * MIB)) as feed:
            drawing = asyncio.create_task(feed.into(upload))
            while upload._pending <= limits.draw_bytes:
                await upload.ending.change()
            most = max(most, upload._pending)
            world.sink.reading.open()
            while not drawing.done():
                most = max(most, upload._pending)
                await asyncio.wait({drawing}, timeout=0.001)
        assert most <= 2 * limits.draw_bytes + 2 * PIECE
        await upload.commit("", CALLER)
        await upload.close()


async def test_sources_share_the_memory(tmp_path: Path) -> None:
    limits = Limits(total_buffer_bytes=2 * MIB)
    async with open_world(tmp_path / "node", limits) as world:
        most = 0
        uploads = [await world.open(await world.initiate(8 * MIB)) for _ in range(8)]

        async def upload_one(upload: Upload) -> None:
            with Feed(bytes(8 * MIB)) as feed:
                await feed.into(upload)
            await upload.commit("", CALLER)
            await upload.close()

        running = asyncio.gather(*map(upload_one, uploads))
        while not running.done():
            most = max(most, world.ingest.memory._held)
            await asyncio.wait({running}, timeout=0.001)
        await running
        # Each of the threads can have one hop under way that began while there was room.
        assert 0 < most <= limits.total_buffer_bytes + 4 * (limits.draw_bytes + PIECE)
        assert world.ingest.memory._held == 0


async def test_crumbs_of_a_source_keep_no_memory(world: World) -> None:
    """Of a piece that nobody has filled the bytes are kept, not its buffer."""
    count = 100

    class Crumbs:
        left = count
        buffers: ClassVar[set[int]] = set()

        def read_into(self, buffer: bytearray) -> int:
            if not self.left:
                return 0
            self.buffers.add(id(buffer))
            buffer[:1] = b"a"
            self.left -= 1
            return 1

    file_id = await world.initiate(count)
    upload = await world.open(file_id)
    crumbs = Crumbs()
    await upload.write_from(crumbs)
    assert (await upload.commit("", CALLER)).sha256 == hashlib.sha256(b"a" * count).hexdigest()
    assert len(crumbs.buffers) == 1
