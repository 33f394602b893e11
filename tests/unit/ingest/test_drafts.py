"""Bytes that come before their row: what becomes of them, however it ends."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import uuid
from pathlib import Path

import pytest

from unit.ingest.world import CALLER, World, completed, janitor_of, open_world
from upload_server.domain.errors import (
    InvalidField,
    OutcomeUnknown,
    Overloaded,
    StorageFailure,
    StorageFull,
    UploadCancelled,
)
from upload_server.domain.runs import Run
from upload_server.domain.states import File, FileSpec, FileStatus
from upload_server.ingest import Draft
from upload_server.ingest.parts import KIB, Limits
from upload_server.sink.protocol import NoRoom, SinkError
from upload_server.store.values import Command, Result

DATA = b"a whole file"


class Putting:
    """Brings one whole file, as the service does; what the store answers can be another thing."""

    def __init__(self, world: World, request_id: str = "") -> None:
        self.world = world
        self.file_id = str(uuid.uuid4())
        self.command: Command = world.command("PutFile", request_id)
        self.drafts: list[Draft] = []
        self.marked = False
        self.error: Exception | None = None

    async def write(self, draft: Draft) -> Result[File]:
        self.drafts.append(draft)
        self.marked = bool(self.world.sink.drafts([self.file_id]))
        assert self.world.ingest.is_open(self.file_id)
        if self.error is not None:
            raise self.error
        spec = FileSpec("a.bin", len(DATA))
        return await self.world.store.put_file(spec, self.file_id, draft.sha256, self.command, draft.lost, draft.alive)

    async def put(self, sha256: str = "") -> File:
        return await self.world.ingest.put(self.file_id, DATA, sha256, self.write)


async def test_bytes_are_a_draft_until_their_row_is_there(world: World) -> None:
    one = Putting(world)
    file = await one.put(hashlib.sha256(DATA).hexdigest())

    assert one.marked
    assert world.sink.content(one.file_id) == DATA
    assert file.sha256 == hashlib.sha256(DATA).hexdigest()
    assert not world.ingest.is_open(one.file_id)
    assert world.observed.taken == len(DATA)
    await world.ingest.aclose()
    assert world.sink.drafts([one.file_id]) == []


async def test_a_wrong_digest_never_reaches_the_disk(world: World) -> None:
    one = Putting(world)
    with pytest.raises(InvalidField, match="sha256"):
        await one.put("00" * 32)
    assert list(world.sink.file_ids()) == []
    assert not world.ingest.is_open(one.file_id)


async def test_what_the_store_does_not_take_is_deleted_before_the_answer(world: World) -> None:
    one = Putting(world)
    one.error = StorageFull("disk")
    with pytest.raises(StorageFull):
        await one.put()
    assert list(world.sink.file_ids()) == []
    assert world.observed.taken == 0


async def test_a_replay_keeps_the_first_bytes_alone(world: World) -> None:
    first, again = Putting(world, "r"), Putting(world, "r")
    file = await first.put()
    assert await again.put() == file
    assert list(world.sink.file_ids()) == [first.file_id]


@pytest.mark.parametrize(("error", "told"), [(SinkError("broken"), StorageFailure), (NoRoom("full"), StorageFull)])
async def test_a_disk_that_fails_is_told_and_a_replay_needs_no_disk(
    world: World, error: SinkError, told: type[Exception]
) -> None:
    first, again, new = Putting(world, "r"), Putting(world, "r"), Putting(world, "s")
    file = await first.put()
    world.sink.put_error = error

    assert await again.put() == file
    with pytest.raises(told):
        await new.put()
    assert list(world.sink.file_ids()) == [first.file_id]


async def test_a_commit_of_unknown_fate_leaves_the_bytes_to_the_next_start(world: World) -> None:
    lost, made = Putting(world), Putting(world)
    lost.error = OutcomeUnknown()
    with pytest.raises(OutcomeUnknown):
        await lost.put()
    write = made.write

    async def and_forget(draft: Draft) -> Result[File]:
        await write(draft)
        raise OutcomeUnknown

    made.write = and_forget  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown):
        await made.put()
    # In this process the row may still show up.
    assert await janitor_of(world).sweep_orphans() == 0
    assert set(world.sink.drafts([lost.file_id, made.file_id])) == {lost.file_id, made.file_id}

    await world.restart()
    assert await janitor_of(world).sweep_orphans() == 1
    assert list(world.sink.file_ids()) == [made.file_id]
    assert world.sink.drafts([made.file_id]) == []


async def test_a_start_deletes_the_drafts_that_no_row_knows_and_nothing_else(world: World) -> None:
    kept, unknown, draft = await completed(world), str(uuid.uuid4()), str(uuid.uuid4())
    file = world.sink.open(unknown, [Run(1, 0)], 1000, 0)
    file.append([b"perhaps the only copy"])
    file.close()
    world.sink.put(draft, DATA)

    assert await janitor_of(world).sweep_orphans() == 1

    assert set(world.sink.file_ids()) == {kept, unknown}


async def test_a_sweep_leaves_a_draft_alone_whose_row_is_just_coming(world: World) -> None:
    one = Putting(world)
    written = asyncio.Event()
    write = one.write

    async def later(draft: Draft) -> Result[File]:
        await written.wait()
        return await write(draft)

    one.write = later  # type: ignore[method-assign]
    putting = asyncio.create_task(one.put())
    while not world.sink.drafts([one.file_id]):  # noqa: ASYNC110 - the disk tells nobody
        await asyncio.sleep(0.001)
    assert await janitor_of(world).sweep_orphans() == 0
    written.set()
    await putting
    assert world.sink.content(one.file_id) == DATA


async def test_a_caller_that_leaves_leaves_a_whole_file_behind(world: World) -> None:
    one = Putting(world)
    world.sink.putting.close()
    putting = asyncio.create_task(one.put())
    await world.sink.putting.somebody_waits()
    putting.cancel()
    await asyncio.wait({putting})
    world.sink.putting.open()
    await world.ingest.aclose()
    assert (await world.row(one.file_id)).bytes_received == len(DATA)
    assert world.sink.content(one.file_id) == DATA
    assert (world.sink.root / one.file_id[:2] / one.file_id).stat().st_mode & 0o7777 == 0o600


async def test_a_draft_that_a_crash_has_left_of_a_pending_file_is_in_no_senders_way(world: World) -> None:
    file_id = await world.initiate(len(DATA))
    world.sink.put(file_id, b"from before")
    assert await world.ingest.put_announced(file_id, DATA, "", CALLER) is None
    upload = await world.open(file_id)
    await upload.write(DATA)
    await upload.commit("", CALLER)
    await upload.close()
    assert world.sink.content(file_id) == DATA
    assert await janitor_of(world).sweep_orphans() == 1
    assert world.sink.drafts([file_id]) == []
    assert world.sink.content(file_id) == DATA


async def test_a_draft_that_a_crash_has_left_of_a_pending_file_goes(world: World) -> None:
    file_id = await world.initiate(len(DATA))
    world.sink.put(file_id, b"from before")
    assert await janitor_of(world).sweep_orphans() == 1
    assert (await world.ingest.put_announced(file_id, DATA, "", CALLER)) == await world.row(file_id)
    assert world.sink.content(file_id) == DATA


async def test_an_announced_file_is_completed_while_nobody_else_has_it(world: World) -> None:
    file_id = await world.initiate(len(DATA))
    file = await world.ingest.put_announced(file_id, DATA, hashlib.sha256(DATA).hexdigest(), CALLER)
    assert file == await world.row(file_id)
    assert world.sink.content(file_id) == DATA
    assert await world.ingest.put_announced(file_id, DATA, "", CALLER) is None


async def test_an_announced_file_whose_cancel_comes_first_keeps_nothing(world: World) -> None:
    file_id = await world.initiate(len(DATA))
    world.sink.putting.close()
    putting = asyncio.create_task(world.ingest.put_announced(file_id, DATA, "", CALLER))
    await world.sink.putting.somebody_waits()
    await world.cancel(file_id)
    world.sink.putting.open()
    with pytest.raises(UploadCancelled):
        await putting
    assert list(world.sink.file_ids()) == []
    assert not world.ingest.is_open(file_id)


async def test_files_whose_callers_have_left_are_counted_while_they_wait_for_the_disk(tmp_path: Path) -> None:
    async with open_world(tmp_path, Limits(total_buffer_bytes=16 * KIB)) as world:
        world.sink.putting.close()
        waiting = [Putting(world) for _ in range(3)]
        callers = [asyncio.create_task(one.put()) for one in waiting]
        await world.sink.putting.somebody_waits()
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        with pytest.raises(Overloaded):
            await Putting(world).put()

        world.sink.putting.open()
        while any(world.ingest.is_open(one.file_id) for one in waiting):  # noqa: ASYNC110 - nobody waits for them
            await asyncio.sleep(0.001)
        assert (await Putting(world).put()).status is FileStatus.COMPLETED


async def test_a_draft_that_the_disk_refuses_holds_up_no_sweep(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_descriptor: int, _mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    kept, orphan = Putting(world), await world.initiate(9)
    await kept.put()
    await world.cancel(orphan, tell=False)
    file = world.sink.open(orphan, [Run(1, 0)], 1000, 0)
    file.append([b"cancelled"])
    file.close()
    assert world.sink.drafts([kept.file_id])

    assert await janitor_of(world).sweep_orphans() == 1
    assert list(world.sink.file_ids()) == [kept.file_id]


async def test_what_goes_wrong_after_the_caller_has_left_writes_no_traceback(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    # What other tests have left is said now.
    gc.collect()
    caplog.clear()
    one = Putting(world)
    one.error = StorageFull("disk")
    world.sink.putting.close()
    putting = asyncio.create_task(one.put())
    await world.sink.putting.somebody_waits()
    putting.cancel()
    await asyncio.wait({putting})
    world.sink.putting.open()
    await world.ingest.aclose()
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []
