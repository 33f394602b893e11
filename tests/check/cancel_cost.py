"""What sealing costs a cancel: ``PYTHONPATH=tests python -m check.cancel_cost``. Quote ratios of one run only.

Rounds alternate between a server with the sealer and one without; a round is cancels with some in flight, alone or
right after a batch of 10,000 was cancelled, so that there is a lot to seal.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc

from support.grpc_upload import stub_on
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

ROUNDS, CANCELS, FLIGHT = 5, 2000, 16


class Unsealed(ServerProcess):
    """Without the sealer."""

    program = (str(Path(__file__).with_name("unsealed_server.py")),)


async def cancels(server: ServerProcess, *, batch: bool) -> list[float]:
    """Cancel files, some in flight; returns how long each took, in ms. The files are announced before."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        files = [
            (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=1))).file.file_id
            for _ in range(CANCELS)
        ]
        specs = [pb.FileSpec(filename=f"{index}", size_bytes=1) for index in range(10_000 if batch else 1)]
        made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))
        await stub.CancelBatch(pb.CancelBatchRequest(batch_id=made.batch.batch_id))
        left, took = iter(files), list[float]()

        async def one_after_another() -> None:
            for file_id in left:
                began = time.perf_counter()
                await stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
                took.append((time.perf_counter() - began) * 1000)

        await asyncio.gather(*(one_after_another() for _ in range(FLIGHT)))
    return took


def told(took: list[float]) -> str:
    cuts = statistics.quantiles(took, n=100)
    return f"p50 {cuts[49]:6.2f} ms  p99 {cuts[98]:6.2f} ms"


def main() -> None:
    for batch in (False, True):
        found: dict[str, list[list[float]]] = {"sealer": [], "none": []}
        with tempfile.TemporaryDirectory() as folder:
            for number in range(ROUNDS):
                for name, make in (("sealer", ServerProcess), ("none", Unsealed)):
                    with make(Path(folder) / f"{name}{number}") as server:
                        found[name].append(asyncio.run(cancels(server, batch=batch)))
        what = "right after a batch of 10,000 was cancelled" if batch else "alone"
        sys.stdout.write(f"{CANCELS} cancels, {FLIGHT} in flight, {what}; {ROUNDS} rounds\n")
        for name, rounds in found.items():
            sys.stdout.write(f"  {name:7} {told([each for took in rounds for each in took])}\n")


if __name__ == "__main__":
    main()
