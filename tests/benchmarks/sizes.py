"""The sizes one process must hold: memory, a huge file, a huge batch, and how soon a watcher hears of a cancel.

Options: ``--gib N`` size of the huge file (10), ``--streams N`` uploads and watches at once (1000).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from support.grpc_upload import CHUNK, stub_on
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

MIB = 1024 * 1024


def quantile(values: list[float], q: float) -> float:
    """Return the q-quantile (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


async def peak_rss(server: ServerProcess, until: Callable[[], bool]) -> int:
    """Sample the server's memory until told to stop; returns the peak in bytes."""
    peak = 0
    while not until():
        peak = max(peak, server.rss())
        await asyncio.sleep(0.05)
    return peak


async def many_streams(server: ServerProcess, count: int) -> None:
    """Open uploads and watches at once, all uploads sending."""
    before = server.rss()
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        size = 2 * MIB
        specs = [pb.FileSpec(filename=f"{i}", size_bytes=size) for i in range(count)]
        made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))
        watches = [stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id])) for file_id in made.file_ids]
        for watch in watches:
            await watch.read()
        everyone_half = asyncio.Event()
        halves = 0

        async def requests(file_id: str) -> AsyncIterator[pb.UploadFileRequest]:
            nonlocal halves
            yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id))
            chunk = os.urandom(CHUNK)
            for sent in range(0, size, CHUNK):
                if sent == size // 2:
                    halves += 1
                    if halves == count:
                        everyone_half.set()
                    await everyone_half.wait()
                yield pb.UploadFileRequest(data=chunk)
            yield pb.UploadFileRequest(commit=pb.UploadCommit())

        done = False
        sampling = asyncio.create_task(peak_rss(server, lambda: done))

        async def send(file_id: str) -> None:
            async for _ in stub.UploadFile(requests(file_id)):
                pass

        began = time.monotonic()
        await asyncio.gather(*(send(file_id) for file_id in made.file_ids))
        took = time.monotonic() - began
        done = True
        peak = await sampling
        for watch in watches:
            watch.cancel()
    print(
        f"{count} uploads at once and {count} watches: peak {(peak - before) / MIB:.0f} MiB beyond the idle server's "
        f"{before / MIB:.0f} MiB (limit 500); {count * size / MIB / took:.0f} MiB/s together"
    )


async def huge_file(server: ServerProcess, gib: float) -> None:
    """Send one huge file in 256 KiB chunks."""
    size = int(gib * 1024) * MIB
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="huge", size_bytes=size))
        chunk = os.urandom(CHUNK)
        samples: list[int] = []

        async def requests() -> AsyncIterator[pb.UploadFileRequest]:
            yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=made.file.file_id))
            for sent in range(0, size, CHUNK):
                if sent % (256 * MIB) == 0:
                    samples.append(server.rss())
                yield pb.UploadFileRequest(data=chunk)
            yield pb.UploadFileRequest(commit=pb.UploadCommit())

        began = time.monotonic()
        completed = ""
        async for response in stub.UploadFile(requests()):
            completed = response.completed.sha256 or completed
        took = time.monotonic() - began
    assert completed, "not completed"
    print(
        f"one file of {gib:g} GiB: {size / MIB / took:.0f} MiB/s; memory {samples[1] / MIB:.0f} MiB after 256 MiB, "
        f"{max(samples) / MIB:.0f} MiB at most, {samples[-1] / MIB:.0f} MiB at the end"
    )


async def huge_batch(stub: Stub, rounds: int = 5) -> None:
    """Initiate and cancel 10,000 files in one call each."""
    initiate, cancel = [], []
    specs = [pb.FileSpec(filename=f"folder/{i:05}.bin", size_bytes=i) for i in range(10_000)]
    for _ in range(rounds):
        began = time.monotonic()
        made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))
        initiate.append(time.monotonic() - began)
        began = time.monotonic()
        answer = await stub.CancelBatch(pb.CancelBatchRequest(batch_id=made.batch.batch_id, reason="benchmark"))
        cancel.append(time.monotonic() - began)
        assert answer.cancelled_files_count == 10_000
    print(
        f"batch of 10,000, median of {rounds}: initiated in {statistics.median(initiate) * 1000:.0f} ms, "
        f"cancelled in {statistics.median(cancel) * 1000:.0f} ms (limits 500, 500)"
    )


async def cancel_to_watcher(server: ServerProcess, stub: Stub, rounds: int = 300) -> None:
    """How soon a watcher hears of a cancel, from the call's start, while four uploads run."""
    stop = False

    async def background(filename: str) -> None:
        async with grpc.aio.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            own = stub_on(channel)
            made = await own.InitiateUpload(pb.InitiateUploadRequest(filename=filename, size_bytes=1 << 40))
            chunk = os.urandom(CHUNK)

            async def requests() -> AsyncIterator[pb.UploadFileRequest]:
                yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=made.file.file_id))
                while not stop:
                    yield pb.UploadFileRequest(data=chunk)
                    # Half a gigabyte a second together: busy, not a denial of service.
                    await asyncio.sleep(CHUNK / (64 * MIB))

            async for _ in own.UploadFile(requests()):
                pass
            await own.CancelFile(pb.CancelFileRequest(file_id=made.file.file_id))

    uploads = [asyncio.create_task(background(f"background {i}")) for i in range(4)]
    heard: list[float] = []
    for _ in range(rounds):
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=1))
        watch = stub.WatchStatus(pb.WatchStatusRequest(file_ids=[made.file.file_id]))
        await watch.read()
        await watch.read()
        reading = asyncio.ensure_future(watch.read())
        began = time.monotonic()
        cancelling = asyncio.ensure_future(stub.CancelFile(pb.CancelFileRequest(file_id=made.file.file_id)))
        await reading
        heard.append(time.monotonic() - began)
        await cancelling
        watch.cancel()
    stop = True
    await asyncio.gather(*uploads)
    print(
        f"cancel heard by a watcher while 4 uploads run, {rounds} times, from the call's start: "
        f"p50 {quantile(heard, 0.5) * 1000:.1f} ms, p99 {quantile(heard, 0.99) * 1000:.1f} ms (limit 50)"
    )


async def run(streams: int, gib: float) -> None:
    """Run all of them, each on a fresh server."""
    for what in ("streams", "file", "calls"):
        with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data") as server:
            if what == "streams":
                await many_streams(server, streams)
            elif what == "file" and gib:
                await huge_file(server, gib)
            elif what == "calls":
                async with grpc.aio.insecure_channel(server.target) as channel:
                    await huge_batch(stub_on(channel))
                    await cancel_to_watcher(server, stub_on(channel))


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=10)
    parser.add_argument("--streams", type=int, default=1000)
    options = parser.parse_args()
    asyncio.run(run(options.streams, options.gib))


if __name__ == "__main__":
    main()
