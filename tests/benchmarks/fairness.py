"""CancelFile of one principal, alone and beside another that calls as fast as it can, in turns on one server.

Options: ``--rounds N`` (5), ``--seconds N`` of each turn (2), ``--quota-calls N`` of each principal a second (0: any),
``--kinds list,watch,…`` of calls of the other one (each apart, then all together), ``--data-dir DIR`` for what the
server keeps (in memory, as /dev/shm, nobody else's writes count).
Prints p50 and p99 of a turn, the median of all its turns, beside that of the turns alone; CPU of the server; and how
many calls the other one made. A moment in which the machine stands still is the p99 of one turn, and not of the figure.

The other one has 64 calls under way, over connections of its own, from a process of its own that takes what server and
caller leave of half of the cores; the server has all. What starves is never the caller for the other one's sake: on a
busy machine run this with priority (``chrt -r 5 make bench ARGS="fairness"``), which the other one then has not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import grpc
import psutil

from benchmarks.sizes import quantile
from support.process import ServerProcess
from support.tokens import tokens_in
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

_CONNECTIONS = 8
_DEEDS_AT_ONCE = 8
_BATCH_FILES = 100
_NICE = 10
_ALONE = "alone"
_ALL = "all of them"

Metadata = tuple[tuple[str, str], ...]


class Deeds:
    """What the other one does over one connection."""

    def __init__(self, stub: Stub, metadata: Metadata) -> None:
        self._stub = stub
        self._metadata = metadata
        self._ended = ""

    async def list(self) -> None:
        """Ask for a page of files."""
        await self._stub.ListFiles(pb.ListFilesRequest(page_size=50), metadata=self._metadata)

    async def get(self) -> None:
        """Ask for its quotas."""
        await self._stub.GetCaller(pb.GetCallerRequest(), metadata=self._metadata)

    async def watch(self) -> None:
        """Open a watch, and leave it once something has come."""
        watch = self._stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=self._metadata)
        await watch.read()
        watch.cancel()

    async def announce(self) -> None:
        """Announce a file and cancel it."""
        file_id = await self._announced()
        await self._stub.CancelFile(pb.CancelFileRequest(file_id=file_id), metadata=self._metadata)

    async def batch(self) -> None:
        """Announce a batch and cancel it."""
        files = [pb.FileSpec(filename="a", size_bytes=10)] * _BATCH_FILES
        made = await self._stub.InitiateBatch(pb.InitiateBatchRequest(files=files), metadata=self._metadata)
        request = pb.CancelBatchRequest(batch_id=made.batch.batch_id)
        await self._stub.CancelBatch(request, metadata=self._metadata)

    async def cancel(self) -> None:
        """Cancel what is cancelled: refused, by the writer."""
        if not self._ended:
            self._ended = await self._announced()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self._stub.CancelFile(pb.CancelFileRequest(file_id=self._ended), metadata=self._metadata)

    async def put(self) -> None:
        """Have a file of 4 KiB kept."""
        request = pb.PutFileRequest(filename="a", size_bytes=4096, data=bytes(4096))
        await self._stub.PutFile(request, metadata=self._metadata)

    async def upload(self) -> None:
        """Open an upload, and cancel its file."""
        file_id = await self._announced()
        stream = self._stub.UploadFile(metadata=self._metadata)
        await stream.write(pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)))
        await stream.read()
        await self._stub.CancelFile(pb.CancelFileRequest(file_id=file_id), metadata=self._metadata)
        stream.cancel()

    async def _announced(self) -> str:
        request = pb.InitiateUploadRequest(filename="a", size_bytes=10)
        return (await self._stub.InitiateUpload(request, metadata=self._metadata)).file.file_id


KINDS: Mapping[str, Callable[[Deeds], Awaitable[None]]] = {
    "list": Deeds.list,
    "watch": Deeds.watch,
    "announce": Deeds.announce,
    "batch": Deeds.batch,
    "cancel": Deeds.cancel,
    "put": Deeds.put,
    "upload": Deeds.upload,
    "get": Deeds.get,
}


def greedy(port: int, metadata: Metadata, orders: Connection) -> None:
    """Do what is ordered, kind after kind, and report how calls ended."""
    if os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO):
        # Among those that have priority, being nice counts for nothing: it would take the caller's core by turns.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    else:
        os.nice(_NICE)
    asyncio.run(_greedy(port, metadata, orders))


async def _greedy(port: int, metadata: Metadata, orders: Connection) -> None:
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(_CONNECTIONS)]
    deeds = [Deeds(upload_pb2_grpc.UploadServiceStub(channel), metadata) for channel in channels]

    async def work(one: Deeds, kind: str, counts: Counter[str], end: float) -> None:
        while time.monotonic() < end:
            try:
                await KINDS[kind](one)
                counts["OK"] += 1
            except grpc.aio.AioRpcError as error:
                counts[error.code().name] += 1

    while (order := await asyncio.to_thread(orders.recv)) is not None:
        kinds, end = order
        counts: Counter[str] = Counter()
        works = [
            work(one, kinds[(at + number) % len(kinds)], counts, end)
            for at, one in enumerate(deeds)
            for number in range(_DEEDS_AT_ONCE)
        ]
        await asyncio.gather(*works)
        orders.send(counts)


def cancels(
    stub: upload_pb2_grpc.UploadServiceStub, metadata: Metadata, seconds: float, pause: float = 0
) -> list[float]:
    """Announce and cancel file after file, with a pause between; returns how long each cancel took."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        request = pb.InitiateUploadRequest(filename="a", size_bytes=10)
        file = stub.InitiateUpload(request, metadata=metadata).file
        began = time.perf_counter()
        stub.CancelFile(pb.CancelFileRequest(file_id=file.file_id), metadata=metadata)
        took.append(time.perf_counter() - began)
        time.sleep(pause)
    return took


class Turns:
    """What the turns of one name have given: times of cancels, CPU seconds of the server, calls of the other one."""

    def __init__(self) -> None:
        # Of each turn.
        self.took: list[list[float]] = []
        self.cpu = 0.0
        self.counts: Counter[str] = Counter()

    def line(self, name: str, alone: Turns) -> str:
        """Return the figures, as the last one compares them."""
        (p50, p99), before = self._quantiles(), alone._quantiles()
        return (
            f"{name:<12} p50 {p50:6.2f} ms ({p50 / before[0]:5.2f})   p99 {p99:6.2f} ms ({p99 / before[1]:5.2f})"
            f"   {sum(map(len, self.took))} cancels   CPU {self.cpu:.1f} s   the other one's: {dict(self.counts)}"
        )

    def _quantiles(self) -> list[float]:
        """The p50 and p99 of the turns, in milliseconds: the median over all."""
        return [median(quantile(took, at) for took in self.took) * 1000 for at in (0.5, 0.99)]


def measure(
    server: ServerProcess,
    metadata: Metadata,
    other: Connection,
    turns: Mapping[str, Sequence[str]],
    given: argparse.Namespace,
) -> dict[str, Turns]:
    """Take turns, so that a noisy minute hits all."""
    found = {name: Turns() for name in turns}
    # Well below its own quota.
    pause = 2 / given.quota_calls if given.quota_calls else 0
    process = psutil.Process(server.pid)
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = upload_pb2_grpc.UploadServiceStub(channel)
        cancels(stub, metadata, 1.0, pause)
        for _ in range(given.rounds):
            for name, kinds in turns.items():
                if kinds:
                    other.send((kinds, time.monotonic() + given.seconds + 0.5))
                    time.sleep(0.3)
                before = sum(process.cpu_times()[:2])
                found[name].took.append(cancels(stub, metadata, given.seconds, pause))
                found[name].cpu += sum(process.cpu_times()[:2]) - before
                if kinds:
                    found[name].counts += other.recv()
                    # What is still queued of it is no part of the turn that follows.
                    time.sleep(0.3)
    return found


def main() -> int:
    """Run the turns and print the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2.0)
    options.add_argument("--quota-calls", type=int, default=0)
    options.add_argument("--data-dir")
    options.add_argument("--kinds", default=",".join(KINDS))
    given = options.parse_args()
    kinds = given.kinds.split(",")
    turns: dict[str, Sequence[str]] = {_ALONE: (), **{kind: [kind] for kind in kinds}}
    if len(kinds) > 1:
        turns[_ALL] = kinds
    cores = sorted(os.sched_getaffinity(0))
    ours = cores[: max(1, len(cores) // 2)]
    with tempfile.TemporaryDirectory(dir=given.data_dir) as folder:
        tokens = tokens_in(Path(folder))
        (Path(folder) / "data").mkdir()
        words = (*tokens.options, "--quota-calls", f"{given.quota_calls}")
        with ServerProcess(Path(folder) / "data", words) as server:
            os.sched_setaffinity(0, ours)
            context = multiprocessing.get_context("spawn")
            orders, its_end = context.Pipe()
            other = context.Process(
                target=greedy, args=(server.grpc_port, tokens.metadata("other"), its_end), daemon=True
            )
            other.start()
            found = measure(server, tokens.metadata("owner"), orders, turns, given)
            orders.send(None)
            other.join(10)
    for name, of in found.items():
        print(of.line(name, found[_ALONE]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
