"""Two nodes on one store and one folder: what is done at one holds at the other, with the bell and without it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from support.grpc_upload import CHUNK, UploadCall, stub_on, upload
from support.stores import STORES, shell, url_in
from upload.v1 import upload_pb2 as pb
from upload_server import start
from upload_server.config import Config
from upload_server.options import load
from upload_server.process.metrics import Workers
from upload_server.store.commands.store import WritingStore

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


@dataclass
class Running:
    """A node: its stub, and what ends it."""

    stub: Stub
    stop: asyncio.Event
    task: asyncio.Task[None]

    async def end(self) -> None:
        """Drain it."""
        self.stop.set()
        await self.task


@dataclass
class Nodes:
    """Nodes that share a store and a folder."""

    url: str
    folder: Path
    running: list[Running]

    @property
    def stubs(self) -> list[Stub]:
        return [node.stub for node in self.running]

    def rows(self, sql: str) -> list[Any]:
        with shell(self.url) as hand:
            return list(hand.execute(sql))


@contextlib.asynccontextmanager
async def node(config: Config) -> AsyncIterator[Running]:
    """Run one node in this process."""
    counts = config.data_dir / str(uuid.uuid4())
    counts.mkdir()
    workers = Workers(str(counts), lambda: [os.getpid()])
    stop, ports = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(start.serve(config, stop, lambda grpc_port, _: ports.set_result(grpc_port), workers))
    await asyncio.wait([task, ports], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.result()}") as channel:
        running = Running(stub_on(channel), stop, task)
        try:
            yield running
        finally:
            await running.end()


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["bell", "no bell"])
def bell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "no bell":
        monkeypatch.setattr(WritingStore, "_hear_bell", lambda _: None)
    return bool(request.param == "bell")


@pytest_asyncio.fixture
async def nodes(kind: str, tmp_path: Path) -> AsyncIterator[Nodes]:
    url = url_in(tmp_path, kind)
    options = {"data_dir": str(tmp_path / "data"), "database_url": url, "grpc_port": "0", "http_port": "0"}
    config = load(options, {})
    locks = start.share(config)
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(node(config)) for _ in range(2)]
        yield Nodes(url, tmp_path / "data" / "bytes", running)
    for lock in locks:
        lock.release()


async def announced(stub: Stub, size_bytes: int = 4 * CHUNK) -> str:
    request = pb.InitiateUploadRequest(filename="a.bin", size_bytes=size_bytes)
    return (await stub.InitiateUpload(request)).file.file_id


async def status_of(stub: Stub, file_id: str) -> pb.File:
    return await stub.GetFile(pb.GetFileRequest(file_id=file_id))


@pytest.mark.usefixtures("bell")
async def test_a_cancel_at_one_node_stops_the_sender_at_the_other(nodes: Nodes) -> None:
    one, two = nodes.stubs
    file_id = await announced(one)
    async with UploadCall(two, file_id) as call:
        await call.send(b"x" * CHUNK)
        await call.hear_durable(CHUNK)

        answer = await one.CancelFile(pb.CancelFileRequest(file_id=file_id, reason="enough"))

        stopped = (await call.hear_until("stopped")).stopped
        assert (stopped.cancelled_by, stopped.cancel_reason) == ("user", "enough")
        assert stopped.cancelled_at == answer.cancelled_at
        assert (await call.refused()).reason == "UPLOAD_CANCELLED"
    async with asyncio.timeout(30):
        while nodes.rows("SELECT 1 FROM owed_deletion UNION SELECT 2 FROM stream_stop"):  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.02)
    assert not list(nodes.folder.rglob(f"{file_id}*"))


@pytest.mark.usefixtures("bell")
async def test_a_batch_that_is_cancelled_at_one_node_stops_its_senders_at_the_other(nodes: Nodes) -> None:
    one, two = nodes.stubs
    specs = [pb.FileSpec(filename=f"{index}.bin", size_bytes=2 * CHUNK) for index in range(5)]
    batch = await one.InitiateBatch(pb.InitiateBatchRequest(files=specs))
    async with contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(UploadCall(two, file_id)) for file_id in batch.file_ids[:4]]
        for call in calls:
            await call.send(b"x" * CHUNK)
            await call.hear_durable(CHUNK)

        await one.CancelBatch(pb.CancelBatchRequest(batch_id=batch.batch.batch_id, reason="all of it"))

        for call in calls:
            stopped = (await call.hear_until("stopped")).stopped
            assert (stopped.cancelled_by, stopped.cancel_reason) == ("batch_cancel", "all of it")


@pytest.mark.usefixtures("bell")
async def test_a_file_is_taken_over_by_a_sender_at_another_node(nodes: Nodes) -> None:
    one, two = nodes.stubs
    file_id = await announced(one)
    data = bytes(range(256)) * (CHUNK // 64)
    async with UploadCall(one, file_id) as old:
        await old.send(data[:CHUNK])
        await old.hear_durable(CHUNK)

        taken = asyncio.create_task(upload(two, file_id, data[CHUNK:], CHUNK))

        assert (await old.refused()).reason == "WRITER_REPLACED"
        assert (await taken).sha256 == (await status_of(one, file_id)).sha256


@pytest.mark.usefixtures("bell")
async def test_a_watch_at_one_node_sees_what_the_other_does(nodes: Nodes) -> None:
    one, two = nodes.stubs
    file_id = await announced(one)
    batch = await one.InitiateBatch(
        pb.InitiateBatchRequest(files=[pb.FileSpec(filename="b.bin", size_bytes=4 * CHUNK)])
    )
    [of_batch] = batch.file_ids
    interval = Duration(nanos=100_000_000)
    requests = [
        pb.WatchStatusRequest(file_ids=[file_id], until_final=True, progress_interval=interval),
        pb.WatchStatusRequest(all=True, progress_interval=interval),
        pb.WatchStatusRequest(
            batch_ids=[batch.batch.batch_id], include_batch_files=True, until_final=True, progress_interval=interval
        ),
    ]
    watches = [one.WatchStatus(request) for request in requests]
    heard: list[list[Any]] = [[] for _ in watches]

    async def listen(index: int) -> None:
        async for event in watches[index]:
            heard[index].append(event)

    listening = [asyncio.create_task(listen(index)) for index in range(3)]

    def progress(index: int, of: str) -> list[int]:
        return [event.progress.bytes_received for event in heard[index] if event.progress.file_id == of]

    def states(index: int, of: str) -> list[int]:
        return [event.file.status for event in heard[index] if event.file.file_id == of]

    seen = ((0, file_id), (1, file_id), (2, of_batch))
    async with asyncio.timeout(30):
        # Before anything is sent: else a watch that opens late begins with what follows.
        while not all(states(*each) for each in seen):  # noqa: ASYNC110 - events come by themselves
            await asyncio.sleep(0.02)
    async with UploadCall(two, file_id) as call, UploadCall(two, of_batch) as other:
        for each in (call, other):
            await each.send(b"x" * CHUNK)
            await each.hear_durable(CHUNK)
        async with asyncio.timeout(30):
            while not all(progress(*each) for each in seen):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await two.CancelFile(pb.CancelFileRequest(file_id=file_id))
        await one.CancelBatch(pb.CancelBatchRequest(batch_id=batch.batch.batch_id))
        async with asyncio.timeout(30):
            await asyncio.gather(listening[0], listening[2])
            while pb.UPLOAD_STATUS_CANCELLED not in states(1, of_batch):  # noqa: ASYNC110 - events come by themselves
                await asyncio.sleep(0.02)
    listening[1].cancel()

    for index, of in seen:
        assert set(progress(index, of)) == {CHUNK}
        assert states(index, of)[0] == pb.UPLOAD_STATUS_PENDING
        assert states(index, of)[-1] == pb.UPLOAD_STATUS_CANCELLED


async def test_a_node_that_leaves_lets_its_senders_go_on_at_the_other(nodes: Nodes) -> None:
    one, two = nodes.stubs
    file_id = await announced(one)
    data = bytes(range(256)) * (CHUNK // 64)
    async with UploadCall(one, file_id) as old:
        await old.send(data[:CHUNK])
        await old.hear_durable(CHUNK)
        ending = asyncio.create_task(nodes.running[0].end())
        # What a node that drains does for its open streams after the grace is done by hand here.
        await old.half_close()
        await ending
    file = await status_of(two, file_id)
    assert (
        await upload(two, file_id, data[file.bytes_received :], file.bytes_received)
    ).status == pb.UPLOAD_STATUS_COMPLETED
