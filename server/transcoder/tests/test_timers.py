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


async def test_a_limit_interrupts_with_a_timeout() -> None:
    with pytest.raises(TimeoutError), Timers().limit(0.02):
        await asyncio.Event().wait()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def wait_longer(limit: Limit) -> None:
    with limit:
        limit.restart(0.06)
        await asyncio.Event().wait()


async def test_a_limit_that_is_restarted_counts_from_then_on() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    limit = Timers().limit(0.02)
    with pytest.raises(TimeoutError):
        await wait_longer(limit)
    assert loop.time() - began >= 0.058


async def test_a_cancellation_from_elsewhere_is_no_timeout() -> None:
    entered = asyncio.Event()

    async def wait() -> None:
        with Timers().limit(0.02):
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                asyncio.current_task().cancel()  # type: ignore[union-attr]

    task = asyncio.create_task(wait())
    await entered.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
