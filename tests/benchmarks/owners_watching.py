"""What a cancel costs the server while others watch: nobody, a thousand principals of their own, or a thousand of its.

Options: ``--watches N`` (1000), ``--cancels N`` of each turn (200), ``--rounds N`` (3; medians are compared).
Prints CPU of an announcement with its cancel, by turns on one server. Watches that have nothing to hear of a commit
should cost it nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import psutil

from support.grpc_upload import stub_on
from support.process import ServerProcess
from support.tokens import Tokens, tokens_in
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

_CONNECTIONS = 10
_OWN = "owner"
Metadata = tuple[tuple[str, str], ...]


def watched_by(tokens: Tokens, watches: int) -> dict[str, list[Metadata]]:
    """Return who watches in each turn."""
    for number in range(watches):
        tokens.add(f"{number}", f"p{number}", "user")
    strangers = [tokens.metadata(f"{number}") for number in range(watches)]
    return {"nobody": [], f"{watches} others": strangers, f"{watches} of its own": [tokens.metadata(_OWN)] * watches}


async def opened(stubs: list[Stub], who: list[Metadata]) -> list[asyncio.Task[None]]:
    """Open a watch of everything for each, and read on."""
    there = asyncio.Semaphore(0)

    async def watch(stub: Stub, metadata: Metadata) -> None:
        call = stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=metadata)
        try:
            async for message in call:
                if message.HasField("bookmark"):
                    there.release()
        finally:
            call.cancel()

    tasks = [asyncio.create_task(watch(stubs[at % len(stubs)], one)) for at, one in enumerate(who)]
    for _ in tasks:
        await there.acquire()
    return tasks


async def cancels(stub: Stub, mine: Metadata, count: int) -> None:
    """Announce and cancel file after file."""
    for _ in range(count):
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=10), metadata=mine)
        await stub.CancelFile(pb.CancelFileRequest(file_id=made.file.file_id), metadata=mine)


async def measure(
    server: ServerProcess, tokens: Tokens, given: argparse.Namespace, who: dict[str, list[Metadata]]
) -> None:
    """Take turns, so that a noisy minute hits all."""
    process, found = psutil.Process(server.pid), {name: list[float]() for name in who}
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [grpc.aio.insecure_channel(server.target, options) for _ in range(_CONNECTIONS + 1)]
    stub, *others = [stub_on(channel) for channel in channels]
    mine = tokens.metadata(_OWN)
    await cancels(stub, mine, 50)
    for _ in range(given.rounds):
        for name, watchers in who.items():
            tasks = await opened(others, watchers)
            before = sum(process.cpu_times()[:2])
            await cancels(stub, mine, given.cancels)
            found[name].append((sum(process.cpu_times()[:2]) - before) / given.cancels * 1e6)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    for channel in channels:
        await channel.close()
    nobody = statistics.median(found["nobody"])
    for name, costs in found.items():
        cost = statistics.median(costs)
        print(f"watched by {name:<18} {cost:8.0f} us of CPU an announcement and its cancel   {cost / nobody:6.2f}")


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watches", type=int, default=1000)
    parser.add_argument("--cancels", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tokens = tokens_in(Path(folder))
        who = watched_by(tokens, given.watches)
        (Path(folder) / "data").mkdir()
        with ServerProcess(Path(folder) / "data", (*tokens.options, "--quota-watches", "0")) as server:
            asyncio.run(measure(server, tokens, given, who))
    return 0


if __name__ == "__main__":
    sys.exit(main())
