"""What many uploads at once, and big ones, hold in memory."""

from __future__ import annotations

import asyncio
import gc
import os

import psutil
import pytest

from unit.ingest.world import CALLER, KIB, MIB, World, send
from upload_server.ingest import Upload

UPLOADS = 1000


def resident() -> int:
    gc.collect()
    return int(psutil.Process(os.getpid()).memory_info().rss)


@pytest.mark.timeout(400)
async def test_a_thousand_open_uploads_are_cheap(world: World) -> None:
    _, ids = await world.initiate_batch([MIB] * UPLOADS)
    before, threads = resident(), psutil.Process().num_threads()
    uploads = await asyncio.gather(*(world.open(file_id) for file_id in ids))
    assert world.ingest.open_count == UPLOADS
    idle = resident() - before
    # All at once; a message is a new object each time, as on a wire.
    await asyncio.gather(*(_send_fresh(upload, 8) for upload in uploads))
    grown = resident() - before
    assert idle < 40 * MIB, f"{idle / MIB:.0f} MiB"
    assert grown < 180 * MIB, f"{grown / MIB:.0f} MiB"
    assert psutil.Process().num_threads() - threads <= 8
    await asyncio.gather(*(upload.close() for upload in uploads))
    assert all(upload.durable == 512 * KIB for upload in uploads)
    assert world.ingest.open_count == 0
    assert world.ingest.memory._held == 0


async def _send_fresh(upload: Upload, messages: int) -> None:
    for _ in range(messages):
        await upload.write(os.urandom(64 * KIB))


async def test_a_big_file_takes_constant_memory(world: World) -> None:
    size, chunk = 512 * MIB, os.urandom(256 * KIB)
    upload = await world.open(await world.initiate(size))
    before = resident()
    peak = 0
    for number in range(size // len(chunk)):
        # A message is a new object each time, as on a wire.
        await upload.write(chunk[:-1] + b"x")
        if number % 200 == 0:
            peak = max(peak, resident())
    await upload.commit("", CALLER)
    await upload.close()
    assert peak - before < 32 * MIB, f"{(peak - before) / MIB:.0f} MiB"


async def test_a_million_tiny_messages_are_bounded(world: World) -> None:
    upload = await world.open(await world.initiate(MIB))
    world.sink.appending.close()
    sending = asyncio.create_task(send(upload, b"x" * MIB, 1))
    await world.sink.appending.somebody_waits()
    await asyncio.wait([sending], timeout=0.2)
    assert upload.received < 64 * KIB
    sending.cancel()
    world.sink.appending.open()
    await upload.close()
    assert world.ingest.memory._held == 0


async def test_nothing_is_left_of_many_uploads_that_were_cancelled(world: World) -> None:
    async def one() -> None:
        file_id, upload = await world.send_new(b"x" * 1000)
        await world.cancel(file_id)
        await upload.close()

    for _ in range(50):
        await one()
    tasks, descriptors = len(asyncio.all_tasks()), psutil.Process().num_fds()
    for _ in range(10):
        await asyncio.gather(*(one() for _ in range(50)))
    async with asyncio.timeout(30):
        # The last of them go when their threads have come back.
        while len(asyncio.all_tasks()) > tasks or psutil.Process().num_fds() > descriptors + 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert world.ingest.open_count == 0
