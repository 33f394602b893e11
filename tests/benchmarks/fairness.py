"""CancelFile of one principal, alone and beside another that calls as fast as it can, in turns on one server.

Options: ``--rounds N`` (3), ``--seconds N`` of each turn (4), ``--quota-calls N`` of each principal a second (0: any),
``--kinds list,watch,announce`` of calls of the other one (all of them).
Prints p50 and p99 of both, their ratio, and how many calls the other one made and was refused.

The other one announces, lists, opens watches and cancels over its own connections, from a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

import grpc

from benchmarks.sizes import quantile
from support.process import ServerProcess
from support.tokens import tokens_in
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

_CONNECTIONS = 8
_DEEDS_AT_ONCE = 8


def greedy(
    port: int, metadata: tuple[tuple[str, str], ...], kinds: Sequence[str], goes: Event, ends: Event, made: object
) -> None:
    """Call as fast as answers come while ``goes`` is set, until ``ends``; report how calls ended."""
    counts: Counter[str] = asyncio.run(_greedy(port, metadata, kinds, goes, ends))
    made.put(dict(counts))  # type: ignore[attr-defined]


async def _greedy(
    port: int, metadata: tuple[tuple[str, str], ...], kinds: Sequence[str], goes: Event, ends: Event
) -> Counter[str]:
    counts: Counter[str] = Counter()

    async def work(stub: upload_pb2_grpc.UploadServiceAsyncStub, number: int) -> None:
        while not ends.is_set():
            if not goes.is_set():
                await asyncio.sleep(0.05)
                continue
            try:
                kind = kinds[number % len(kinds)]
                if kind == "list":
                    await stub.ListFiles(pb.ListFilesRequest(page_size=50), metadata=metadata)
                elif kind == "watch":
                    watch = stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=metadata)
                    await watch.read()
                    watch.cancel()
                else:
                    request = pb.InitiateUploadRequest(filename="a", size_bytes=10)
                    file = (await stub.InitiateUpload(request, metadata=metadata)).file
                    await stub.CancelFile(pb.CancelFileRequest(file_id=file.file_id), metadata=metadata)
                counts["OK"] += 1
            except grpc.aio.AioRpcError as error:
                counts[error.code().name] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(_CONNECTIONS):
            options = (("grpc.use_local_subchannel_pool", 1),)
            stub = upload_pb2_grpc.UploadServiceStub(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options))
            for number in range(_DEEDS_AT_ONCE):
                group.create_task(work(stub, number))
    return counts


def cancels(
    stub: upload_pb2_grpc.UploadServiceStub, metadata: tuple[tuple[str, str], ...], seconds: float, pause: float = 0
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


def main() -> int:
    """Run the turns and print the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=4.0)
    options.add_argument("--quota-calls", type=int, default=0)
    options.add_argument("--kinds", default="list,watch,announce,announce")
    given = options.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        tokens = tokens_in(Path(folder))
        (Path(folder) / "data").mkdir()
        words = (*tokens.options, "--quota-calls", f"{given.quota_calls}")
        with ServerProcess(Path(folder) / "data", words) as server:
            goes, ends, made = context.Event(), context.Event(), context.Queue()
            other = context.Process(
                target=greedy,
                args=(server.grpc_port, tokens.metadata("other"), given.kinds.split(","), goes, ends, made),
                daemon=True,
            )
            other.start()
            took: dict[bool, list[float]] = {False: [], True: []}
            with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
                stub = upload_pb2_grpc.UploadServiceStub(channel)
                # Well below its own quota.
                pause = 2 / given.quota_calls if given.quota_calls else 0
                cancels(stub, tokens.metadata("owner"), 1.0, pause)
                for _ in range(given.rounds):
                    for beside in (False, True):
                        (goes.set if beside else goes.clear)()
                        time.sleep(0.5)
                        took[beside] += cancels(stub, tokens.metadata("owner"), given.seconds, pause)
            goes.clear()
            ends.set()
            counts = made.get(timeout=30)
            other.join(10)
    figures = {beside: [quantile(times, at) * 1000 for at in (0.5, 0.99)] for beside, times in took.items()}
    for beside, (p50, p99) in figures.items():
        name = "beside another" if beside else "alone"
        print(f"{name:<16} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms   {len(took[beside])} cancels")
    print(f"p99 beside / alone: {figures[True][1] / figures[False][1]:.2f}   the other one's calls: {counts}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
