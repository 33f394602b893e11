"""The bytes of a completed file, read back by threads."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from unit.ingest.world import World, completed
from upload_server.sink.disk.sink import DiskSink


async def test_whoever_is_cancelled_leaves_a_thread_that_reads_and_hears_of_no_fault(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ended = world.sink.reading, asyncio.Event()
    loop = asyncio.get_running_loop()

    def read(*arguments: Any) -> Generator[bytes, None, None]:
        gate.pass_through()
        try:
            yield from DiskSink.read(world.sink, *arguments)
        finally:
            loop.call_soon_threadsafe(ended.set)

    file_id = await completed(world)
    monkeypatch.setattr(world.sink, "read", read)
    content = world.ingest.content(await world.row(file_id), lambda: world.row(file_id))

    async def take_one() -> None:
        async with content.blocks(0, 7) as take:
            await content.in_thread(take)

    gate.close()
    taking = asyncio.ensure_future(take_one())
    await gate.somebody_waits()
    taking.cancel()
    # The thread is in the generator yet: to close it now would be the fault.
    await asyncio.wait([taking], timeout=0.3)
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await ended.wait()


async def test_blocks_come_ahead_of_whoever_takes_them_and_stop_with_it(world: World) -> None:
    file_id = await completed(world, b"x" * 600_000)
    content = world.ingest.content(await world.row(file_id), lambda: world.row(file_id))
    assert b"".join([block async for block in content.ahead(5, 600_000)]) == b"x" * 599_995
    blocks = content.ahead(0, 600_000)
    assert await anext(blocks)
    await blocks.aclose()
