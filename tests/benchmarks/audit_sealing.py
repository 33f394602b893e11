"""How soon the audit trail is sealed after a batch of 10,000 is cancelled, and what it costs other cancels. Needs Go.

Rounds alternate between the server and one that seals nothing. Options: ``--rounds N`` (3).
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from benchmarks.grpc_cancel import build_loadgen, initiate, load
from support.process import ServerProcess
from unit.upkeep.unsealed_server import Unsealed
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

FILES, CANCELS, FLIGHT = 10_000, 2000, 16


def announce(server: ServerProcess) -> str:
    """Announce a batch; returns its id."""
    specs = [pb.FileSpec(filename=f"{index}", size_bytes=1) for index in range(FILES)]
    with grpc.insecure_channel(server.target) as channel:
        return (
            upload_pb2_grpc.UploadServiceStub(channel)
            .InitiateBatch(pb.InitiateBatchRequest(files=specs))
            .batch.batch_id
        )


def cancel(server: ServerProcess, batch_id: str) -> float:
    """Cancel it; returns when the answer had come."""
    with grpc.insecure_channel(server.target) as channel:
        upload_pb2_grpc.UploadServiceStub(channel).CancelBatch(pb.CancelBatchRequest(batch_id=batch_id))
    return time.monotonic()


def wait_sealed(server: ServerProcess) -> float:
    """Wait until no event is without its seal; returns when that was. A database tells nobody: it is looked at."""
    path = server.data_dir / "upload.sqlite3"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        while True:
            last, sealed = database.execute(
                "SELECT (SELECT max(change_no) FROM audit_event), (SELECT max(change_no) FROM audit_seal)"
            ).fetchone()
            if last == sealed:
                return time.monotonic()
            time.sleep(0.005)


def alone(folder: Path) -> tuple[float, float]:
    """Seconds from the answer of a batch's cancel to its last seal: announced long before, and just before."""
    with ServerProcess(folder / "alone") as server:
        old = announce(server)
        wait_sealed(server)
        answered = cancel(server, old)
        calm = wait_sealed(server) - answered
        answered = cancel(server, announce(server))
        return calm, wait_sealed(server) - answered


def beside(program: Path, make: Callable[[Path], ServerProcess], folder: Path) -> tuple[float, float, float]:
    """p50 and p99 (ms) of cancels while a batch is sealed, and how long that took them all (s)."""
    with make(folder) as server, ThreadPoolExecutor() as threads:
        ids = initiate(server, program, CANCELS)
        requests = [pb.CancelFileRequest(file_id=file_id).SerializeToString() for file_id in ids]
        answered = cancel(server, announce(server))
        sealing = threads.submit(wait_sealed, server) if make is ServerProcess else None
        took = load(program, server.target, "CancelFile", requests, FLIGHT)
        return took["p50_ms"], took["p99_ms"], sealing.result() - answered if sealing else 0.0


def main() -> None:
    """Measure in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="audit-sealing-") as name:
        folder = Path(name)
        program = build_loadgen(folder)
        found = []
        for number in range(options.rounds):
            ours = beside(program, ServerProcess, folder / f"sealing{number}")
            theirs = beside(program, Unsealed, folder / f"not{number}")
            found.append((*alone(folder / str(number)), *ours, *theirs))
    calm, both, p50, p99, whole, p50_without, p99_without, _ = map(statistics.median, zip(*found, strict=True))
    print(f"a batch of {FILES} cancelled; its {FILES + 1} events sealed {calm:.2f} s after the answer")
    print(f"announced just before, so {2 * (FILES + 1)} events: sealed {both:.2f} s after the answer")
    singles = f"{CANCELS} single cancels, {FLIGHT} in flight"
    print(f"{singles} beside it: p50 {p50:.1f} ms, p99 {p99:.1f} ms; all is sealed {whole:.2f} s after the answer")
    print(f"{singles} where nothing is sealed: p50 {p50_without:.1f} ms, p99 {p99_without:.1f} ms")
    print(f"medians of {options.rounds} rounds")


if __name__ == "__main__":
    main()
