"""What the sender of one file can do, and what becomes of the file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid

import pytest

from unit.ingest.world import CALLER, KIB, MIB, World, send
from upload_server.domain.errors import (
    ChecksumMismatch,
    FileNotFound,
    FileNotWritable,
    OffsetMismatch,
    SizeExceeded,
    UploadIncomplete,
)
from upload_server.domain.states import FileStatus


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("size", "chunk"), [(0, 1), (1, 1), (1000, 7), (3 * MIB + 1, 64 * KIB), (20 * MIB, MIB), (5 * MIB, 5 * MIB)]
)
async def test_a_file_is_completed_with_all_its_bytes(world: World, size: int, chunk: int) -> None:
    data = os.urandom(size)
    file_id = await world.initiate(size, digest(data))
    upload = await world.open(file_id)
    assert upload.file.status is FileStatus.UPLOADING
    await send(upload, data, chunk)
    file = await upload.commit(digest(data), CALLER)
    await upload.close()
    assert (file.status, file.sha256, file.bytes_received) == (FileStatus.COMPLETED, digest(data), size)
    assert file == await world.row(file_id)
    assert upload.durable == size
    # The write that completes the file records its bytes as well: a small file has no other.
    assert size > 8 * MIB or world.progress == []
    assert upload.file == file
    assert world.sink.content(file_id) == data
    assert world.observed.taken == size
    assert not world.ingest.is_open(file_id)
    moves = [event.to_status for audited in world.changes for event in audited.events]
    assert moves == ["pending", "uploading", "completed"]


async def test_views_of_messages_are_taken_as_they_are(world: World) -> None:
    data = os.urandom(300 * KIB)
    file_id = await world.initiate(len(data))
    upload = await world.open(file_id)
    for start in range(0, len(data), 100 * KIB):
        await upload.write(memoryview(b"tag" + data[start : start + 100 * KIB])[3:])
    file = await upload.commit("", CALLER)
    assert file.sha256 == digest(data)
    assert world.sink.content(file_id) == data
    await upload.close()


async def test_without_a_commit_nothing_is_completed(world: World) -> None:
    data = os.urandom(MIB)
    file_id, upload = await world.send_new(data)
    await upload.close()
    row = await world.row(file_id)
    assert (row.status, row.bytes_received) == (FileStatus.UPLOADING, MIB)


async def test_closing_makes_what_came_durable(world: World) -> None:
    file_id = await world.initiate(10 * MIB)
    upload = await world.open(file_id)
    await upload.write(b"x" * 100_000)
    await upload.close()
    await upload.close()
    assert upload.durable == 100_000
    assert (await world.row(file_id)).bytes_received == 100_000
    assert world.ingest.open_count == 0
    assert (world.observed.opened, world.observed.closed) == (1, 1)


async def test_digests_are_compared_whatever_their_case(world: World) -> None:
    data = b"some bytes"
    _, upload = await world.send_new(data, digest(data))
    assert (await upload.commit(digest(data).upper(), CALLER)).status is FileStatus.COMPLETED
    await upload.close()


@pytest.mark.parametrize("announced", [True, False])
async def test_a_wrong_digest_fails_the_file(world: World, announced: bool) -> None:
    data, wrong = os.urandom(200 * KIB), digest(b"other")
    file_id, upload = await world.send_new(data, wrong if announced else "")
    with pytest.raises(ChecksumMismatch) as raised:
        await upload.commit("" if announced else wrong, CALLER)
    assert raised.value.metadata["expected_sha256"] == wrong
    assert raised.value.metadata["actual_sha256"] == digest(data)
    await upload.close()
    row = await world.row(file_id)
    assert (row.status, row.failure_reason, row.sha256) == (FileStatus.FAILED, "checksum_mismatch", "")
    assert [owed.file_id for owed in await world.owed_deletions()] == [file_id]
    with pytest.raises(FileNotWritable):
        await world.open(file_id)


async def test_an_announced_digest_is_checked_besides_the_one_at_commit(world: World) -> None:
    data = b"the bytes"
    _, upload = await world.send_new(data, digest(b"announced"))
    with pytest.raises(ChecksumMismatch):
        await upload.commit(digest(data), CALLER)
    await upload.close()


async def test_a_message_that_passes_the_size_is_dropped_whole(world: World) -> None:
    file_id = await world.initiate(10)
    upload = await world.open(file_id)
    await upload.write(b"123456")
    with pytest.raises(SizeExceeded) as raised:
        await upload.write(b"78901")
    assert raised.value.metadata == {"file_id": file_id, "bytes_received": "6", "size_bytes": "10"}
    assert upload.received == 6
    await upload.write(b"7890")
    with pytest.raises(SizeExceeded):
        await upload.write(b"x")
    await upload.write(b"")
    assert (await upload.commit("", CALLER)).status is FileStatus.COMPLETED
    assert world.sink.content(file_id) == b"1234567890"
    await upload.close()


async def test_a_commit_that_comes_too_early_changes_nothing(world: World) -> None:
    file_id = await world.initiate(10)
    upload = await world.open(file_id)
    await upload.write(b"12345")
    with pytest.raises(UploadIncomplete) as raised:
        await upload.commit("", CALLER)
    assert raised.value.metadata["bytes_received"] == "5"
    assert (await world.row(file_id)).status is FileStatus.UPLOADING
    await upload.write(b"67890")
    assert (await upload.commit("", CALLER)).status is FileStatus.COMPLETED
    await upload.close()


async def test_refusals_to_open(world: World) -> None:
    with pytest.raises(FileNotFound):
        await world.open(str(uuid.uuid4()))
    file_id, upload = await world.send_new(b"bytes")
    await upload.close()
    for offset in (0, 4, 6):
        with pytest.raises(OffsetMismatch) as raised:
            await world.open(file_id, offset)
        assert raised.value.metadata["expected_offset"] == "5"
    upload = await world.open(file_id, 5)
    await upload.commit("", CALLER)
    await upload.close()
    with pytest.raises(FileNotWritable):
        await world.open(file_id, 5)
    assert world.ingest.open_count == 0


async def test_a_closed_or_completed_upload_takes_nothing(world: World) -> None:
    _, upload = await world.send_new(b"bytes")
    await upload.commit("", CALLER)
    with pytest.raises(RuntimeError):
        await upload.commit("", CALLER)
    await upload.close()
    with pytest.raises(RuntimeError):
        await upload.write(b"")


async def test_a_completion_that_has_begun_is_carried_out_though_its_caller_leaves(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    world.store.hold_complete = asyncio.Event()
    commit = asyncio.create_task(upload.commit("", CALLER))
    await world.store.completed.wait()
    commit.cancel()
    closing = asyncio.create_task(upload.close())
    with pytest.raises(asyncio.CancelledError):
        await commit
    await asyncio.wait([closing], timeout=0.1)
    assert world.ingest.is_open(file_id), "closed under a completion whose outcome is not known"
    world.store.hold_complete.set()
    await closing
    assert (await world.row(file_id)).status is FileStatus.COMPLETED
    assert not world.ingest.is_open(file_id)


async def test_a_caller_that_leaves_before_the_completion_completes_nothing(world: World) -> None:
    file_id = await world.initiate(4 * KIB)
    upload = await world.open(file_id)
    world.sink.syncing.close()
    await upload.write(b"x" * 4 * KIB)
    commit = asyncio.create_task(upload.commit("", CALLER))
    await world.sink.syncing.somebody_waits()
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit
    world.sink.syncing.open()
    await upload.close()
    row = await world.row(file_id)
    assert (row.status, row.bytes_received) == (FileStatus.UPLOADING, 4 * KIB)
