"""What TLS costs a call over gRPC and a body over HTTP, beside what it costs grpcio's and OpenSSL's own echo.

Processor time of the server process, in one run, in turns: our server in plain text and over TLS, and a server that
only echoes. ``ratio``: how much dearer TLS makes the echo's call, to how much dearer it makes ours; 1 or more is as
good as TLS can be. A body of known length goes past the event loop in plain text, and cannot over TLS; one in chunks
goes through it either way. Options: ``--calls N`` GetFile of each (4000), ``--mib N`` of a tus body (256), ``--rounds
N`` (3; medians).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc
import httpx
import psutil

from clients.tus.client import Tus
from support.certificates import Authority, Pair
from support.grpc_upload import stub_on
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

HERE = Path(__file__).parent
MIB = 1024 * 1024
IN_FLIGHT = 64


class Server(NamedTuple):
    """A server that runs: where, and as which process."""

    grpc_port: int
    http_port: int
    pid: int


@contextmanager
def ours(folder: Path, pair: Pair | None) -> Iterator[Server]:
    """Run the service."""
    with ServerProcess(folder, () if pair is None else pair.options) as server:
        yield Server(server.grpc_port, server.http_port, server.pid)


@contextmanager
def echo(_: Path, pair: Pair | None) -> Iterator[Server]:
    """Run the servers that only echo: grpcio's, and one that reads a body with asyncio."""
    command = [sys.executable, "-m", "benchmarks.grpc_rivals.echo"]
    command += [] if pair is None else [str(pair.cert), str(pair.key)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        try:
            grpc_port, http_port = map(int, process.stdout.readline().split())
            yield Server(grpc_port, http_port, process.pid)
        finally:
            process.kill()


def cpu(pid: int) -> float:
    """Processor seconds of a process so far."""
    return sum(psutil.Process(pid).cpu_times()[:2])


async def calls(server: Server, authority: Authority | None, count: int) -> float:
    """Processor microseconds of a call."""
    target = f"127.0.0.1:{server.grpc_port}"
    opened = (
        grpc.aio.insecure_channel(target)
        if authority is None
        else grpc.aio.secure_channel(target, authority.credentials())
    )
    async with opened as channel:
        stub = stub_on(channel)
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await look(stub)

        # So that the connection is there.
        await look(stub)
        before = cpu(server.pid)
        await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))
        return (cpu(server.pid) - before) / count * 1e6


async def look(stub: Stub) -> None:
    """Ask for a file that is not there: a call that does next to nothing."""
    try:
        await stub.GetFile(pb.GetFileRequest(file_id="x" * 36))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


async def body(server: Server, authority: Authority | None, mib: int, *, in_chunks: bool) -> float:
    """Processor milliseconds of ``mib`` MiB that come as one body."""
    scheme, verify = ("http", True) if authority is None else ("https", authority.context())

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(mib):
            yield bytes(MIB)

    url = f"{scheme}://127.0.0.1:{server.http_port}"
    async with httpx.AsyncClient(base_url=url, verify=verify, timeout=120) as client:
        tus = Tus(client)
        file = await tus.create(mib * MIB)
        length = {} if in_chunks else {"Content_Length": str(mib * MIB)}
        before = cpu(server.pid)
        answer = await tus.append(file, 0, pieces(), **length)
        # The echo says 201 to everything.
        assert answer.is_success, answer.text
        return (cpu(server.pid) - before) * 1e3


async def measure(options: argparse.Namespace, folder: Path) -> None:
    """Measure in turns, so that a noisy minute hits all."""
    authority = Authority(folder)
    pair = authority.issue("server")
    found: dict[tuple[str, str, bool], list[float]] = {}
    for number in range(options.rounds):
        for name, run in (("ours", ours), ("echo", echo)):
            for shown in (None, pair):
                trusted = None if shown is None else authority
                with run(folder / f"{name} {number} {shown is None}", shown) as server:
                    for what, value in (
                        ("us a call", await calls(server, trusted, options.calls)),
                        (f"ms of {options.mib} MiB", await body(server, trusted, options.mib, in_chunks=False)),
                        ("ms in chunks", await body(server, trusted, options.mib, in_chunks=True)),
                    ):
                        found.setdefault((what, name, shown is not None), []).append(value)
    for what in dict.fromkeys(what for what, _, _ in found):
        of = {key[1:]: statistics.median(values) for key, values in found.items() if key[0] == what}
        dearer = {name: of[name, True] - of[name, False] for name in ("ours", "echo")}
        print(
            f"{what:16} ours {of['ours', False]:7.0f} → {of['ours', True]:7.0f}   echo {of['echo', False]:7.0f} →"
            f" {of['echo', True]:7.0f}   TLS adds {dearer['ours']:.0f} and {dearer['echo']:.0f},"
            f" ratio {dearer['echo'] / dearer['ours']:.2f}"
        )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=4000)
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(options, Path(folder)))
