"""Why a stream ends: a level that keeps its first cause, and tells those who wait for it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
import structlog

from upload_server.domain.errors import (
    FileNotWritable,
    ShuttingDown,
    StorageFull,
    UploadCancelled,
    UploadIdle,
    WriterReplaced,
)
from upload_server.domain.states import File, FileStatus
from upload_server.ingest.ending import Ending, Marks
from upload_server.sink.protocol import NoRoom

NOW = datetime(2024, 1, 1, tzinfo=UTC)
CANCELLED = File(
    "id", "a.bin", "", 1, 0, FileStatus.CANCELLED, "", "", "", NOW, NOW, None, NOW, "user", "why", "", 2, 3, 4
)


@pytest.fixture
def ending() -> Ending:
    return Ending("id", Marks(40, 30, 20, 10))


async def test_at_first_nothing_ends_the_stream(ending: Ending) -> None:
    assert ending.cause is None
    assert not ending.abandoned
    assert not ending.dead
    assert ending.stopped_at == 0
    ending.check()


async def test_the_first_cause_wins_and_stays(ending: Ending) -> None:
    first = WriterReplaced("id")
    ending.stop(first)
    stopped_at = ending.stopped_at
    ending.stop(UploadCancelled(CANCELLED))
    assert ending.cause is first
    assert ending.stopped_at == stopped_at > 0
    for _ in range(2):
        with pytest.raises(WriterReplaced) as raised:
            ending.check()
        assert raised.value is first


async def test_whoever_waits_for_a_change_hears_of_a_stop_and_looks_again(ending: Ending) -> None:
    async def stopped() -> None:
        while ending.cause is None:
            await ending.change()

    waiting = [asyncio.create_task(stopped()) for _ in range(3)]
    await asyncio.sleep(0)
    ending.changed()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    ending.stop(ShuttingDown())
    await asyncio.gather(*waiting)
    await stopped()


async def test_listeners_hear_of_a_stop_once_and_late_ones_at_once(ending: Ending) -> None:
    called: list[str] = []
    ending.on_news(lambda: called.append("early"))
    ending.stop(ShuttingDown())
    ending.stop(ShuttingDown())
    ending.on_news(lambda: called.append("late"))
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
async def test_only_a_cancel_and_a_take_over_forbid_further_bytes(
    ending: Ending, cause: ShuttingDown, abandoned: bool
) -> None:
    ending.stop(cause)
    assert ending.abandoned is abandoned
    assert ending.dead is abandoned


async def test_raising_it_often_does_not_grow_its_traceback(ending: Ending) -> None:
    ending.stop(ShuttingDown())
    depths = []
    for _ in range(10):
        with pytest.raises(ShuttingDown) as raised:
            ending.check()
        depths.append(len(raised.traceback))
    assert len(set(depths)) == 1


async def test_the_first_failure_stays_and_forbids_no_byte_that_was_written(ending: Ending) -> None:
    first = FileNotWritable(CANCELLED)
    called: list[str] = []
    ending.on_news(lambda: called.append("news"))
    ending.fail(first)
    ending.fail(FileNotWritable(CANCELLED))
    assert called == ["news"]
    assert ending.dead
    assert not ending.abandoned
    assert ending.cause is None
    with pytest.raises(FileNotWritable) as raised:
        ending.check()
    assert raised.value is first


async def test_a_cancel_outranks_the_failure_before_it_and_the_one_after(ending: Ending) -> None:
    for error in (FileNotWritable(CANCELLED), RuntimeError("later")):
        ending.fail(error)
        ending.stop(UploadCancelled(CANCELLED))
        with pytest.raises(UploadCancelled):
            ending.check()


async def test_a_failure_of_the_disk_goes_to_the_log_and_not_to_the_sender(ending: Ending) -> None:
    with structlog.testing.capture_logs() as lines:
        ending.fail(NoRoom("none is left in /secret/path"))
    (line,) = lines
    assert (line["file_id"], line["reason"], line["written"], line["durable"]) == ("id", "no_room", 30, 10)
    with pytest.raises(StorageFull) as raised:
        ending.check()
    assert "/secret" not in str(raised.value)


async def test_a_bug_goes_to_the_log_with_its_traceback(ending: Ending) -> None:
    error = KeyError("ours")
    with structlog.testing.capture_logs() as lines:
        ending.fail(error)
    assert [line["exc_info"] for line in lines] == [error]
    with pytest.raises(KeyError):
        ending.check()
