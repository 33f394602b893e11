"""Two processes on one store and one folder: what a stopped writer still writes when it wakes is nobody's byte."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from support.grpc_upload import CHUNK, UploadCall, stub_on
from support.stores import STORES, shell, url_in
from upload.v1 import upload_pb2 as pb
from upload_server import start
from upload_server.options import load

NODE = """
import asyncio, os, sys
from upload_server import start
from upload_server.options import load
from upload_server.process.metrics import Workers

async def main():
    config = load({"data_dir": sys.argv[1], "database_url": sys.argv[2], "grpc_port": "0", "http_port": "0"}, {})
    counts = config.data_dir / f"counts-{os.getpid()}"
    counts.mkdir()
    told = lambda grpc_port, _: print(grpc_port, flush=True)
    await start.serve(config, asyncio.Event(), told, Workers(str(counts), lambda: [os.getpid()]))

asyncio.run(main())
"""


class Node:
    """A process that serves, and its channel."""

    def __init__(self, process: asyncio.subprocess.Process, channel: grpc.aio.Channel) -> None:
        self.process = process
        self.stub = stub_on(channel)


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return url_in(tmp_path, str(request.param))


@pytest.fixture
def shared(url: str, tmp_path: Path) -> Iterator[Path]:
    """A data directory for several processes."""
    options = {"data_dir": str(tmp_path / "data"), "database_url": url, "grpc_port": "0", "http_port": "0"}
    locks = start.share(load(options, {}))
    yield tmp_path / "data"
    for lock in locks:
        lock.release()


@pytest_asyncio.fixture
async def nodes(url: str, shared: Path) -> AsyncIterator[list[Node]]:
    async with contextlib.AsyncExitStack() as stack:
        running = list[Node]()
        for _ in range(2):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", NODE, str(shared), url, stdout=asyncio.subprocess.PIPE
            )
            stack.push_async_callback(end, process)
            assert process.stdout is not None
            port = int(await asyncio.wait_for(process.stdout.readline(), 60))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
            running.append(Node(process, channel))
        yield running


async def end(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def freeze(stopped: Node, other: Node, file_id: str) -> None:
    """Stop a process, at a moment at which it does not hold up everybody else by SQLite's lock."""
    for _ in range(20):
        stopped.process.send_signal(signal.SIGSTOP)
        try:
            # Needs the lock, and changes nothing.
            await other.stub.CancelFile(pb.CancelFileRequest(file_id="0" * 8 + file_id[8:]), timeout=1)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return
        stopped.process.send_signal(signal.SIGCONT)
    raise AssertionError("the process was never stopped without the lock")


async def send_on(call: UploadCall, count: int) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        for _ in range(count // CHUNK):
            await call.send(b"a" * CHUNK)


async def hear_of_it(old: UploadCall) -> None:
    try:
        # On a busy machine it may have slept so long that its node, or its session, has to look after itself first.
        assert (await old.refused()).reason in {"WRITER_REPLACED", "SHUTTING_DOWN", "DATABASE_FAILURE"}
    except AssertionError as error:
        # A sender that is busy writing when its stream ends may see grpcio's own error first.
        if "SendMessageOperation" not in str(error):
            raise


@pytest.mark.parametrize("wakes", ["before the end", "after the end"])
async def test_a_writer_that_was_stopped_and_taken_over_adds_no_byte(
    nodes: list[Node], url: str, shared: Path, wakes: str
) -> None:
    one, two = nodes
    size = 160 * CHUNK
    announced = await one.stub.InitiateUpload(pb.InitiateUploadRequest(filename="a.bin", size_bytes=size))
    file_id = announced.file.file_id
    async with UploadCall(one.stub, file_id) as old, asyncio.TaskGroup() as group:
        # Stopped in the middle of it: what it holds in memory is written as soon as it wakes.
        sending = group.create_task(send_on(old, size - CHUNK))
        await old.hear_durable(8 * CHUNK)
        await freeze(one, two, file_id)
        offset = (await two.stub.GetFile(pb.GetFileRequest(file_id=file_id))).bytes_received

        async with UploadCall(two.stub, file_id, offset) as new:
            for start in range(offset, size, CHUNK):
                await new.send(b"b" * min(CHUNK, size - start))
            await new.hear_durable(offset + 1)
            if wakes == "before the end":
                one.process.send_signal(signal.SIGCONT)
                await hear_of_it(old)
            await new.commit()
            done = (await new.hear_until("completed")).completed
        if wakes == "after the end":
            one.process.send_signal(signal.SIGCONT)
            await hear_of_it(old)
        sending.cancel()

    with shell(url) as hand:
        [(fence,)] = hand.execute(f"SELECT run_fence FROM file WHERE file_id = '{file_id}'")  # noqa: S608 - ours
        async with asyncio.timeout(40):
            # The other run is deleted in its turn.
            while list(hand.execute("SELECT 1 FROM owed_deletion")):  # noqa: ASYNC110 - a database tells nobody
                await asyncio.sleep(0.05)
    [stored] = (shared / "bytes").rglob(f"{file_id}*")
    assert stored.name == f"{file_id}.{fence}"
    data = stored.read_bytes()
    assert data == b"a" * offset + b"b" * (size - offset)
    assert hashlib.sha256(data).hexdigest() == done.sha256
