"""Bytes owed deletion go, and only those; stalled uploads fail; whatever breaks, the next round goes on."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.stores import shell, url_in
from unit.ingest.world import CALLER, DAY, HOUR, KIB, World, completed, janitor_of, open_world, send
from upload_server.domain.chain import seals_of
from upload_server.domain.errors import ChecksumMismatch, DatabaseFailure, FileNotFound
from upload_server.domain.runs import Run
from upload_server.domain.states import FileStatus
from upload_server.sink.protocol import Doomed, SinkError
from upload_server.store.values import OwedDeletion, Trail
from upload_server.upkeep.janitor import Janitor
from upload_server.upkeep.retention import Retention


@asynccontextmanager
async def running(janitor: Janitor) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(janitor.run())
        try:
            yield
        finally:
            task.cancel()


async def stored(world: World, size: int = 1000) -> str:
    """An uploading file with all its bytes durable and no stream open."""
    file_id, upload = await world.send_new(b"x" * size)
    await upload.close()
    return file_id


def freed(world: World) -> asyncio.Event:
    event = asyncio.Event()
    world.observed.on_freed = event.set
    return event


async def test_the_bytes_of_a_cancelled_file_go_and_no_others(world: World) -> None:
    keep, resumable, gone = await completed(world), await stored(world), await stored(world, 5000)
    await world.cancel(gone)
    assert await janitor_of(world).delete_owed() == 1
    assert set(world.sink.file_ids()) == {keep, resumable}
    assert await world.owed_deletions() == []
    assert world.observed.freed == 5000


async def test_a_commit_has_them_deleted_soon(world: World) -> None:
    janitor = world.janitor = janitor_of(world)
    event = freed(world)
    async with running(janitor):
        for _ in range(3):
            event.clear()
            file_id = await stored(world)
            await world.cancel(file_id)
            await event.wait()
            assert world.sink.bytes_of(file_id) == 0
    assert await world.owed_deletions() == []


class Nudges(Janitor):
    """Counts its nudges."""

    count = 0

    def nudge(self) -> None:
        self.count += 1


async def test_what_is_committed_nudges_it_if_bytes_are_owed(world: World) -> None:
    janitor = world.janitor = Nudges(
        world.store, world.sink, world.ingest, clock=world.now, upload_ttl=DAY, request_ttl=DAY, observer=world.observed
    )
    # Nobody ever sent to these.
    await world.cancel(await world.initiate(1))
    batch_id, _ = await world.initiate_batch([1, 1])
    await world.store.cancel_batch(batch_id, world.command())
    await completed(world)
    assert janitor.count == 0

    await world.cancel(await stored(world))
    assert janitor.count == 1
    batch_id, (file_id, _) = await world.initiate_batch([1, 1])
    await (await world.open(file_id)).close()
    await world.store.cancel_batch(batch_id, world.command())
    assert janitor.count == 2
    _, upload = await world.send_new(b"bytes", "00" * 32)
    with pytest.raises(ChecksumMismatch):
        await upload.commit("", CALLER)
    await upload.close()
    assert janitor.count == 3
    await stored(world)
    world.later(2 * DAY)
    await janitor.expire()
    assert janitor.count == 4


async def test_without_a_nudge_they_go_at_the_next_interval(world: World) -> None:
    event = freed(world)
    async with running(janitor_of(world, interval=0.05)):
        await world.cancel(await stored(world))
        await event.wait()


async def test_bytes_are_deleted_only_after_their_stream_let_go(world: World) -> None:
    file_id = await world.initiate(10 * KIB)
    upload = await world.open(file_id)
    world.sink.appending.close()
    await upload.write(b"x" * 10 * KIB)
    await world.sink.appending.somebody_waits()
    await world.cancel(file_id)
    janitor = janitor_of(world)
    event = freed(world)
    async with running(janitor):
        janitor.nudge()
        await asyncio.sleep(0.1)
        assert [owed.file_id for owed in await world.owed_deletions()] == [file_id]
        # The hop under way writes now: were the file unlinked before, it would still be; were it settled, for ever.
        world.sink.appending.open()
        await event.wait()
    assert list(world.sink.file_ids()) == []
    assert world.observed.freed == 10 * KIB
    await upload.close()


async def test_a_stream_that_is_just_letting_go_is_waited_for(world: World) -> None:
    file_id = await world.initiate(10)
    upload = await world.open(file_id)
    world.sink.appending.close()
    await upload.write(b"x" * 10)
    await world.sink.appending.somebody_waits()
    await world.cancel(file_id)
    deleting = asyncio.create_task(janitor_of(world).delete_owed())
    await asyncio.wait([deleting], timeout=0.1)
    world.sink.appending.open()
    assert await deleting == 1
    assert list(world.sink.file_ids()) == []
    await upload.close()


async def test_a_stream_that_does_not_let_go_holds_up_no_other_deletion(world: World) -> None:
    file_id = await world.initiate(10)
    upload = await world.open(file_id)
    world.sink.appending.close()
    await upload.write(b"x")
    await world.sink.appending.somebody_waits()
    await world.cancel(file_id)
    # A second file: its bytes came before the disk hung.
    other = await world.initiate(10)
    # Without a byte: the gate is closed to all.
    await asyncio.to_thread(lambda: world.sink.open(other, [Run(1, 0)], 1000, 0).close())
    await world.store.claim(other, 0, world.command())
    await world.cancel(other)
    assert await janitor_of(world).delete_owed() == 1
    assert [owed.file_id for owed in await world.owed_deletions()] == [file_id]
    world.sink.appending.open()
    await upload.close()
    assert await janitor_of(world).delete_owed() == 1


def _put(world: World, *file_ids: str) -> None:
    for file_id in file_ids:
        file = world.sink.open(file_id, [Run(1, 0)], 1000, 0)
        file.append([b"orphan"])
        file.close()


async def test_what_a_dead_process_owed_is_deleted_after_the_start(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node") as world:
        file_id = await stored(world)
        await world.cancel(file_id)
    async with open_world(tmp_path / "node") as world:
        assert world.sink.bytes_of(file_id) == 1000
        event = freed(world)
        async with running(janitor_of(world)):
            await event.wait()
        assert list(world.sink.file_ids()) == []
        assert await world.owed_deletions() == []


async def test_a_deletion_that_died_before_it_was_settled_is_done_again(world: World) -> None:
    file_id = await stored(world)
    await world.cancel(file_id)
    world.sink.remove(file_id)
    assert await janitor_of(world).delete_owed() == 1
    assert await world.owed_deletions() == []


async def test_the_bytes_of_a_failed_file_go(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    with pytest.raises(Exception, match="SHA-256"):
        await upload.commit("0" * 64, CALLER)
    await upload.close()
    await janitor_of(world).delete_owed()
    assert world.sink.bytes_of(file_id) == 0
    assert list(world.sink.file_ids()) == []


async def test_what_cannot_be_deleted_stays_owed_and_the_others_go(world: World) -> None:
    stuck, other = await stored(world), await stored(world)
    path = world.sink.root / stuck[:2] / f"{stuck}.1"
    # A folder in its place: unlink fails, whoever runs the test.
    path.unlink()
    path.mkdir()
    for file_id in (stuck, other):
        await world.cancel(file_id)
    settled = world.store.settled
    async with running(janitor_of(world, interval=0.1)):
        await settled.wait()
        assert other not in world.sink.file_ids()
        assert [owed.file_id for owed in await world.owed_deletions()] == [stuck]
        settled.clear()
        path.rmdir()
        path.write_bytes(b"x" * 77)
        await settled.wait()
    assert world.observed.freed == 1077
    assert await world.owed_deletions() == []


async def test_more_deletions_than_one_page(world: World) -> None:
    batch_id, ids = await world.initiate_batch([10] * 1200)
    for file_id in ids:
        await world.store.claim(file_id, 0, world.command("UploadFile"))
    await asyncio.to_thread(_put, world, *ids)
    await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
    assert await janitor_of(world).delete_owed() == 1200
    assert list(world.sink.file_ids()) == []


async def test_a_deletion_owed_by_mistake_costs_no_completed_file_its_bytes(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node") as world:
        file_id = await completed(world)

        def owe() -> None:
            with shell(url_in(tmp_path / "node")) as hand:
                hand.execute("INSERT INTO owed_deletion (file_row) SELECT id FROM file WHERE file_id = ?", (file_id,))

        await asyncio.to_thread(owe)
        assert await janitor_of(world).delete_owed() == 1
        assert world.sink.content(file_id) == b"keep me"
        assert await world.owed_deletions() == []


# Expiry and answers --------------------------------------------------------------------------------------------------


async def test_uploads_nobody_sends_to_expire_and_their_bytes_go(world: World) -> None:
    stalled, pending, done = await stored(world), await world.initiate(10), await completed(world)
    world.later(DAY - 60)
    janitor = janitor_of(world)
    assert await janitor.expire() == 0
    world.later(120)
    assert await janitor.expire() == 2
    for file_id in (stalled, pending):
        row = await world.row(file_id)
        assert (row.status, row.failure_reason) == (FileStatus.FAILED, "expired")
    assert (await world.row(done)).status is FileStatus.COMPLETED
    page = await world.store.list_audit_events(Trail(file_id=stalled), None, 100)
    last = page.rows[-1]
    assert (last.actor, last.source, last.to_status) == ("system", "expiry", "failed")
    assert last.reason.startswith("expired: idle for 864")
    assert last in world.changes[-1].events
    assert await janitor.delete_owed() == 1
    assert list(world.sink.file_ids()) == [done]


async def test_an_upload_with_an_open_stream_never_expires(world: World) -> None:
    file_id, upload = await world.send_new(b"bytes")
    world.later(10 * DAY)
    janitor = janitor_of(world)
    assert await janitor.expire() == 0
    assert (await upload.commit("", CALLER)).status is FileStatus.COMPLETED
    await upload.close()
    assert (await world.row(file_id)).status is FileStatus.COMPLETED


async def test_expiry_by_itself(world: World) -> None:
    await stored(world)
    event = freed(world)
    world.later(2 * DAY)
    world.janitor = janitor_of(world)
    async with running(world.janitor):
        await event.wait()
    assert list(world.sink.file_ids()) == []


async def test_a_step_of_the_wall_clock_fails_nothing_and_forgets_nothing(world: World) -> None:
    stalled, waiting = await stored(world), await world.initiate(10)
    file_id = await world.initiate(10)
    await world.store.cancel_file(file_id, world.command("CancelFile", "the request"))
    janitor = janitor_of(world)
    # Forward, and back further than it was.
    for seconds in (90_000, 30 * DAY, -60 * DAY):
        world.step(seconds)
        assert await janitor.expire() == 0
        assert await janitor.forget_answers() == 0
    world.step(30 * DAY - 90_000)
    world.later(DAY + 1)

    assert await janitor.expire() == 2
    assert {(await world.row(each)).failure_reason for each in (stalled, waiting)} == {"expired"}


async def test_a_long_stop_fails_nothing_at_once(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node") as world:
        stalled, waiting = await stored(world), await world.initiate(10)
    async with open_world(tmp_path / "node") as world:
        # Down for so long.
        world.step(25 * HOUR)
        janitor = janitor_of(world, expiry_grace=900)
        assert await janitor.expire() == 0
        # Nobody has come back for a day of service.
        world.later(DAY)
        assert await janitor.expire() == 2
        assert (await world.row(stalled)).failure_reason == (await world.row(waiting)).failure_reason == "expired"


@pytest.mark.parametrize(("asked", "grace"), [(900.0, 900.0), (3 * DAY, DAY)])
async def test_nothing_expires_in_the_grace_after_a_start(tmp_path: Path, asked: float, grace: float) -> None:
    async with open_world(tmp_path / "node") as world:
        await stored(world)
        world.later(2 * DAY)
        # The process that runs from now on.
        janitor = janitor_of(world, expiry_grace=asked)
        world.later(grace - 60)
        assert await janitor.expire() == 0
        world.later(61)
        assert await janitor.expire() == 1


async def test_a_round_comes_when_the_grace_is_over(world: World) -> None:
    await stored(world)
    world.later(2 * DAY)
    event = freed(world)
    world.janitor = janitor_of(world, expiry_grace=0.3)
    async with running(world.janitor):
        await event.wait()


async def test_a_batch_that_is_being_sent_keeps_its_waiting_files(world: World) -> None:
    _, ids = await world.initiate_batch([5] * 3)
    for file_id in ids:
        upload = await world.open(file_id)
        world.later(DAY - 60)
        await send(upload, b"bytes")
        await upload.commit("", CALLER)
        await upload.close()
        assert await janitor_of(world).expire() == 0
        world.later(120)
        assert await janitor_of(world).expire() == 0


async def test_more_expire_than_one_page(world: World) -> None:
    await world.initiate_batch([10] * 1100)
    world.later(2 * DAY)
    assert await janitor_of(world).expire() == 1100


async def test_answers_are_forgotten_when_they_are_old(world: World) -> None:
    for number in range(3):
        file_id = await world.initiate(10)
        await world.store.cancel_file(file_id, world.command("CancelFile", f"request {number}"))
    janitor = janitor_of(world)
    world.later(7 * DAY - 60)
    assert await janitor.forget_answers() == 0
    world.later(120)
    assert await janitor.forget_answers() == 3


# Retention -----------------------------------------------------------------------------------------------------------


def retention_of(
    world: World, keep_content: float = DAY, keep_rows: float = 0.0, pruned_dir: Path = Path()
) -> Retention:
    return Retention(
        world.store, clock=world.now, keep_content=keep_content, keep_rows=keep_rows, pruned_dir=pruned_dir
    )


async def test_bytes_are_kept_so_long_by_both_clocks_and_rows_for_ever(world: World) -> None:
    old = [await completed(world) for _ in range(2)]
    retention = retention_of(world, keep_content=7 * DAY)
    world.step(8 * DAY)
    # By the wall clock alone, which somebody may have set.
    assert await retention.prune_content() == 0
    world.later(7 * DAY - 60)
    young = await completed(world)
    world.later(120)
    assert await retention.prune_content() == 2
    assert await janitor_of(world).delete_owed() == 2
    assert set(world.sink.file_ids()) == {young}
    row = await world.row(old[0])
    assert (row.status, row.content_deleted_by, row.revision) == ("completed", "retention", 4)
    # It goes on from where it was, also after a start.
    world.later(7 * DAY)
    assert [await retention.prune_content(), await retention_of(world, keep_content=DAY).prune_content()] == [1, 0]


async def sealed(world: World) -> None:
    """Seal all that happened, and one event more, of a file that waits."""
    await world.initiate(10)
    found = await world.store.read_unsealed(1000)
    await world.store.seal_events(found.head, seals_of(found.events, found.head, world.store.store_id))


async def test_rows_are_kept_so_long_by_both_clocks_and_go_with_their_events(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    retention = retention_of(world, keep_rows=7 * DAY, pruned_dir=folder)
    old = await completed(world)
    _, files = await world.initiate_batch([5, 5])
    for each in files:
        await world.cancel(each)
    await sealed(world)
    world.later(DAY + 60)
    assert await retention.prune_content() == 1
    # Its bytes are there still, and then gone for less than a week.
    assert (await retention.prune_rows(), folder.exists()) == (0, False)
    assert await janitor_of(world).delete_owed() == 1
    await sealed(world)
    # By the wall clock alone, which somebody may have set.
    world.step(8 * DAY)
    assert await retention.prune_rows() == 0
    world.step(-8 * DAY)
    world.later(7 * DAY - 120)
    assert await retention.prune_rows() == 0

    world.later(120)
    # Of the completed file, the batch and its files; the bytes were let go behind the file that waits.
    assert await retention.prune_rows() == 9
    await world.row(old)
    for each in files:
        with pytest.raises(FileNotFound):
            await world.row(each)
    assert await retention.prune_rows() == 0
    [path] = folder.iterdir()
    assert {json.loads(line)["file_id"] for line in path.read_text().splitlines()} == {old, *files, ""}
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_what_was_exported_and_did_not_go_is_exported_once_more(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retention = retention_of(world, keep_rows=7 * DAY, pruned_dir=tmp_path / "pruned")
    monkeypatch.setattr("upload_server.upkeep.retention._PRUNED_AT_ONCE", 2)
    for _ in range(3):
        await world.cancel(await world.initiate(10))
    await sealed(world)
    world.later(8 * DAY)
    real, tries = world.store.prune_trail, 0

    async def prune_trail(after: int, upto: int, events: int) -> bool:
        nonlocal tries
        tries += 1
        if tries == 2:
            raise DatabaseFailure
        return await real(after, upto, events)

    monkeypatch.setattr(world.store, "prune_trail", prune_trail, raising=False)
    with pytest.raises(DatabaseFailure):
        await retention.prune_rows()
    assert await retention.prune_rows() == 4
    names = sorted(path.name for path in (tmp_path / "pruned").iterdir())
    assert names == [f"audit-{1:019}-{6:019}.jsonl", f"audit-{3:019}-{6:019}.jsonl"]


# Orphans -------------------------------------------------------------------------------------------------------------


async def test_the_sweep_goes_by_the_rows(tmp_path: Path) -> None:
    async with open_world(tmp_path / "node") as world:
        done, resumable, gone = await completed(world), await stored(world), await stored(world)
        await world.cancel(gone)
        # As if settled by one whose unlink never reached the disk.
        await world.store.settle_deletions([owed.row for owed in await world.owed_deletions()])
        unknown = str(uuid.uuid4())
        await asyncio.to_thread(_put, world, unknown)
        held, upload = await world.send_new(b"bytes")
        assert await janitor_of(world).sweep_orphans() == 1
        assert set(world.sink.file_ids()) == {done, resumable, unknown, held}
        assert world.observed.orphans == world.sink.bytes_of(unknown) > 0
        await upload.close()


async def test_the_sweep_goes_through_more_than_one_page(world: World) -> None:
    batch_id, ids = await world.initiate_batch([10] * 700)
    await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
    await asyncio.to_thread(_put, world, *ids)
    assert await janitor_of(world).sweep_orphans() == 700
    assert list(world.sink.file_ids()) == []


async def test_what_the_disk_does_not_let_go_of_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    batch_id, (gone, stuck) = await world.initiate_batch([10, 10])
    await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
    await asyncio.to_thread(_put, world, gone, stuck)
    real = world.sink.delete_all

    def refuse(doomed: Sequence[Doomed]) -> dict[str, int | SinkError]:
        return real([one for one in doomed if one.file_id != stuck]) | {stuck: SinkError("Read-only file system")}

    monkeypatch.setattr(world.sink, "delete_all", refuse)
    assert await janitor_of(world).sweep_orphans() == 1
    assert world.observed.orphans == world.sink.bytes_of(stuck) > 0
    monkeypatch.undo()
    assert await janitor_of(world).sweep_orphans() == 1
    assert world.observed.orphans == 0


async def test_the_sweep_comes_again(world: World) -> None:
    event = freed(world)
    async with running(janitor_of(world, sweep_interval=0.05)):
        for _ in range(2):
            event.clear()
            batch_id, (file_id,) = await world.initiate_batch([10])
            await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
            await asyncio.to_thread(_put, world, file_id)
            await event.wait()
            assert list(world.sink.file_ids()) == []


async def test_the_sweep_runs_at_the_start(world: World) -> None:
    batch_id, (file_id,) = await world.initiate_batch([10])
    await world.store.cancel_batch(batch_id, world.command("CancelBatch"))
    await asyncio.to_thread(_put, world, file_id)
    event = freed(world)
    async with running(janitor_of(world)):
        await event.wait()
    assert list(world.sink.file_ids()) == []


# Life ----------------------------------------------------------------------------------------------------------------


class ShakyStore:
    """The real store; one method fails a few times before it works."""

    def __init__(self, world: World, failures: int) -> None:
        self._world = world
        self.failures = failures
        self.asked = 0

    async def owed_deletions(self, limit: int) -> Sequence[OwedDeletion]:
        self.asked += 1
        if self.asked <= self.failures:
            raise DatabaseFailure if self.asked % 2 else RuntimeError("a fault of ours")
        return await self._world.store.owed_deletions(limit)

    def __getattr__(self, name: str) -> object:
        return getattr(self._world.store, name)


async def test_a_step_that_fails_has_its_turn_again(world: World) -> None:
    await world.cancel(await stored(world))
    janitor = janitor_of(world, interval=0.02)
    shaky = ShakyStore(world, failures=3)
    janitor._store = shaky  # type: ignore[assignment]
    async with running(janitor):
        await world.store.settled.wait()
    assert shaky.asked >= 4


async def test_a_step_that_keeps_failing_does_not_spin(world: World) -> None:
    janitor = janitor_of(world, interval=0.05)
    shaky = ShakyStore(world, failures=10**9)
    janitor._store = shaky  # type: ignore[assignment]
    began = asyncio.get_running_loop().time()
    async with running(janitor):
        while shaky.asked < 5:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)
    # Four intervals lie between five turns.
    assert asyncio.get_running_loop().time() - began >= 0.19


async def test_it_stops_when_told_even_under_load(world: World) -> None:
    janitor = janitor_of(world)
    async with running(janitor):
        for _ in range(20):
            await world.cancel(await stored(world, 10))
            janitor.nudge()
    # What was left is owed still; the next start finds it.
    left = len(list(world.sink.file_ids()))
    assert await janitor_of(world).delete_owed() == left == world.observed.freed // 10 - (20 - left)


async def test_cancelling_its_task_ends_it(world: World) -> None:
    task = asyncio.create_task(janitor_of(world).run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_under_way_at_full_speed_nothing_is_left(world: World) -> None:
    """Streams, cancels and the janitor at once."""
    janitor = janitor_of(world)
    ids = [await world.initiate(8 * 1024 * KIB) for _ in range(12)]

    async def one(number: int, file_id: str) -> None:
        upload = await world.open(file_id)
        sending = asyncio.create_task(send(upload, os.urandom(8 * 1024 * KIB)))
        await asyncio.sleep(0.01 * number)
        await world.cancel(file_id)
        janitor.nudge()
        await asyncio.wait([sending])
        assert sending.exception() is not None or upload.received == 8 * 1024 * KIB
        await upload.close()

    async with running(janitor):
        await asyncio.gather(*(one(number, file_id) for number, file_id in enumerate(ids)))
    await janitor_of(world).delete_owed()
    assert list(world.sink.file_ids()) == []
    assert await world.owed_deletions() == []
