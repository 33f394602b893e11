"""One audit chain whoever seals, and janitors that leave each other's open files and drafts alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from contract.store.kit import command, new_id, now, pending, uploading
from contract.store.test_nodes import Opening, nodes_on
from upload_server.domain.chain import seals_of
from upload_server.domain.errors import DatabaseFailure, UploadError
from upload_server.domain.observer import Observer
from upload_server.domain.states import FileSpec, FileStatus
from upload_server.ingest import Ingest
from upload_server.sink.disk.sink import DiskSink
from upload_server.store.open import StoreAt
from upload_server.store.protocol import Store
from upload_server.upkeep.audit.verify import Expected, verify
from upload_server.upkeep.janitor import Janitor
from upload_server.upkeep.sealer import Pace, Sealer

QUICK = Pace(chunk=7, linger=0.0, rest_share=0.0, retry=0.01, retry_damaged=0.01)


@pytest_asyncio.fixture
async def open_node(backend: StoreAt) -> AsyncIterator[Opening]:
    async with nodes_on(backend) as opening:
        yield opening


class Leading:
    """A store whose node leads, whatever the lease says: as one that was stopped while it did."""

    def __init__(self, real: Store) -> None:
        self._real = real
        self.leads = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


async def all_sealed(store: Store) -> None:
    async with asyncio.timeout(20):
        while await store.count_unsealed_events(1):  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("both", [False, True])
async def test_two_sealers_make_one_chain(open_node: Opening, backend: StoreAt, *, both: bool) -> None:
    """``both``: each takes it for its turn."""
    nodes = [await open_node() for _ in range(2)]
    sealers = [Sealer(Leading(node) if both else node, QUICK) for node in nodes]  # type: ignore[arg-type]
    tasks = [asyncio.create_task(sealer.run()) for sealer in sealers]
    with structlog.testing.capture_logs() as log:
        for _ in range(20):
            await asyncio.gather(*(pending(node) for node in nodes for _ in range(10)))
            for sealer in sealers:
                sealer.nudge()
        await all_sealed(nodes[0])
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    assert [line for line in log if line["event"] == "audit.chain_altered"] == []
    inspection = await asyncio.to_thread(backend.inspect)
    with contextlib.closing(inspection):
        verdict = await asyncio.to_thread(verify, inspection, Expected({}, ""))
    assert not verdict.broken
    assert await nodes[1].count_unsealed_events(1) == 0


async def test_a_chain_that_was_altered_is_told_of(open_node: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    node, other = await open_node(), await open_node()
    sealer = Sealer(node, QUICK)
    await pending(node)
    await sealer.finish(5)
    # Another node's seals are none of it.
    file = await pending(node)
    found = await other.read_unsealed(10)
    assert await other.seal_events(found.head, seals_of(found.events, found.head, other.store_id))
    with structlog.testing.capture_logs() as log:
        await pending(node)
        await sealer.finish(5)
    assert [line for line in log if line["event"] == "audit.chain_altered"] == []

    async def altered(_: int) -> None:
        """A seal that is gone."""

    monkeypatch.setattr(node, "read_seal", altered)
    found = await other.read_unsealed(10)
    assert file.change_no <= (found.head.event_id if found.head else 0)
    await pending(other)
    found = await other.read_unsealed(10)
    assert await other.seal_events(found.head, seals_of(found.events, found.head, other.store_id))
    with structlog.testing.capture_logs() as log:
        await pending(node)
        await sealer.finish(5)
    assert [line for line in log if line["event"] == "audit.chain_altered"]


@dataclass
class House:
    """A node with its ingest and its janitor, on a folder that all share."""

    store: Store
    sink: DiskSink
    ingest: Ingest
    janitor: Janitor
    # Set once it has looked through the storage by itself.
    swept: asyncio.Event


class Swept(Observer):
    """Hears of each look through the storage."""

    def __init__(self) -> None:
        self.swept = asyncio.Event()

    def orphans_counted(self, count: int) -> None:
        assert count >= 0
        self.swept.set()


@contextlib.asynccontextmanager
async def house(store: Store, folder: Path) -> AsyncIterator[House]:
    sink = DiskSink(folder)
    observer = Swept()
    ingest = Ingest(store, sink, clock=now, on_progress=lambda *_: None, observer=observer)
    janitor = Janitor(store, sink, ingest, clock=now, upload_ttl=1e6, request_ttl=1e6, interval=0.1, observer=observer)
    task = asyncio.create_task(janitor.run())
    try:
        yield House(store, sink, ingest, janitor, observer.swept)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await ingest.aclose()


async def test_a_janitor_leaves_what_another_node_has_open(open_node: Opening, tmp_path: Path) -> None:
    async with (
        house(await open_node(), tmp_path / "bytes") as one,
        house(await open_node(), tmp_path / "bytes") as two,
    ):
        file = await pending(two.store, 10)
        upload = await two.ingest.open(file.file_id, 0, command().caller)
        await upload.write(b"12345")
        await one.store.cancel_file(file.file_id, command())
        one.janitor.nudge()
        assert await one.janitor.delete_owed() == 0
        assert list((tmp_path / "bytes").rglob(f"{file.file_id}*"))

        [stop] = (await two.store.look()).stops
        assert two.ingest.end_stream(stop.file, stop.fence)
        with pytest.raises(UploadError, match="was cancelled"):
            await upload.write(b"67890")
        two.janitor.nudge()

        async with asyncio.timeout(30):
            while await one.store.owed_deletions(1) or await two.store.owed_deletions(1):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert not list((tmp_path / "bytes").rglob(f"{file.file_id}*"))


async def test_what_could_not_be_released_is_released_once_the_store_answers(
    open_node: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await open_node(), await open_node()
    async with house(two, tmp_path / "bytes") as there:
        file = await pending(two, 10)
        upload = await there.ingest.open(file.file_id, 0, command().caller)
        await upload.write(b"12345")
        with monkeypatch.context() as away:
            away.setattr(two, "release", _away)
            await upload.close()
        assert await one.held_elsewhere([file.file_id]) == {file.file_id}

        await there.ingest.release_left()

        assert await one.held_elsewhere([file.file_id]) == set()


async def _away(*_: object) -> None:
    raise DatabaseFailure


async def test_deletions_that_broke_are_tried_again_by_a_node_that_does_not_lead(
    open_node: Opening, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_node()
    two = await open_node()
    assert not two.leads
    async with house(two, tmp_path / "bytes") as there:
        file = await pending(two, 10)
        upload = await there.ingest.open(file.file_id, 0, command().caller)
        await upload.write(b"12345")
        await upload.close()
        tried = asyncio.Event()

        async def break_once(_: object) -> None:
            monkeypatch.undo()
            tried.set()
            raise DatabaseFailure

        monkeypatch.setattr(two, "names_of", break_once)
        await two.cancel_file(file.file_id, command())
        there.janitor.nudge()

        async with asyncio.timeout(30):
            await tried.wait()
            while list((tmp_path / "bytes").rglob(f"{file.file_id}*")):  # noqa: ASYNC110 - a disk tells nobody
                await asyncio.sleep(0.02)


async def test_a_whole_file_that_a_dead_node_left_goes_with_the_file(open_node: Opening, tmp_path: Path) -> None:
    """A stream sent it once more, so that its row knows other bytes."""
    async with house(await open_node(), tmp_path / "bytes") as one:
        file = await pending(one.store, 10)
        one.sink.put(file.file_id, b"1234567890")
        upload = await one.ingest.open(file.file_id, 0, command().caller)
        await upload.write(b"12345")
        await one.store.cancel_file(file.file_id, command())
        await upload.close()
        one.janitor.nudge()

        async with asyncio.timeout(30):
            while list((tmp_path / "bytes").rglob(f"{file.file_id}*")):  # noqa: ASYNC110 - a disk tells nobody
                await asyncio.sleep(0.02)


async def test_a_sweep_leaves_the_drafts_of_nodes_that_live(open_node: Opening, tmp_path: Path) -> None:
    one, two = await open_node(), await open_node()
    async with house(one, tmp_path / "bytes") as first:
        await first.swept.wait()
        file_id = new_id()
        first.sink.put(file_id, b"abc")
        assert await first.janitor.sweep_orphans() == 0
        spec = FileSpec("a", 3)
        done = await two.put_file(spec, file_id, "ab" * 32, command("PutFile"))
        assert done.answer.status is FileStatus.COMPLETED
        deserted = new_id()
        first.sink.put(deserted, b"abc")
        await two.close()

        assert await first.janitor.sweep_orphans() == 1

        assert list((tmp_path / "bytes").rglob(f"{file_id}*"))
        assert not list((tmp_path / "bytes").rglob(f"{deserted}*"))


async def test_one_node_keeps_house_at_a_time(open_node: Opening, tmp_path: Path) -> None:
    """The other one does what it was nudged to, and no more."""
    one, two = await open_node(), await open_node()
    file = await uploading(one)
    await one.release(file.file_id, file.fence)
    await one.cancel_file(file.file_id, command())
    async with house(two, tmp_path / "bytes") as second:
        await asyncio.sleep(0.5)
        assert [each.file_id for each in await two.owed_deletions(10)] == [file.file_id]
        second.janitor.nudge()
        async with asyncio.timeout(30):
            while await two.owed_deletions(1):  # noqa: ASYNC110 - a database tells nobody
                await asyncio.sleep(0.02)
