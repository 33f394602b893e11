"""The memory that all streams share: who waits for room is let on, whatever becomes of the others."""

from __future__ import annotations

import asyncio

from upload_server.ingest import Memory

KIB = 1024
MIB = 1024 * KIB


async def test_many_that_wait_are_all_let_on_in_the_end() -> None:
    memory = Memory(2 * MIB)
    memory.hold(2 * MIB)
    waiting = [asyncio.create_task(memory.uncrowded()) for _ in range(500)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    memory.hold(-2 * MIB)
    await asyncio.gather(*waiting)


async def test_no_more_are_let_on_than_there_is_room_for() -> None:
    memory = Memory(2 * MIB)
    memory.hold(2 * MIB)
    waiting = [asyncio.create_task(memory.uncrowded()) for _ in range(10)]
    await asyncio.sleep(0)
    memory.hold(-MIB - 512 * KIB)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(task.done() for task in waiting) == 2
    memory.hold(-512 * KIB)
    await asyncio.gather(*waiting)


async def test_one_that_left_takes_nobody_s_place() -> None:
    memory = Memory(2 * MIB)
    memory.hold(2 * MIB)
    gone, waiting = (asyncio.create_task(memory.uncrowded()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    memory.hold(-MIB - 256 * KIB)
    await waiting
    memory.hold(-768 * KIB)
