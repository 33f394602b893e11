"""The signal that ends a stream: a level that carries its cause."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from upload_server.domain.errors import ShuttingDown, UploadCancelled, UploadIdle, WriterReplaced
from upload_server.domain.states import File, FileStatus
from upload_server.ingest import StopSignal

NOW = datetime(2024, 1, 1, tzinfo=UTC)
CANCELLED = File(
    "id", "a.bin", "", 1, 0, FileStatus.CANCELLED, "", "", "", NOW, NOW, None, NOW, "user", "why", "", 2, 3, 4
)


async def test_it_starts_unset() -> None:
    stop = StopSignal()
    assert stop.cause is None
    assert not stop.abandoned
    assert stop.set_at == 0
    stop.check()


async def test_the_first_cause_wins_and_stays() -> None:
    stop = StopSignal()
    first = WriterReplaced("id")
    stop.set(first)
    set_at = stop.set_at
    stop.set(UploadCancelled(CANCELLED))
    assert stop.cause is first
    assert stop.set_at == set_at > 0
    for _ in range(2):
        with pytest.raises(WriterReplaced) as raised:
            stop.check()
        assert raised.value is first


async def test_waiting_ends_when_it_is_set_and_at_once_afterwards() -> None:
    stop = StopSignal()
    waiting = [asyncio.create_task(stop.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    cause = ShuttingDown()
    stop.set(cause)
    assert await asyncio.gather(*waiting) == [cause] * 3
    assert await stop.wait() is cause


async def test_listeners_are_called_once_and_late_ones_at_once() -> None:
    stop = StopSignal()
    called: list[str] = []
    stop.on_set(lambda: called.append("early"))
    stop.set(ShuttingDown())
    stop.set(ShuttingDown())
    stop.on_set(lambda: called.append("late"))
    assert called == ["early", "late"]


@pytest.mark.parametrize(
    ("cause", "abandoned"),
    [
        (UploadCancelled(CANCELLED), True),
        (WriterReplaced("id"), True),
        (UploadIdle("id", 60), False),
        (ShuttingDown(), False),
    ],
)
async def test_only_a_cancel_and_a_take_over_forbid_further_bytes(cause: ShuttingDown, abandoned: bool) -> None:
    stop = StopSignal()
    stop.set(cause)
    assert stop.abandoned is abandoned


async def test_raising_it_often_does_not_grow_its_traceback() -> None:
    stop = StopSignal()
    stop.set(ShuttingDown())
    depths = []
    for _ in range(10):
        with pytest.raises(ShuttingDown) as raised:
            stop.check()
        depths.append(len(raised.traceback))
    assert len(set(depths)) == 1
