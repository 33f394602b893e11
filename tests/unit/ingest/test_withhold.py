"""Bytes that are judged before they may become durable."""

from __future__ import annotations

import os

from unit.ingest.world import CALLER, KIB, MIB, World
from upload_server.domain.states import FileStatus


async def test_withheld_bytes_leave_no_trace_when_the_stream_is_closed(world: World) -> None:
    data = os.urandom(30 * MIB)
    file_id = await world.initiate(len(data))
    upload = await world.open(file_id)
    await upload.write(data[:1000])
    await upload.close()
    upload = await world.open(file_id, 1000)
    upload.withhold()
    for _ in range(1000, 20 * MIB, 256 * KIB):
        await upload.write(b"x" * (256 * KIB))
    await upload.close()
    assert (upload.durable, (await world.row(file_id)).bytes_received) == (1000, 1000)
    upload = await world.open(file_id, 1000)
    await upload.write(data[1000:])
    assert (await upload.commit("", CALLER)).status is FileStatus.COMPLETED
    assert world.sink.content(file_id) == data


async def test_released_bytes_are_as_durable_as_any(world: World) -> None:
    data = os.urandom(20 * MIB)
    file_id = await world.initiate(len(data) + 1)
    upload = await world.open(file_id)
    upload.withhold()
    await upload.write(data)
    assert world.progress == []
    upload.release()
    await upload.close()
    assert (await world.row(file_id)).bytes_received == len(data)
    upload = await world.open(file_id, len(data))
    await upload.write(b"!")
    await upload.commit("", CALLER)
    assert world.sink.content(file_id) == data + b"!"
