"""One limit for many calls: who is too slow is ended, who leaves leaves, who is quick pays nothing."""

from __future__ import annotations

import asyncio

import pytest

from upload_server.doors.time_limit import TimeLimit


async def limited(limit: TimeLimit, seconds: float) -> str:
    with limit.watch():
        await asyncio.sleep(seconds)
    return "done"


async def test_the_slow_are_ended_and_the_quick_are_not() -> None:
    limit = TimeLimit(0.2)
    slow = [asyncio.create_task(limited(limit, 60)) for _ in range(3)]
    quick = [asyncio.create_task(limited(limit, 0)) for _ in range(3)]
    async with asyncio.timeout(10):
        ended = await asyncio.gather(*slow, *quick, return_exceptions=True)
    assert [type(e) for e in ended[:3]] == [TimeoutError] * 3
    assert ended[3:] == ["done"] * 3


async def test_a_task_that_was_ended_can_go_on() -> None:
    limit = TimeLimit(0.05)

    async def twice() -> str:
        with pytest.raises(TimeoutError):
            await limited(limit, 60)
        return await limited(limit, 0)

    task = asyncio.create_task(twice())
    assert await task == "done"
    assert task.cancelling() == 0


async def test_who_leaves_is_cancelled_not_timed_out() -> None:
    limit = TimeLimit(60)
    task = asyncio.create_task(limited(limit, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_both_at_once_is_a_cancellation() -> None:
    limit = TimeLimit(0.05)

    async def leaving() -> None:
        with limit.watch():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.sleep(60)

    task = asyncio.create_task(leaving())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_is_kept_of_what_is_over() -> None:
    limit = TimeLimit(0.08)
    for _ in range(100):
        await limited(limit, 0)
    assert not limit._running


async def test_one_may_begin_again_with_the_whole_time() -> None:
    limit = TimeLimit(0.3)
    in_time = limit.watch()

    async def write(seconds: float) -> None:
        with in_time:
            await asyncio.sleep(seconds)

    # Together they take longer than the limit.
    for _ in range(4):
        await write(0.15)
    with pytest.raises(TimeoutError):
        await write(60)
