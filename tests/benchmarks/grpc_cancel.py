"""CancelFile over gRPC against a grpc.aio server that does nothing, side by side in one run. Needs Go.

Options: ``--calls N`` cancels of each server (6000), ``--rounds N`` repetitions (3; medians are compared).
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
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc

from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

HERE = Path(__file__).parent
METHOD = "/upload.v1.UploadService/"


def build_loadgen(folder: Path, name: str = "") -> Path:
    """Build a load generator; Go moves the bytes so that the client is not what is measured."""
    program = folder / (name or "loadgen")
    subprocess.run(["go", "build", "-o", str(program), f"./{name}"], cwd=HERE / "loadgen", check=True)
    return program


def load(
    program: Path, target: str, method: str, requests: Sequence[bytes], in_flight: int, connections: int = 4
) -> dict[str, Any]:
    """Send the requests; returns calls a second and latencies in ms."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(struct.pack(">I", len(r)) + r for r in requests))
        file.flush()
        command = [str(program), "-target", target, "-method", METHOD + method, "-requests", file.name]
        command += ["-in-flight", str(in_flight), "-connections", str(min(connections, in_flight))]
        done = subprocess.run(command, check=True, capture_output=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["failed"] == 0, answer
    return answer


@contextlib.contextmanager
def null_server(*settings: str) -> Iterator[str]:
    """Run the server that does nothing; gives its address."""
    command = [sys.executable, "-m", "benchmarks.grpc_rivals.null", *settings]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(HERE.parent)}
    ) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def measure_null(program: Path, calls: int, *settings: str) -> tuple[float, float]:
    """Return calls a second at 64 in flight, and the p50 in ms of one in flight."""
    requests = [pb.CancelFileRequest(file_id=f"{i:036}", reason="x").SerializeToString() for i in range(calls)]
    with null_server(*settings) as target:
        load(program, target, "CancelFile", requests[:500], 64)
        busy = load(program, target, "CancelFile", requests, 64)
        alone = load(program, target, "CancelFile", requests[:500], 1)
    return busy["per_second"], alone["p50_ms"]


def initiate(server: ServerProcess, program: Path, count: int) -> list[str]:
    """Announce files; returns their ids."""
    requests = [pb.InitiateUploadRequest(filename="example.pdf", size_bytes=1).SerializeToString()] * count
    load(program, server.target, "InitiateUpload", requests, 64)
    ids: list[str] = []
    with grpc.insecure_channel(server.target) as channel:
        stub, token = upload_pb2_grpc.UploadServiceStub(channel), ""
        while not ids or token:
            page = stub.ListFiles(
                pb.ListFilesRequest(page_size=1000, page_token=token, status=pb.UPLOAD_STATUS_PENDING)
            )
            ids += [file.file_id for file in page.files]
            token = page.next_page_token
    return ids


def measure_ours(program: Path, calls: int, *options: str) -> tuple[float, float]:
    """Return durable cancels a second at 64 in flight, and the p50 in ms of one in flight."""
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data", options) as server:
        ids = initiate(server, program, calls + 1000)
        requests = [pb.CancelFileRequest(file_id=i, reason="x").SerializeToString() for i in ids]
        load(program, server.target, "CancelFile", requests[:500], 64)
        busy = load(program, server.target, "CancelFile", requests[1000:], 64)
        alone = load(program, server.target, "CancelFile", requests[500:1000], 1)
    return busy["per_second"], alone["p50_ms"]


def fdatasync_ms(folder: Path) -> float:
    """Return the median of one small append with fdatasync, in ms."""
    took = []
    with (folder / "probe").open("ab", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def main() -> None:
    """Measure in turns, so that a noisy minute hits everybody, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rivals: dict[str, Callable[[Path], tuple[float, float]]] = {
        "null, plain grpc.aio": lambda p: measure_null(p, options.calls),
        "null, uvloop + SCHED_BATCH": lambda p: measure_null(p, options.calls, "uvloop", "batch"),
        "CancelFile, default": lambda p: measure_ours(p, options.calls),
        "CancelFile, --sched-batch true": lambda p: measure_ours(p, options.calls, "--sched-batch", "true"),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    with tempfile.TemporaryDirectory() as folder:
        program = build_loadgen(Path(folder))
        sync = fdatasync_ms(Path(folder))
        for _ in range(options.rounds):
            for name, measure in rivals.items():
                found[name].append(measure(program))
    busy = {name: statistics.median(b for b, _ in results) for name, results in found.items()}
    alone = {name: statistics.median(a for _, a in results) for name, results in found.items()}
    plain = busy["null, plain grpc.aio"]
    print(f"one fdatasync: {sync:.2f} ms")
    for name in rivals:
        print(f"{name:32} {busy[name]:7.0f}/s {busy[name] / plain:5.2f}x   one in flight p50 {alone[name]:.2f} ms")
    same = busy["CancelFile, --sched-batch true"] / busy["null, uvloop + SCHED_BATCH"]
    extra = (alone["CancelFile, default"] - alone["null, plain grpc.aio"]) / sync
    print(f"at the same settings as the null: {same:.2f}x; one in flight: null + {extra:.1f} fdatasync")


if __name__ == "__main__":
    main()
