"""One cancel heard by a thousand watches, beside bare grpc.aio generator streams, in one run. Needs Go.

Options: ``--watches N`` (1000), ``--connections N`` of the watches (10), ``--cancels N`` of each server and round (15),
``--rounds N`` (3; medians are compared), ``--http`` watches over HTTP too, for information.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil

from benchmarks.grpc_cancel import HERE, build_loadgen
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc


@dataclass(frozen=True, slots=True)
class Fanout:
    """Medians over the cancels, in ms from the call's start; and what the server spent."""

    first: float
    median: float
    last: float
    answered: float
    # Of the server's processor, in ms for one cancel.
    processor: float
    # KiB of the server's memory for one open watch.
    memory: float


@dataclass(frozen=True, slots=True)
class Listeners:
    """The program that holds the watches, and how it is to open them."""

    program: Path
    watches: int
    connections: int
    http: Sequence[str] = ()

    def hear(self, process: psutil.Process, target: str, file_ids: Sequence[str]) -> Fanout:
        """Cancel each file once all of its watches are open."""
        command = [str(self.program), "-target", target, "-watches", str(self.watches)]
        command += ["-connections", str(self.connections), *self.http]
        memory = process.memory_info().rss
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as listening:
            assert listening.stdin is not None
            assert listening.stdout is not None
            listening.stdin.write("\n".join(file_ids) + "\n\n")
            listening.stdin.flush()
            assert listening.stdout.readline() == "open\n"
            memory = process.memory_info().rss - memory
            before = _processor_ms(process)
            lines = [json.loads(line) for line in listening.communicate("\n", timeout=120)[0].splitlines()]
        assert len(lines) == len(file_ids)
        # The first one warms up.
        times = {name: statistics.median(line[name] for line in lines[1:]) for name in lines[0]}
        processor = (_processor_ms(process) - before) / len(lines)
        return Fanout(**times, processor=processor, memory=memory / 1024 / self.watches)


def _processor_ms(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system) * 1000


@contextlib.contextmanager
def bare(*settings: str) -> Iterator[tuple[psutil.Process, str]]:
    """Run the service by hand; gives its process and address."""
    command = [sys.executable, "-m", "benchmarks.grpc_rivals.bare_watch", *settings]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            yield psutil.Process(process.pid), f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def by_hand(listeners: Listeners, cancels: int, *settings: str) -> Fanout:
    """Measure the service by hand."""
    with bare(*settings) as (process, target):
        return listeners.hear(process, target, [f"{i:036}" for i in range(cancels)])


def ours(listeners: Listeners, cancels: int, *options: str, accept: str = "") -> Fanout:
    """Measure ours; with ``accept`` the watches come over HTTP."""
    with tempfile.TemporaryDirectory() as folder, ServerProcess(Path(folder) / "data", options) as server:
        with grpc.insecure_channel(server.target) as channel:
            specs = [pb.FileSpec(filename="example.pdf", size_bytes=1)] * (cancels + 1)
            made = upload_pb2_grpc.UploadServiceStub(channel).InitiateBatch(pb.InitiateBatchRequest(files=specs))
        http = ("-http", server.url, "-accept", accept) if accept else ()
        over = Listeners(listeners.program, listeners.watches, listeners.connections, http)
        return over.hear(psutil.Process(server.pid), server.target, made.file_ids[:cancels])


def main() -> None:
    """Measure in turns, so that a noisy minute hits everybody, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--watches", type=int, default=1000)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--cancels", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--http", action="store_true")
    options = parser.parse_args()
    found: dict[str, list[Fanout]] = {}
    with tempfile.TemporaryDirectory() as folder:
        listeners = Listeners(build_loadgen(Path(folder), "fanout"), options.watches, options.connections)
        for _ in range(options.rounds):
            for name, fanout in _measurements(listeners, options.cancels, with_http=options.http):
                found.setdefault(name, []).append(fanout)
    rival = statistics.median(fanout.last for fanout in found["by hand, grpc.aio"])
    print(f"{options.watches} watches on {options.connections} connections; ms from the start of the call that cancels")
    for name, fanouts in found.items():
        first, median, last, answered, processor, memory = (
            statistics.median(getattr(fanout, field) for fanout in fanouts) for field in Fanout.__slots__
        )
        print(
            f"{name:28} last {last:6.1f} ({rival / last:4.2f}x)   median {median:6.1f}   first {first:5.1f}   "
            f"answer {answered:6.1f}   processor {processor:6.1f}   {memory:5.1f} KiB a watch"
        )


def _measurements(listeners: Listeners, cancels: int, *, with_http: bool) -> Iterator[tuple[str, Fanout]]:
    yield "by hand, grpc.aio", by_hand(listeners, cancels)
    yield "by hand, uvloop SCHED_BATCH", by_hand(listeners, cancels, "uvloop", "batch")
    yield "WatchStatus", ours(listeners, cancels)
    yield "WatchStatus, --sched-batch", ours(listeners, cancels, "--sched-batch", "true")
    if with_http:
        for accept in ("application/json", "text/event-stream"):
            yield f"HTTP, {accept}", ours(listeners, cancels, accept=accept)


if __name__ == "__main__":
    main()
