"""Two ingests on one store and one folder, as two processes have: what a slow writer still does is nobody's byte."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from unit.ingest.world import CALLER, KIB, GatedSink, World, janitor_of, open_world, send, stopped
from upload_server.domain.errors import UploadCancelled, WriterReplaced
from upload_server.domain.observer import Observer
from upload_server.domain.states import FileStatus
from upload_server.ingest import Ingest, Limits

# Of each chunk one piece.
LIMITS = Limits(sync_bytes=64 * KIB, piece_bytes=64 * KIB, sync_seconds=0.05)


def another_ingest(world: World) -> Ingest:
    """As a second process has it: it knows nothing of the first one's streams."""
    return Ingest(
        world.store,
        GatedSink(world.sink.root),
        clock=world.now,
        limits=LIMITS,
        on_progress=lambda *_: None,
        observer=Observer(),
    )


@pytest.mark.parametrize("held", ["appending", "appended", "syncing"])
@pytest.mark.parametrize("ends", ["before it goes on", "after it went on"])
async def test_a_writer_that_was_held_up_and_taken_over_adds_no_byte(tmp_path: Path, held: str, ends: str) -> None:
    first, bad, good = os.urandom(64 * KIB), os.urandom(64 * KIB), os.urandom(128 * KIB)
    async with open_world(tmp_path / "node", LIMITS) as world:
        file_id = await world.initiate(192 * KIB)
        other, gate = another_ingest(world), getattr(world.sink, held)
        old = await world.open(file_id)
        await old.write(first)
        assert await old.wait_durable(0) == 64 * KIB
        gate.close()
        await old.write(bad)
        await gate.somebody_waits()

        new = await other.open(file_id, 64 * KIB, CALLER)
        await new.write(good[: 64 * KIB])
        await new.wait_durable(64 * KIB)
        if ends == "after it went on":
            gate.open()
            assert isinstance(await stopped(old), WriterReplaced)
            await old.close()
        await new.write(good[64 * KIB :])
        file = await new.commit("", CALLER)
        await new.close()
        gate.open()
        assert isinstance(await stopped(old), WriterReplaced)
        await old.close()

        assert world.sink.content(file_id) == first + good
        assert file.status is FileStatus.COMPLETED
        assert await janitor_of(world, other).delete_owed() == 1
        assert world.sink.fences(file_id) == [file.run_fence]
        assert world.sink.content(file_id) == first + good
        await other.aclose()


async def test_a_stream_that_opens_after_its_file_was_cancelled_elsewhere_leaves_nothing(world: World) -> None:
    """Its node claimed the file and was stopped; the cancel, and its deletion, came through another one."""
    file_id = await world.initiate(100)
    other = another_ingest(world)
    world.sink.opening.close()
    opening = asyncio.create_task(world.open(file_id))
    await world.sink.opening.somebody_waits()
    await world.cancel(file_id, tell=False)
    await janitor_of(world, other).delete_owed()
    world.sink.opening.open()
    late = await opening
    await send(late, b"late")
    assert isinstance(await stopped(late), UploadCancelled)
    await late.close()

    assert world.sink.file_ids() == []
    assert world.sink.discarded == [0]
    await other.aclose()


async def test_what_a_replaced_stream_leaves_behind_what_counts_is_cut_off(world: World) -> None:
    file_id = await world.initiate(200)
    other = another_ingest(world)
    old = await world.open(file_id)
    await old.write(b"a" * 50)
    assert await old.wait_durable(0) == 50
    new = await other.open(file_id, 50, CALLER)
    await old.write(b"z" * 50)
    assert isinstance(await stopped(old), WriterReplaced)
    await old.close()
    assert world.sink.size_under(file_id, (1,)) == 50
    assert world.sink.discarded == [50]
    await new.close()
    await other.aclose()


async def test_a_file_goes_on_in_its_run_at_the_ingest_that_began_it_and_in_another_one_elsewhere(world: World) -> None:
    file_id = await world.initiate(40)
    other = another_ingest(world)
    for number, (ingest, fences) in enumerate([(world.ingest, [1]), (world.ingest, [1]), (other, [1, 3])]):
        upload = await ingest.open(file_id, number * 10, CALLER)
        await upload.write(bytes([number]) * 10)
        await upload.close()
        assert world.sink.fences(file_id) == fences
    upload = await world.open(file_id, 30)
    assert world.sink.fences(file_id) == [1, 3, 4]
    await upload.write(b"\x03" * 10)
    file = await upload.commit("", CALLER)
    await upload.close()
    assert world.sink.content(file_id) == b"".join(bytes([number]) * 10 for number in range(4))
    assert await janitor_of(world).delete_owed() == 1
    assert world.sink.fences(file_id) == [file.run_fence] == [4]
    await other.aclose()
