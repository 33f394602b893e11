"""UploadFile over gRPC against a bare grpc.aio service that hashes and syncs alike, side by side. Needs Go.

Options: ``--mib N`` size of the file (512), ``--rounds N`` repetitions (3; medians are compared).
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
from collections.abc import Iterator
from pathlib import Path

import grpc

from benchmarks.grpc_cancel import HERE, METHOD, build_loadgen
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

MIB = 1024 * 1024
CHUNKS = (64 * 1024, 256 * 1024, MIB)


def send(program: Path, target: str, file_id: str, size: int, chunk: int) -> float:
    """Upload one file; returns MiB a second, commit included."""
    header = pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)).SerializeToString()
    commit = pb.UploadFileRequest(commit=pb.UploadCommit()).SerializeToString()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(struct.pack(">I", len(r)) + r for r in (header, commit)))
        file.flush()
        command = [str(program), "-target", target, "-method", METHOD + "UploadFile", "-requests", file.name]
        command += ["-upload", str(size), "-chunk", str(chunk), "-connections", "1"]
        done = subprocess.run(command, check=True, capture_output=True)
    seconds = float(json.loads(done.stdout)["seconds"])
    return size / MIB / seconds


@contextlib.contextmanager
def bare(folder: Path) -> Iterator[str]:
    """Run the service by hand; gives its address."""
    command = [sys.executable, "-m", "benchmarks.grpc_rivals.bare_upload", str(folder / "bytes")]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def forget(path: Path) -> None:
    """Delete what was stored, so that everybody writes to pages that are free: a virtual machine pays for new ones."""
    path.unlink()


def main() -> None:
    """Measure in turns, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size = options.mib * MIB
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = build_loadgen(folder)
        target = stack.enter_context(bare(folder))
        server = stack.enter_context(ServerProcess(folder / "data"))
        stub = upload_pb2_grpc.UploadServiceStub(stack.enter_context(grpc.insecure_channel(server.target)))

        def by_hand(chunk: int) -> float:
            speed = send(program, target, "x", size, chunk)
            forget(folder / "bytes")
            return speed

        def by_us(chunk: int) -> float:
            file_id = stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=size)).file.file_id
            speed = send(program, server.target, file_id, size, chunk)
            forget(server.data_dir / "bytes" / file_id[:2] / file_id)
            return speed

        # The first to write pays for the pages.
        by_hand(MIB), by_us(MIB)
        for chunk in CHUNKS:
            ours, theirs = [], []
            for _ in range(options.rounds):
                theirs.append(by_hand(chunk))
                ours.append(by_us(chunk))
            a, b = statistics.median(ours), statistics.median(theirs)
            print(f"{chunk // 1024:5} KiB messages: {a:5.0f} MiB/s, by hand {b:5.0f} MiB/s: {a / b:.2f}x")


if __name__ == "__main__":
    main()
