"""A cancelled upload stops: its sender is told the truth, its bytes end, and it never becomes completed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from unit.ingest.world import CALLER, KIB, MIB, World, open_world, send, stopped
from upload.v1 import upload_pb2 as pb
from upload_server.domain.errors import FileNotCancellable, FileNotFound, ShuttingDown, UploadCancelled, UploadIdle
from upload_server.domain.states import FileStatus
from upload_server.doors.mailbox import End, Mailbox
from upload_server.doors.rpc.upload_stream import UploadMessage, UploadStream
from upload_server.doors.turns import Turns
from upload_server.ingest import Limits, Upload
from upload_server.process import Metrics
from upload_server.service import Uploads
from upload_server.watch import WatchHub


async def test_a_cancel_in_mid_stream_stops_the_bytes(world: World) -> None:
    file_id = await world.initiate(1024 * MIB)
    upload = await world.open(file_id)
    chunk = os.urandom(256 * KIB)
    written = 0

    async def keep_sending() -> None:
        nonlocal written
        while True:
            await upload.write(chunk)
            written += len(chunk)

    sending = asyncio.create_task(keep_sending())
    await upload.wait_durable(0)
    await world.cancel(file_id)
    at_cancel = world.sink.bytes_of(file_id)
    with pytest.raises(UploadCancelled) as raised:
        await sending
    await world.ingest.wait_closed(file_id)
    # At most the chunk that was under way.
    assert world.sink.bytes_of(file_id) <= at_cancel + len(chunk)
    row = await world.row(file_id)
    assert (row.status, row.cancelled_by, row.cancel_reason) == (FileStatus.CANCELLED, "user", "because")
    # The file as the commit left it; progress is no change of the file, and the stream knows it anyway.
    assert replace(raised.value.file, bytes_received=row.bytes_received) == row
    assert len(world.observed.stops) == 1
    assert world.observed.stops[0] < 20
    await upload.close()


async def test_nothing_is_written_after_the_signal_but_the_hop_under_way(world: World) -> None:
    file_id = await world.initiate(10 * MIB)
    upload = await world.open(file_id)
    world.sink.appending.close()
    await upload.write(b"a" * 1000)
    await world.sink.appending.somebody_waits()
    await upload.write(b"b" * 1000)
    await world.cancel(file_id)
    assert world.ingest.is_open(file_id), "let go of a file that a thread is about to write"
    with pytest.raises(UploadCancelled):
        await upload.write(b"c")
    world.sink.appending.open()
    await world.ingest.wait_closed(file_id)
    assert world.sink.content(file_id) == b"a" * 1000
    assert world.sink.syncs == 0
    assert upload.durable == 0
    await upload.close()


async def test_a_cancel_in_the_middle_of_a_hop_lets_one_more_chunk_through_and_no_other(world: World) -> None:
    chunk = 256 * KIB
    file_id, upload = await hop_of_three_under_way(world, chunk)
    await world.cancel(file_id)
    world.sink.appending.open()
    await world.ingest.wait_closed(file_id)
    # The first hop, and the chunk that the thread was writing when the cancel was committed.
    assert world.sink.content(file_id) == b"a" * chunk + b"b" * chunk
    assert world.observed.taken == 2 * chunk
    await upload.close()


async def test_no_byte_is_written_while_a_cancel_is_being_decided(world: World) -> None:
    chunk = 256 * KIB
    file_id, upload = await hop_of_three_under_way(world, chunk)
    world.ingest.holds.hold(file_id, None)
    world.ingest.holds.hold(file_id, None)
    world.sink.appending.open()
    await world.observed.took.wait()
    await upload.write(b"e" * 10)
    # Nobody has told the stream yet: it must know by itself.
    await world.cancel(file_id, tell=False)
    await asyncio.sleep(0.05)
    assert world.sink.bytes_of(file_id) == 2 * chunk
    world.ingest.holds.release(file_id, None)
    await asyncio.sleep(0.05)
    assert world.sink.bytes_of(file_id) == 2 * chunk
    world.ingest.holds.release(file_id, None)
    await upload.close()


async def test_between_a_cancel_s_commit_and_its_news_no_byte_is_written(world: World) -> None:
    file_id = await world.initiate(100 * MIB)
    upload = await world.open(file_id)
    world.store.hold_cancel = asyncio.Event()
    cancelling = asyncio.create_task(service_on(world).cancel_file(file_id, "", "", CALLER))
    await world.store.cancelled.wait()
    await upload.write(b"x" * MIB)
    await asyncio.sleep(0.05)
    assert world.sink.bytes_of(file_id) == 0
    world.store.hold_cancel.set()
    await cancelling
    with pytest.raises(UploadCancelled):
        await upload.write(b"x")
    await upload.close()


@pytest.mark.parametrize("whole_batch", [True, False])
async def test_a_cancel_by_a_caller_who_does_not_see_the_file_holds_up_no_byte(world: World, whole_batch: bool) -> None:
    """Else anybody who knows an id slows its upload, by cancels that come to nothing."""
    batch_id, (file_id,) = await world.initiate_batch([MIB])
    content, stranger = os.urandom(MIB), replace(CALLER, principal="eve", sees="eve")
    upload = await world.open(file_id)
    world.store.hold_cancel = asyncio.Event()
    service = service_on(world)
    if whole_batch:
        world.ingest.holds.hold(batch_id, stranger.sees)
    else:
        refused = asyncio.create_task(service.cancel_file(file_id, "", "", stranger))
        await asyncio.sleep(0)
    await send(upload, content)
    assert (await upload.commit(hashlib.sha256(content).hexdigest(), CALLER)).status is FileStatus.COMPLETED
    world.store.hold_cancel.set()
    if not whole_batch:
        with pytest.raises(FileNotFound):
            await refused
    await upload.close()


def service_on(world: World) -> Uploads:
    metrics = Metrics()
    return Uploads(
        world.store,
        world.ingest,
        WatchHub(world.store, history=10, bookmark_interval=15, observer=metrics),
        clock=world.now,
        new_id=lambda: str(uuid.uuid4()),
        max_file_bytes=1024 * MIB,
        observer=metrics,
    )


@pytest.mark.parametrize("whole_batch", [True, False])
async def test_after_a_cancel_that_was_refused_the_bytes_go_on(world: World, whole_batch: bool) -> None:
    batch_id, (file_id,) = await world.initiate_batch([MIB])
    content = os.urandom(MIB)
    upload = await world.open(file_id)
    held = batch_id if whole_batch else file_id
    world.ingest.holds.hold(held, None)
    await send(upload, content)
    committing = asyncio.create_task(upload.commit(hashlib.sha256(content).hexdigest(), CALLER))
    await asyncio.sleep(0.05)
    assert world.sink.bytes_of(file_id) == 0
    other = str(uuid.uuid4())
    world.ingest.holds.hold(other, None)
    world.ingest.holds.release(other, None)
    await asyncio.sleep(0.05)
    assert world.sink.bytes_of(file_id) == 0
    world.ingest.holds.release(held, None)
    assert (await committing).status is FileStatus.COMPLETED
    assert world.sink.content(file_id) == content
    await upload.close()


async def hop_of_three_under_way(world: World, chunk: int) -> tuple[str, Upload]:
    """A file with a chunk written, and a thread about to write the first of three more."""
    file_id = await world.initiate(100 * MIB)
    upload = await world.open(file_id)
    world.sink.appending.close()
    await upload.write(b"a" * chunk)
    await world.sink.appending.somebody_waits()
    for byte in (b"b", b"c", b"d"):
        await upload.write(byte * chunk)
    world.sink.appended.close()
    world.sink.appending.open()
    await world.sink.appended.somebody_waits()
    world.sink.appending.close()
    world.sink.appended.open()
    await world.sink.appending.somebody_waits()
    world.observed.took.clear()
    return file_id, upload


async def test_a_hop_that_waited_for_a_thread_writes_nothing_after_the_signal(world: World) -> None:
    others = [await world.open(await world.initiate(1)) for _ in range(4)]
    file_id = await world.initiate(10)
    upload = await world.open(file_id)
    world.sink.appending.close()
    for other in others:  # as many as there are threads
        await other.write(b"x")
    for _ in others:
        await world.sink.appending.somebody_waits()
    await upload.write(b"x" * 10)
    await asyncio.sleep(0.01)
    await world.cancel(file_id)
    world.sink.appending.open()
    await world.ingest.wait_closed(file_id)
    assert world.sink.bytes_of(file_id) == 0
    for each in (upload, *others):
        await each.close()


async def test_a_sender_held_up_by_a_full_buffer_hears_at_once(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(buffer_bytes=KIB)) as world:
        file_id = await world.initiate(MIB)
        upload = await world.open(file_id)
        world.sink.appending.close()
        writing = asyncio.create_task(upload.write(b"x" * 10 * KIB))
        await world.sink.appending.somebody_waits()
        waiting = asyncio.create_task(upload.wait_durable(0))
        await asyncio.sleep(0)
        await world.cancel(file_id)
        # The disk still hangs.
        for task in (writing, waiting):
            with pytest.raises(UploadCancelled):
                await task
        world.sink.appending.open()
        await upload.close()


async def test_a_grpc_sender_hears_stopped_while_the_disk_still_hangs(tmp_path: Path) -> None:
    # With this the test would time out if the answer waited for the disk.
    async with open_world(tmp_path / "node", Limits(close_seconds=3600)) as world:
        file_id = await world.initiate(MIB)
        sent: asyncio.Queue[UploadMessage | End] = asyncio.Queue()
        sent.put_nowait(pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)))
        sent.put_nowait(memoryview(b"x" * KIB))
        world.sink.appending.close()
        mailbox: Mailbox[pb.UploadFileRequest] = Mailbox(sent.get, world.ingest.memory, idle_seconds=60)
        async with mailbox:
            responses = UploadStream(world.ingest, mailbox, CALLER, Turns()).responses()
            assert (await anext(responses)).WhichOneof("message") == "progress"
            answer = asyncio.ensure_future(anext(responses))
            await world.sink.appending.somebody_waits()
            await world.cancel(file_id)
            async with asyncio.timeout(20):
                assert (await answer).stopped.cancelled_by == "user"
            assert world.ingest.is_open(file_id)
            world.sink.appending.open()
            with pytest.raises(UploadCancelled):
                await anext(responses)
            assert not world.ingest.is_open(file_id)


async def test_a_cancel_this_node_was_not_told_of_is_found_at_the_next_record(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(sync_seconds=0.02)) as world:
        file_id = await world.initiate(100)
        upload = await world.open(file_id)
        await world.cancel(file_id, tell=False)
        await upload.write(b"x")
        cause = await stopped(upload)
        assert isinstance(cause, UploadCancelled)
        assert cause.file == await world.row(file_id)
        assert upload.durable == 0
        await world.ingest.wait_closed(file_id)
        await upload.close()


async def test_a_cancel_wins_until_the_last_commit(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    await world.cancel(file_id, tell=False)
    with pytest.raises(UploadCancelled):
        await upload.commit("", CALLER)
    assert isinstance(upload.ending.cause, UploadCancelled)
    await upload.close()
    assert (await world.row(file_id)).status is FileStatus.CANCELLED


async def test_a_stopped_upload_cannot_commit(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    await world.cancel(file_id)
    with pytest.raises(UploadCancelled):
        await upload.commit("", CALLER)
    await upload.close()


async def test_a_cancel_during_the_commit_s_sync_wins(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    world.sink.syncing.close()
    commit = asyncio.create_task(upload.commit("", CALLER))
    await world.sink.syncing.somebody_waits()
    await world.cancel(file_id)
    with pytest.raises(UploadCancelled):
        await commit
    world.sink.syncing.open()
    await upload.close()
    assert (await world.row(file_id)).status is FileStatus.CANCELLED


async def test_of_a_commit_and_a_cancel_that_race_exactly_one_wins(world: World) -> None:
    won = {FileStatus.COMPLETED: 0, FileStatus.CANCELLED: 0}
    pause = 0.001
    for _ in range(150):
        file_id, upload = await world.send_new(b"bytes")
        commit = asyncio.create_task(upload.commit("", CALLER))
        await asyncio.sleep(pause)
        cancel = asyncio.create_task(world.cancel(file_id))
        outcomes = await asyncio.gather(commit, cancel, return_exceptions=True)
        await upload.close()
        row = await world.row(file_id)
        won[row.status] += 1
        # How long a commit takes is the disk's affair: whoever has lost comes earlier, or later, the next time.
        pause *= 0.7 if row.status is FileStatus.COMPLETED else 1.4
        if row.status is FileStatus.COMPLETED:
            assert outcomes[0] == row
            assert isinstance(outcomes[1], FileNotCancellable)
            assert world.sink.content(file_id) == b"bytes"
        else:
            assert isinstance(outcomes[0], UploadCancelled)
            assert outcomes[1] is None
        assert not world.ingest.is_open(file_id)
    assert min(won.values()) > 0, won


async def test_a_batch_cancel_stops_the_streams_of_the_batch_alone(world: World) -> None:
    batch_id, ids = await world.initiate_batch([MIB, MIB, MIB])
    uploads = [await world.open(file_id) for file_id in ids[:2]]
    other = await world.open(await world.initiate(MIB))
    result = await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
    world.ingest.stop(result.audited.events[0])
    for upload in uploads:
        with pytest.raises(UploadCancelled) as raised:
            await upload.write(b"x")
        row = await world.row(upload.file.file_id)
        assert (row.status, row.cancelled_by, row.cancel_reason) == (FileStatus.CANCELLED, "batch_cancel", "because")
        assert replace(raised.value.file, change_no=row.change_no) == row
        await upload.close()
    await other.write(b"x")
    await other.close()
    assert other.durable == 1


async def test_a_batch_cancel_does_not_stop_what_was_completed_first(world: World) -> None:
    batch_id, (file_id, _) = await world.initiate_batch([5, 5])
    upload = await world.open(file_id)
    await send(upload, b"bytes")
    await upload.commit("", CALLER)
    result = await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
    world.ingest.stop(result.audited.events[0])
    assert upload.ending.cause is None
    await upload.close()
    assert world.observed.stops == []


@pytest.mark.parametrize("whole_batch", [True, False])
async def test_a_cancel_between_the_claim_and_its_answer_reaches_the_stream_to_come(
    world: World, whole_batch: bool
) -> None:
    batch_id, (file_id,) = await world.initiate_batch([MIB])
    world.store.hold_claim = asyncio.Event()
    opening = asyncio.create_task(world.open(file_id))
    await world.store.claimed.wait()
    assert world.ingest.is_open(file_id)
    if whole_batch:
        result = await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
        world.ingest.stop(result.audited.events[0])
    else:
        await world.cancel(file_id)
    world.store.hold_claim.set()
    with pytest.raises(UploadCancelled):
        await opening
    assert not world.ingest.is_open(file_id)
    assert list(world.sink.file_ids()) == []


async def test_a_cancel_while_the_file_is_being_opened_reaches_the_stream(world: World) -> None:
    file_id = await world.initiate(MIB)
    world.sink.opening.close()
    opening = asyncio.create_task(world.open(file_id))
    await world.sink.opening.somebody_waits()
    await world.cancel(file_id)
    world.sink.opening.open()
    upload = await opening
    with pytest.raises(UploadCancelled):
        await upload.write(b"x")
    await world.ingest.wait_closed(file_id)
    assert world.sink.bytes_of(file_id) == 0
    await upload.close()


async def test_a_drain_ends_streams_and_keeps_what_they_received(world: World) -> None:
    uploads: list[Upload] = []
    for _ in range(5):
        _, upload = await world.send_new(os.urandom(100 * KIB)[: 50 * KIB])
        uploads.append(upload)
    world.ingest.stop_all(ShuttingDown())
    for upload in uploads:
        with pytest.raises(ShuttingDown):
            await upload.write(b"")
        await upload.close()
        assert upload.durable == 50 * KIB
    assert world.ingest.open_count == 0


async def test_after_the_end_nothing_is_opened(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node") as world:
        file_id, upload = await world.send_new(b"bytes")
        await world.ingest.aclose()
        assert upload.durable == 5
        with pytest.raises(ShuttingDown):
            await world.open(file_id, 5)
        await upload.close()


async def test_an_idle_stream_that_its_door_stops_keeps_what_it_received(world: World) -> None:
    file_id = await world.initiate(100)
    upload = await world.open(file_id)
    await upload.write(b"x" * 10)
    upload.ending.stop(UploadIdle(file_id, 60))
    with pytest.raises(UploadIdle):
        await upload.write(b"x")
    await upload.close()
    assert (await world.row(file_id)).bytes_received == 10


async def test_a_cancel_stops_the_hashing_of_a_resumed_prefix(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node", Limits(lag_bytes=64 * KIB)) as world:
        file_id = await world.initiate(MIB)
        upload = await world.open(file_id)
        await send(upload, b"x" * 512 * KIB)
        await upload.close()
        world.sink.reading.close()
        upload = await world.open(file_id, 512 * KIB)
        await world.sink.reading.somebody_waits()
        await world.cancel(file_id)
        assert world.ingest.is_open(file_id)
        world.sink.reading.open()
        await world.ingest.wait_closed(file_id)
        await upload.close()


async def test_telling_of_a_file_that_is_not_open_is_no_error(world: World) -> None:
    batch_id, (file_id, _) = await world.initiate_batch([10, 10])
    await world.cancel(file_id)
    result = await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
    world.ingest.stop(result.audited.events[0])
    assert world.ingest.open_count == 0
