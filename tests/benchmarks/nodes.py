"""How soon senders and callers at one node are served beside what another does, or while it is stopped. On PostgreSQL.

Two servers on one database of this machine; uploads that rest, and others at full speed through both nodes beside them:
how soon a sender hears of a cancel at the other node, with the bell and with it cut off. And cancels at one node by
turns: with the other at rest, with the other stopped again and again amid cancels of its own, and beside its batches
of 10,000 files. Options: ``--cancels N`` (300) each way, ``--busy N`` (2) uploads at full speed at each node,
``--turns N`` (3), ``--only stopped`` for the second part alone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.sizes import MIB, quantile
from conftest import open_channel
from robustness.prove.servers import starter
from support.cluster import Cluster, Node
from support.grpc_upload import CHUNK, UploadCall, stub_on
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from support.process import ServerProcess
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


async def announced(stub: Stub, size_bytes: int = MIB) -> str:
    """Announce a file."""
    request = pb.InitiateUploadRequest(filename="a.bin", size_bytes=size_bytes)
    return (await stub.InitiateUpload(request)).file.file_id


@contextlib.asynccontextmanager
async def full_speed(stubs: Sequence[Stub], each: int) -> AsyncIterator[None]:
    """Upload without end at each node."""

    async def send(stub: Stub) -> None:
        data = bytes(CHUNK)
        async with UploadCall(stub, await announced(stub, 1 << 40)) as call:
            hearing = asyncio.create_task(_drain(call))
            while not hearing.done():
                await call.send(data)

    tasks = [asyncio.create_task(send(stub)) for stub in stubs for _ in range(each)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _drain(call: UploadCall) -> None:
    while await call.hear() is not None:
        pass


async def one_cancel(canceller: Stub, holder: Stub) -> tuple[float, float]:
    """Cancel one upload; returns milliseconds from the call, and from its answer, to `stopped` at the other node."""
    file_id = await announced(canceller)
    async with UploadCall(holder, file_id) as call:
        await call.send(bytes(CHUNK))
        await call.hear_durable(CHUNK)
        hearing = asyncio.create_task(call.hear_until("stopped"))
        asked = time.perf_counter()
        await canceller.CancelFile(pb.CancelFileRequest(file_id=file_id))
        answered = time.perf_counter()
        await hearing
        stopped = time.perf_counter()
    return (stopped - asked) * 1000, (stopped - answered) * 1000


async def measure(servers: Sequence[ServerProcess], cancels: int, busy: int) -> list[tuple[float, float]]:
    """Cancel uploads one after the other, each at the node that does not have it."""
    async with contextlib.AsyncExitStack() as stack:
        stubs = [stub_on(await stack.enter_async_context(open_channel(server))) for server in servers]
        # Both have heard of each other by then.
        await asyncio.sleep(3)
        await stack.enter_async_context(full_speed(stubs, busy))
        return [await one_cancel(stubs[index % 2], stubs[1 - index % 2]) for index in range(cancels)]


async def announced_all(stub: Stub, files: int) -> list[str]:
    """Announce files, many at once."""
    ids: list[str] = []
    for start in range(0, files, 64):
        ids += await asyncio.gather(*(announced(stub) for _ in range(min(64, files - start))))
    return ids


async def timed_cancels(stub: Stub, ids: Sequence[str]) -> list[float]:
    """Cancel files, four at a time; returns the milliseconds of each."""
    waiting, times = iter(ids), list[float]()

    async def caller() -> None:
        for file_id in waiting:
            began = time.perf_counter()
            await stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
            times.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(caller() for _ in range(4)))
    return times


@contextlib.asynccontextmanager
async def stopped_now_and_then(node: Node, stub: Stub) -> AsyncIterator[None]:
    """Have a node cancel files of its own, and stop it for most of the time."""

    async def cancel() -> None:
        while True:
            await stub.CancelFile(pb.CancelFileRequest(file_id=await announced(stub)))

    async def stop() -> None:
        while True:
            await asyncio.sleep(random.uniform(0.05, 0.15))
            node.freeze()
            await asyncio.sleep(0.6)
            node.thaw()

    async with beside(cancel, *[cancel] * 15, stop):
        try:
            yield
        finally:
            node.thaw()


@contextlib.asynccontextmanager
async def long_batches(stub: Stub) -> AsyncIterator[None]:
    """Have a node announce and cancel batches of 10,000 files, one after the other."""

    async def work() -> None:
        files = [pb.FileSpec(filename=f"{number}.bin", size_bytes=1) for number in range(10_000)]
        while True:
            made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=files))
            await stub.CancelBatch(pb.CancelBatchRequest(batch_id=made.batch.batch_id))

    async with beside(work):
        yield


@contextlib.asynccontextmanager
async def beside(*work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run what does not end beside a block."""
    tasks = [asyncio.ensure_future(one()) for one in work]
    await asyncio.sleep(0.5)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def measure_beside(cluster: Cluster, cancels: int, turns: int) -> None:
    """Print what cancels take at one node, whatever another does."""
    async with contextlib.AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(open_channel(node.server)) for node in cluster.nodes]
        other, stub = (stub_on(channel) for channel in channels)
        ways: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[None]]] = {
            "with the other at rest": contextlib.nullcontext,
            "with the other stopped now and then": lambda: stopped_now_and_then(cluster.nodes[0], other),
            "beside batches of 10,000 files": lambda: long_batches(other),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(turns):
            for way, around in ways.items():
                ids = await announced_all(stub, cancels)
                async with around():
                    times[way] += await timed_cancels(stub, ids)
        for way, found in times.items():
            show(f"a cancel {way}", found)


def show(name: str, values: list[float]) -> None:
    """Print quantiles."""
    cuts = "   ".join(f"{word} {quantile(values, q):7.2f} ms" for word, q in (("p50", 0.5), ("p99", 0.99)))
    print(f"{name:44} {cuts}   most {max(values):7.2f} ms")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=300)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=("stopped", ""), default="")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="nodes-") as folder,
        Cluster(Path(folder) / "cluster", 2) as cluster,
    ):
        asyncio.run(measure_beside(cluster, options.cancels, options.turns))
    if options.only:
        return
    for way, circumstance in (("with the bell", ""), ("bell cut off", "bell_cut_off")):

        def start(folder: Path, words: Sequence[str], circumstance: str = circumstance) -> ServerProcess:
            return starter(folder, tuple(words), circumstance)()

        with (
            tempfile.TemporaryDirectory(prefix="nodes-") as folder,
            Cluster(Path(folder) / "cluster", 2, start=start) as cluster,
        ):
            servers = [node.server for node in cluster.nodes]
            for load in dict.fromkeys((0, options.busy)):
                times = asyncio.run(measure(servers, options.cancels, load))
                beside = f"{way}, {2 * load} uploads beside"
                show(f"asked to `stopped`, {beside}", [asked for asked, _ in times])
                show(f"answered to `stopped`, {beside}", [answered for _, answered in times])


if __name__ == "__main__":
    main()
