"""CancelFile on SQLite by one process and by two (``--workers``), side by side in one run. Needs Go.

64 in flight over 16 connections, which the system spreads among the workers. Processor time is that of all processes
of the server. Options: ``--calls N`` cancels of each (8000), ``--rounds N`` (3; medians are compared), ``--workers N``
(2).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.grpc_cancel import build_loadgen, initiate, load
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

IN_FLIGHT, CONNECTIONS = 64, 16


class Found(NamedTuple):
    """Of one server: calls a second, calls a second of processor time, and the slowest per cent in ms."""

    per_second: float
    per_cpu_second: float
    p99_ms: float


def cpu_seconds(server: ServerProcess) -> float:
    """Processor time of a server and its workers so far."""
    parent = psutil.Process(server.pid)
    return sum(sum(process.cpu_times()[:2]) for process in (parent, *parent.children()))


def measure(program: Path, calls: int, workers: int) -> Found:
    """Cancel files of a fresh server."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess(Path(folder) / "data", ("--workers", str(workers))) as server,
    ):
        ids = initiate(server, program, calls + 500)
        requests = [pb.CancelFileRequest(file_id=one, reason="x").SerializeToString() for one in ids]
        load(program, server.target, "CancelFile", requests[:500], IN_FLIGHT, CONNECTIONS)
        before = cpu_seconds(server)
        found = load(program, server.target, "CancelFile", requests[500:], IN_FLIGHT, CONNECTIONS)
        return Found(found["per_second"], calls / (cpu_seconds(server) - before), found["p99_ms"])


def main() -> None:
    """Measure in turns, so that a noisy minute hits both, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    found: dict[int, list[Found]] = {1: [], options.workers: []}
    with tempfile.TemporaryDirectory() as folder:
        program = build_loadgen(Path(folder))
        for _ in range(options.rounds):
            for workers, results in found.items():
                results.append(measure(program, options.calls, workers))
    medians = {workers: Found(*map(statistics.median, zip(*each, strict=True))) for workers, each in found.items()}
    one, many = medians[1], medians[options.workers]
    for workers, each in medians.items():
        print(
            f"{workers} process(es): {each.per_second:7.0f}/s, {each.per_cpu_second:6.0f} a CPU second,"
            f" p99 {each.p99_ms:.1f} ms"
        )
    rate, per_cpu = many.per_second / one.per_second, many.per_cpu_second / one.per_cpu_second
    print(f"rate {rate:.2f}x, calls a CPU second {per_cpu:.2f}x")


if __name__ == "__main__":
    main()
