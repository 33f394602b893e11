"""UploadFile over gRPC against a bare grpc.aio service that hashes and syncs alike, side by side. Needs Go.

Options: ``--mib N`` size of the file (512), ``--rounds N`` repetitions (3; medians are compared), ``--against PATH``
another checkout of this service, with its own ``.venv``, that takes part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil

from benchmarks.grpc_cancel import HERE, METHOD, build_loadgen
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

MIB = 1024 * 1024
CHUNKS = (64 * 1024, 256 * 1024, MIB)


@dataclass
class Side:
    """One server. ``send`` uploads so many bytes in messages of that size, and returns how many seconds it took."""

    name: str
    pid: int
    send: Callable[[int, int], float]
    # Deletes what was stored, so that everybody writes to pages that are free: a virtual machine pays for new ones.
    forget: Callable[[], None]
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def take_turn(self, size: int, chunk: int) -> None:
        """Upload once, and note MiB a second and CPU seconds a GiB."""
        before = _cpu_seconds(self.pid)
        took = self.send(size, chunk)
        self.seconds.append((_cpu_seconds(self.pid) - before) * 1024 * MIB / size)
        self.rates.append(size / MIB / took)
        self.forget()


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def service(folder: Path, send: Callable[[ServerProcess, str, int, int], float], tree: str) -> Iterator[Side]:
    """Run this service, or that of another checkout with an environment of its own; ``send`` sends one file."""

    class Server(ServerProcess):
        if tree:
            program = (
                "-c",
                f"import os, sys; os.execv(p := {tree!r} + '/.venv/bin/python', [p, *sys.argv[1:]])",
                *ServerProcess.program,
            )

    with Server(folder / "data") as server, grpc.insecure_channel(server.target) as channel:
        stub = upload_pb2_grpc.UploadServiceStub(channel)

        def send_new(size: int, chunk: int) -> float:
            file_id = stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=size)).file.file_id
            return send(server, file_id, size, chunk)

        def forget() -> None:
            for path in (server.data_dir / "bytes").glob("*/*"):
                path.unlink()

        yield Side(tree or "this service", server.pid, send_new, forget)


def compare(sides: list[Side], size: int, rounds: int) -> None:
    """Measure in turns; print each one's medians, and the first one's rate as so many times each other's."""
    for side in sides:
        # The first to write pays for the pages.
        side.take_turn(size, MIB)
    for chunk in CHUNKS:
        for side in sides:
            side.rates, side.seconds = [], []
        for _ in range(rounds):
            for side in sides:
                side.take_turn(size, chunk)
        ours = statistics.median(sides[0].rates)
        for side in sides:
            rate, seconds = statistics.median(side.rates), statistics.median(side.seconds)
            ratio = "" if side is sides[0] else f", {ours / rate:.2f}x"
            print(
                f"{chunk // 1024:5} KiB: {rate:5.0f} MiB/s, {seconds:.2f} CPU s a GiB, {side.name}{ratio}", flush=True
            )


def send(program: Path, target: str, file_id: str, size: int, chunk: int) -> float:
    """Upload one file; returns how many seconds it took, commit included."""
    header = pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)).SerializeToString()
    commit = pb.UploadFileRequest(commit=pb.UploadCommit()).SerializeToString()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(struct.pack(">I", len(r)) + r for r in (header, commit)))
        file.flush()
        command = [str(program), "-target", target, "-method", METHOD + "UploadFile", "-requests", file.name]
        command += ["-upload", str(size), "-chunk", str(chunk), "-connections", "1"]
        done = subprocess.run(command, check=True, capture_output=True)
    return float(json.loads(done.stdout)["seconds"])


@contextlib.contextmanager
def bare(folder: Path, program: Path) -> Iterator[Side]:
    """Run the service by hand."""
    stored = folder / "bytes"
    command = [sys.executable, "-m", "benchmarks.grpc_rivals.bare_upload", str(stored)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            target = f"127.0.0.1:{int(process.stdout.readline())}"
            yield Side(
                "by hand", process.pid, lambda size, chunk: send(program, target, "x", size, chunk), stored.unlink
            )
        finally:
            process.kill()


def main() -> None:
    """Measure in turns, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default="")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = build_loadgen(folder)

        def send_file(server: ServerProcess, file_id: str, size: int, chunk: int) -> float:
            return send(program, server.target, file_id, size, chunk)

        sides = [stack.enter_context(service(folder / "ours", send_file, ""))]
        sides.append(stack.enter_context(bare(folder, program)))
        if options.against:
            sides.append(stack.enter_context(service(folder / "theirs", send_file, options.against)))
        compare(sides, options.mib * MIB, options.rounds)


if __name__ == "__main__":
    main()
