"""Timers that nearly always are cancelled: those that are not still fire, once and in time."""

import asyncio

import pytest

from transcoder.timers import Limit, Timers


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.005, 0.03])
async def test_a_timer_fires_once_and_not_before_its_time(seconds: float) -> None:
    loop, fired = asyncio.get_running_loop(), asyncio.Event()
    times: list[float] = []

    def note() -> None:
        times.append(loop.time())
        fired.set()

    began = loop.time()
    Timers().after(seconds, note)
    await fired.wait()
    assert times[0] - began >= seconds - 0.002  # a loop's clock may count milliseconds
    assert len(times) == 1


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.03])
async def test_a_cancelled_timer_never_fires(seconds: float) -> None:
    timers, fired, later = Timers(), [], asyncio.Event()
    early = timers.after(seconds, lambda: fired.append("early"))
    aged = timers.after(0.03, lambda: fired.append("aged"))
    timers.after(0.02, aged.cancel)  # by now it has a timer of its own
    early.cancel()
    timers.after(0.05, later.set)
    await later.wait()
    assert fired == []


async def test_a_tick_that_nobody_outlives_leaves_the_next_one_working() -> None:
    timers = Timers()
    for _ in range(3):
        timers.after(0.03, lambda: None).cancel()
        fired = asyncio.Event()
        timers.after(0.015, fired.set)
        await fired.wait()


async def test_nothing_is_kept_of_what_is_over() -> None:
    timers = Timers(tick=0.01)
    for _ in range(100):
        with Limit(timers, 0.08):
            await asyncio.sleep(0)
    assert not timers.young


async def limited(timers: Timers, limit: float, seconds: float) -> str:
    with Limit(timers, limit):
        await asyncio.sleep(seconds)
    return "done"


@pytest.mark.parametrize("tick", [0.01, 1.0])
async def test_the_slow_are_interrupted_and_the_quick_are_not(tick: float) -> None:
    timers = Timers(tick)
    slow = [asyncio.create_task(limited(timers, 0.2, 60)) for _ in range(3)]
    quick = [asyncio.create_task(limited(timers, 0.2, 0)) for _ in range(3)]
    async with asyncio.timeout(30):
        ended = await asyncio.gather(*slow, *quick, return_exceptions=True)
    assert [type(e) for e in ended[:3]] == [TimeoutError] * 3
    assert ended[3:] == ["done"] * 3


async def test_a_task_that_was_interrupted_can_go_on() -> None:
    timers = Timers()

    async def twice() -> str:
        with pytest.raises(TimeoutError):
            await limited(timers, 0.05, 60)
        return await limited(timers, 0.05, 0)

    task = asyncio.create_task(twice())
    assert await task == "done"
    assert task.cancelling() == 0


async def wait_longer(limit: Limit) -> None:
    with limit:
        limit.restart(0.06)
        await asyncio.Event().wait()


async def test_a_limit_that_is_restarted_counts_from_then_on() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await wait_longer(Limit(Timers(), 0.02))
    assert loop.time() - began >= 0.058


async def test_a_limit_may_be_entered_again_with_the_whole_time() -> None:
    in_time = Limit(Timers(), 0.8)

    async def write(seconds: float) -> None:
        with in_time:
            await asyncio.sleep(seconds)

    # Together they take longer than the limit.
    for _ in range(3):
        await write(0.3)
    with pytest.raises(TimeoutError):
        await write(60)
    await write(0)


async def test_a_task_that_somebody_cancels_is_not_timed_out() -> None:
    task = asyncio.create_task(limited(Timers(), 60, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_limit_and_a_cancellation_at_once_are_a_cancellation() -> None:
    async def leave() -> None:
        with Limit(Timers(), 0.05):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.sleep(60)

    task = asyncio.create_task(leave())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_is_no_timeout() -> None:
    entered = asyncio.Event()

    async def wait() -> None:
        with Limit(Timers(), 0.02):
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    task = asyncio.create_task(wait())
    await entered.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
