"""How soon a sender at one node hears of a cancel at another, with the bell and with it cut off. Needs PostgreSQL.

Two servers on one database of this machine; uploads that rest, and others at full speed through both nodes beside them.
Options: ``--cancels N`` (300) each way, ``--busy N`` (2) uploads at full speed at each node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.sizes import MIB, quantile
from conftest import open_channel
from robustness.prove.servers import starter
from support.cluster import Cluster
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


def show(name: str, values: list[float]) -> None:
    """Print quantiles."""
    cuts = "   ".join(f"{word} {quantile(values, q):7.2f} ms" for word, q in (("p50", 0.5), ("p99", 0.99)))
    print(f"{name:44} {cuts}   most {max(values):7.2f} ms")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=300)
    parser.add_argument("--busy", type=int, default=2)
    options = parser.parse_args()
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
