"""Short scenarios: what has to be done for a bug to show. Each leaves a history for the checkers.

``SCENARIOS`` maps a name to the scenario and the options its server needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from robustness.prove.stage import Stage
from robustness.prove.watchers import Request
from support.process import LogLine

KIB = 1024
Scenario = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True)
class Entry:
    """A scenario with its server's options; ``rest`` is how long deletions that are owed may take at its end."""

    play: Scenario
    options: tuple[str, ...] = ()


SCENARIOS: dict[str, Entry] = {}


def scenario(*options: str) -> Callable[[Scenario], Scenario]:
    """Enter a scenario into the list."""

    def enter(play: Scenario) -> Scenario:
        SCENARIOS[play.__name__] = Entry(play, options)
        return play

    return enter


@scenario()
async def finish_then_cancel(stage: Stage) -> None:
    """A completed file is cancelled, alone and in a batch, and read."""
    file_id = await stage.file(100)
    await stage.upload(file_id, 100)
    await stage.caller.get(file_id)
    await stage.caller.cancel(file_id, "too late")
    await stage.http.get(file_id)


@scenario()
async def cancel_under_a_stream(stage: Stage) -> None:
    """A file is cancelled under its sender, who goes on: with silence, with a commit, with the end of its stream."""
    for ending in ("silence", "commit", "leave"):
        size = 200 * KIB
        file_id = await stage.file(size)
        first = await stage.open(file_id, size)
        assert first is not None
        await first.send(50 * KIB)
        await first.leave()
        stream = await stage.open(file_id, size, 50 * KIB)
        assert stream is not None
        await stream.send(size if ending == "commit" else 100 * KIB)
        if ending == "silence":
            # Nothing is left to be recorded: only being told can end this stream.
            await stream.hear_durable(100 * KIB)
        await stage.caller.cancel(file_id, "enough")
        await stage.caller.get(file_id)
        if ending == "silence":
            await stream.hear_stop()
        elif ending == "commit":
            await stream.commit()
        else:
            await stream.leave()
        await stage.caller.get(file_id)
        await stage.open(file_id, size, 50 * KIB)


@scenario()
async def hear_stop_then_read(stage: Stage) -> None:
    """A sender that hears of the cancel asks at once: it reads no less."""
    file_id = await stage.file(100)
    stream = await stage.open(file_id, 100)
    assert stream is not None
    cancelling = asyncio.create_task(stage.caller.cancel(file_id))
    await stream.hear_stop()
    await stage.http.get(file_id)
    await cancelling


@scenario()
async def hear_watch_then_read(stage: Stage) -> None:
    """A watcher that hears of the cancel asks at once: it reads no less."""
    file_id = await stage.file(100)
    watcher = await stage.watch(Request(file_ids=(file_id,)))
    cancelling = asyncio.create_task(stage.caller.cancel(file_id))
    await watcher.wait_for(lambda message: message.get("file", {}).get("status") == "UPLOAD_STATUS_CANCELLED")
    await stage.http.get(file_id)
    await cancelling


@scenario()
async def read_after_every_answer(stage: Stage) -> None:
    """What was answered is read by another connection at once."""
    for _ in range(5):
        file_id = await stage.file(10)
        await stage.caller.cancel(file_id)
        await stage.http.get(file_id)


@scenario()
async def read_before_and_after(stage: Stage) -> None:
    """A file is read, cancelled, and read again at once, through both doors."""
    for _ in range(5):
        file_id = await stage.file(10)
        await stage.caller.get(file_id)
        await stage.http.get(file_id)
        await stage.caller.cancel(file_id)
        await stage.http.get(file_id)
        await stage.caller.get(file_id)


@scenario()
async def take_over(stage: Stage) -> None:
    """A second stream takes the file over; the first one commits, or leaves with more bytes than the second has."""
    size = 100 * KIB
    file_id = await stage.file(size)
    first = await stage.open(file_id, size)
    assert first is not None
    await first.send(size)
    second = await stage.open(file_id, size)
    assert second is not None
    await first.commit()
    await stage.caller.get(file_id)
    other = await stage.file(size)
    first = await stage.open(other, size)
    assert first is not None
    await first.send(80 * KIB)
    second = await stage.open(other, size)
    assert second is not None
    await first.leave()
    await stage.caller.get(other)
    await second.send(10 * KIB)
    await second.leave()
    await stage.caller.get(other)


@scenario()
async def take_over_in_the_middle(stage: Stage) -> None:
    """A stream is replaced while bytes of it are written and not recorded; the second one begins there and commits."""
    size = 100 * KIB
    file_id = await stage.file(size)
    before = stage.server.stored_bytes()
    first = await stage.open(file_id, size)
    assert first is not None
    await first.send(80 * KIB)
    await asyncio.to_thread(_wait_written, stage, before)
    await _resume_and_commit(stage, file_id, size)
    await first.leave()
    await stage.caller.get(file_id)


@scenario()
async def end_without_commit(stage: Stage) -> None:
    """Every byte is sent and no commit; then the file is resumed and committed."""
    file_id = await stage.file(10 * KIB)
    stream = await stage.open(file_id, 10 * KIB)
    assert stream is not None
    await stream.send(10 * KIB)
    await stream.leave()
    await stage.caller.get(file_id)
    again = await stage.open(file_id, 10 * KIB, 10 * KIB)
    if again is not None:
        await again.commit()


@scenario()
async def wrong_offset(stage: Stage) -> None:
    """Streams open before and behind where the durable bytes end."""
    file_id = await stage.file(10 * KIB)
    stream = await stage.open(file_id, 10 * KIB)
    assert stream is not None
    await stream.send(5 * KIB)
    await stream.leave()
    await stage.open(file_id, 10 * KIB, 0)
    await stage.open(file_id, 10 * KIB, 6 * KIB)
    await stage.caller.get(file_id)


@scenario()
async def wrong_digest(stage: Stage) -> None:
    """A commit with another digest than that of the bytes."""
    file_id = await stage.file(10)
    await stage.upload(file_id, 10, wrong=True)
    await stage.caller.get(file_id)


@scenario()
async def same_request_again(stage: Stage) -> None:
    """Equal and other requests under one id, and once more after a restart."""
    first, second = await stage.file(1), await stage.file(2)
    for _ in range(2):
        await stage.caller.cancel(first, "a", "r")
    await stage.caller.cancel(second, "a", "r")
    await stage.caller.initiate(3, "r")
    await stage.http.initiate(3, "r")
    await stage.caller.initiate(4, "r")
    made = await stage.caller.initiate_batch([1, 2], "r")
    assert made is not None
    await stage.caller.cancel_batch(made[0], "", "b")
    await stage.restart(kill=True)
    await stage.http.cancel(first, "a", "r")
    await stage.http.cancel_batch(made[0], "", "b")


@scenario("--websocket-grace", "1.5", "--log-level", "debug")
async def lost_socket(stage: Stage) -> None:
    """A page is lost, another stream goes on with its file: the page's grace ends without a cancel."""
    file_id, other = await stage.file(10 * KIB), await stage.file(10 * KIB)
    await stage.socket(file_id, 10 * KIB, "break")
    await asyncio.to_thread(_wait_due, stage.server.data_dir / "upload.sqlite3", file_id)
    for _ in range(20):
        # What the page sent last may become durable in between: then the offset is another one.
        found = await stage.caller.get(file_id)
        assert found is not None
        if await stage.open(file_id, 10 * KIB, found["bytes_received"]) is not None:
            break
    # Lost later, for as long: when its file is cancelled, the time of the first is over as well.
    await stage.socket(other, 10 * KIB, "break")

    def is_over(line: LogLine) -> bool:
        return line.get("file_id") == other and line.get("to") == "cancelled"

    await asyncio.to_thread(stage.server.wait_log, is_over)
    await stage.caller.get(file_id)


def _wait_due(database: Path, file_id: str) -> None:
    """Wait until the loss of the file's page is noted."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            if connection.execute("SELECT cancel_due_at FROM file WHERE file_id = ?", (file_id,)).fetchone()[0]:
                return
        time.sleep(0.01)
    raise AssertionError("the page's loss was not noted")


@scenario("--expiry-grace", "0")
async def restart(stage: Stage) -> None:
    """A completed, a started and a waiting file before a restart and after it."""
    done, started, waiting = await stage.file(100), await stage.file(100), await stage.file(100)
    await stage.upload(done, 100)
    stream = await stage.open(started, 100)
    assert stream is not None
    await stream.send(50)
    await stream.leave()
    database = stage.server.data_dir / "upload.sqlite3"
    await asyncio.to_thread(_leave_old_answer, database)
    await stage.restart()
    await asyncio.to_thread(_wait_forgotten, database)
    for file_id in (done, started, waiting):
        await stage.caller.get(file_id)


def _leave_old_answer(database: Path) -> None:
    """An answer to be forgotten: the janitor does that after it has expired files."""
    with contextlib.closing(sqlite3.connect(database)) as opened, opened:
        opened.execute(
            "INSERT INTO stored_answer (principal, method, request_id, fingerprint, answer, created_at, created_served)"
            " VALUES ('', 'old', 'old', '', '', '2020-01-01 00:00:00.000000', -1e9)"
        )


def _wait_forgotten(database: Path) -> None:
    deadline = time.monotonic() + 10
    with contextlib.closing(sqlite3.connect(database)) as opened:
        while opened.execute("SELECT count(*) FROM stored_answer WHERE method = 'old'").fetchone()[0]:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@scenario("--watch-history", "1")
async def batches_watched(stage: Stage) -> None:
    """Batches come to each of their ends under the eyes of watchers with little room."""
    made = [await stage.caller.initiate_batch([10, 10, 10, 10]) for _ in range(4)]
    batches = [each for each in made if each is not None]
    await stage.watch(Request(everything=True))
    await stage.watch(Request(batch_ids=tuple(batch_id for batch_id, _ in batches), with_files=True))
    (by_call, files), (by_files, singles), (failing, mixed), (_, waiting) = batches
    await stage.upload(files[0], 10)
    stream = await stage.open(files[1], 10)
    assert stream is not None
    await stage.caller.cancel_batch(by_call, "all")
    await stage.caller.list_batch(by_call)
    await stage.http.get_batch(by_call)
    for file_id in singles:
        await stage.caller.cancel(file_id)
        await stage.caller.get_batch(by_files)
    for number, file_id in enumerate(mixed):
        await stage.upload(file_id, 10, wrong=number == 3)
        await stage.caller.get_batch(failing)
    await stage.caller.cancel(waiting[0])
    await stage.wait_all_watchers()


@scenario()
async def live_then_resumed(stage: Stage) -> None:
    """A watcher is live, breaks off, and is resumed from each of its tokens."""
    await stage.watch(Request(everything=True))
    for _ in range(3):
        file_id = await stage.file(10)
        await stage.upload(file_id, 10)
        await stage.caller.cancel(await stage.file(1))
    await stage.wait_all_watchers()


@scenario()
async def power_cut(stage: Stage) -> None:
    """The power goes when bytes were called durable; the file is resumed and committed."""
    size = 300 * KIB
    file_id = await stage.file(size)
    stream = await stage.open(file_id, size)
    assert stream is not None
    await stream.send(200 * KIB)
    await stream.hear_durable(200 * KIB)
    await stage.restart(kill=True)
    await _resume_and_commit(stage, file_id, size)
    await stage.caller.get(file_id)


@scenario()
async def torn_tail(stage: Stage) -> None:
    """The server dies with bytes on disk that it had not recorded yet; the file is resumed and committed."""
    size = 100 * KIB
    for _ in range(3):
        file_id = await stage.file(size)
        stream = await stage.open(file_id, size)
        assert stream is not None
        before = stage.server.stored_bytes()
        await stream.send(50 * KIB)
        await asyncio.to_thread(_wait_written, stage, before)
        await stage.restart(kill=True)
        if await _resume_and_commit(stage, file_id, size) == 0:
            # Otherwise they were recorded in time.
            return


@scenario()
async def late_writer(stage: Stage) -> None:
    """The server dies; the file is resumed, and whoever wrote its first bytes wakes and writes on, as the process of
    another node does that was stopped and taken for dead."""
    size = 100 * KIB
    file_id = await stage.file(size)
    stream = await stage.open(file_id, size)
    assert stream is not None
    await stream.send(50 * KIB)
    await stream.hear_durable(50 * KIB)
    [written] = (stage.server.data_dir / "bytes").rglob(f"{file_id}*")
    with written.open("r+b") as late:
        await stage.restart(kill=True)
        found = await stage.caller.get(file_id)
        assert found is not None
        offset = int(found["bytes_received"])
        again = await stage.open(file_id, size, offset)
        if again is not None:
            await again.send((size + offset) // 2)
            late.seek(offset)
            late.write(bytes(size))
            late.flush()
            await again.send(size)
            await again.commit()
    await stage.caller.get(file_id)


async def _resume_and_commit(stage: Stage, file_id: str, size: int) -> int:
    """Send what is missing of a file and commit it; returns from which offset on."""
    found = await stage.caller.get(file_id)
    assert found is not None
    offset = int(found["bytes_received"])
    again = await stage.open(file_id, size, offset)
    if again is not None:
        await again.send(size)
        await again.commit()
    return offset


def _wait_written(stage: Stage, before: int) -> None:
    deadline = time.monotonic() + 10
    while stage.server.stored_bytes() <= before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


@scenario()
async def other_program(stage: Stage) -> None:
    """Another program writes to final rows behind the server's back."""
    done, gone = await stage.file(10), await stage.file(10)
    await stage.upload(done, 10)
    await stage.caller.cancel(gone)
    await stage.caller.get(done)
    await stage.caller.get(gone)
    with contextlib.closing(sqlite3.connect(stage.server.data_dir / "upload.sqlite3")) as database:
        for statement in (
            f"UPDATE file SET status = 'cancelled' WHERE file_id = '{done}'",  # noqa: S608 - an id
            f"UPDATE file SET status = 'completed' WHERE file_id = '{gone}'",  # noqa: S608
        ):
            with contextlib.suppress(sqlite3.IntegrityError), database:
                database.execute(statement)
    await stage.caller.get(done)
    await stage.caller.get(gone)
