"""How soon a cancelled upload stops while the node is busy: its sender's `stopped`, and its last byte on disk.

Options: ``--cancels N`` (200), ``--streams N`` other uploads at full speed (8), ``--quiet`` without them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from benchmarks.sizes import quantile
from prove.servers import starter
from support.grpc_upload import CHUNK, UploadCall, stub_on
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from support.process import LogLine, ServerProcess
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

SIZE = 1 << 40
DATA = os.urandom(CHUNK)


async def send_for_ever(stub: Stub) -> None:
    """Upload at full speed, until cancelled."""
    made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="load", size_bytes=SIZE))
    async with UploadCall(stub, made.file.file_id) as call:
        while True:
            await call.send(DATA)


async def load(target: str, streams: int) -> None:
    """Other uploads; in a process of its own, so that it is the server that is busy and not who measures."""
    async with grpc.aio.insecure_channel(target) as channel:
        await asyncio.gather(*(send_for_ever(stub_on(channel)) for _ in range(streams)))


async def one_cancel(stub: Stub, other: Stub) -> tuple[float, float]:
    """Cancel a file that is being sent; returns seconds from asking to the answer, and from it to `stopped`."""
    made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="victim", size_bytes=SIZE))
    file_id = made.file.file_id
    async with UploadCall(stub, file_id) as call:
        await call.hear_until("progress")
        sending = asyncio.create_task(_send(call))
        heard = asyncio.create_task(call.hear_until("stopped"))
        await asyncio.sleep(0.05)
        asked = time.perf_counter()
        await other.CancelFile(pb.CancelFileRequest(file_id=file_id))
        answered = time.perf_counter()
        await heard
        stopped = time.perf_counter()
        sending.cancel()
    return answered - asked, stopped - answered


async def _send(call: UploadCall) -> None:
    while True:
        await call.send(DATA)
        await asyncio.sleep(0.002)


async def measure(server: ServerProcess, cancels: int) -> None:
    """Cancel one after the other and print."""
    local = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.insecure_channel(server.target, options=local) as channel,
        grpc.aio.insecure_channel(server.target, options=local) as other,
    ):
        found = [await one_cancel(stub_on(channel), stub_on(other)) for _ in range(cancels)]
    rows = {
        "asked to answered": [answer for answer, _ in found],
        "asked to `stopped`": [answer + stop for answer, stop in found],
        "answered to `stopped`": [stop for _, stop in found],
    }
    for name, seconds in rows.items():
        print(f"{name:24} p50 {quantile(seconds, 0.5) * 1e3:7.2f} ms   p99 {quantile(seconds, 0.99) * 1e3:7.2f} ms")
    _print_late(server.log, cancels)


def _print_late(log: list[LogLine], cancels: int) -> None:
    late: dict[str, tuple[float, int]] = {}
    for line in log:
        if line.get("event") == "late bytes":
            last, count = late.get(str(line["file_id"]), (0.0, 0))
            late[str(line["file_id"])] = (max(last, float(str(line["milliseconds"]))), count + int(str(line["bytes"])))
    after = sorted(each for each, _ in late.values())
    most = max((count for _, count in late.values()), default=0)
    # Where nothing came after the commit the last byte came before it.
    padded = [0.0] * (cancels - len(late)) + after
    print(f"{'commit to last byte':24} p50 {quantile(padded, 0.5):7.2f} ms   p99 {quantile(padded, 0.99):7.2f} ms")
    print(f"uploads with bytes after the commit: {len(late)} of {cancels}; at most {most / CHUNK:g} chunks of 256 KiB")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=200)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        asyncio.run(load(options.load, options.streams))
        return
    with (
        tempfile.TemporaryDirectory(prefix="cancel-latency-") as folder,
        starter(Path(folder) / "data", (), "late_bytes_told")() as server,
    ):
        command = [sys.executable, "-m", "benchmarks.cancel_latency", "--load", server.target]
        others = None if options.quiet else subprocess.Popen([*command, "--streams", str(options.streams)])
        try:
            time.sleep(0 if options.quiet else 2)
            print("quiet" if options.quiet else f"beside {options.streams} uploads at full speed")
            asyncio.run(measure(server, options.cancels))
        finally:
            if others is not None:
                others.kill()
                others.wait()


if __name__ == "__main__":
    main()
