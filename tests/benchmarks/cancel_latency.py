"""How soon a cancelled upload stops under full load: its sender's `stopped`, and its last byte on disk. Needs Go.

Full load: both cores busy with uploads at full speed in 256 KiB chunks, watchers of everything, and cancels of other
files; printed with the figures. Senders and who measures are Go programs of their own.
Options: ``--cancels N`` (200), ``--senders N`` (8), ``--watchers N`` (50), ``--others N`` a second (100), ``--quiet``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.grpc_cancel import build_loadgen
from benchmarks.sizes import MIB, quantile
from robustness.prove.servers import starter
from support.grpc_upload import CHUNK
from support.process import LogLine, ServerProcess


@dataclass(frozen=True, slots=True)
class Stop:
    """One cancelled upload; times are milliseconds."""

    asked_to_answered: float
    asked_to_stopped: float
    committed_to_stopped: float
    # 0 where nothing was written after the commit.
    committed_to_last_byte: float
    late_bytes: int
    late_writes: int


@contextlib.contextmanager
def full_load(program: Path, server: ServerProcess, options: argparse.Namespace) -> Iterator[None]:
    """Keep the server busy, and say how busy it was."""
    command = [str(program), "-load", "-target", server.target, "-senders", str(options.senders)]
    command += ["-watchers", str(options.watchers), "-others", str(options.others)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as load:
        assert load.stdout is not None
        try:
            load.stdout.readline()
            psutil.cpu_percent()
            used = _processor_seconds(server)
            yield
            busy, used = psutil.cpu_percent(), _processor_seconds(server) - used
            did = json.loads(load.communicate(timeout=30)[0])
        finally:
            load.kill()
    print(f"full load: {options.senders} uploads at {did['mib_per_second']:.0f} MiB/s together")
    print(f"  {options.watchers} watchers that heard {did['heard_per_second']:.0f} messages a second")
    print(f"  {did['cancels_per_second']:.0f} other files announced and cancelled a second")
    print(f"  {psutil.cpu_count()} cores {busy:.0f} % busy; the server took {used:.0f} s of the processor")


def _processor_seconds(server: ServerProcess) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


def measure(program: Path, server: ServerProcess, cancels: int) -> list[Stop]:
    """Cancel uploads one after the other, each under its sender, and lay the server's log beside it."""
    command = [str(program), "-target", server.target, "-cancels", str(cancels)]
    lines = subprocess.run(command, check=True, capture_output=True).stdout.splitlines()
    last = json.loads(lines[-1])["file_id"]
    server.wait_log(lambda line: line.get("event") == "committed" and line.get("file_id") == last)
    told: dict[str, list[LogLine]] = {}
    for line in list(server.log):
        if line.get("event") == "late bytes":
            told.setdefault(str(line["file_id"]), []).append(line)
    committed = {str(line["file_id"]): int(str(line["at"])) for line in server.log if line.get("event") == "committed"}
    return [_stop(json.loads(line), committed, told) for line in lines]


def _stop(times: dict[str, int], committed: dict[str, int], told: dict[str, list[LogLine]]) -> Stop:
    file_id = str(times["file_id"])
    late = told.get(file_id, [])
    return Stop(
        (times["answered"] - times["asked"]) / 1000,
        (times["stopped"] - times["asked"]) / 1000,
        (times["stopped"] - committed[file_id]) / 1000,
        max((float(str(line["milliseconds"])) for line in late), default=0.0),
        sum(int(str(line["bytes"])) for line in late),
        len(late),
    )


def show(stops: list[Stop]) -> None:
    """Print quantiles."""
    rows = {
        "asked to answered": [stop.asked_to_answered for stop in stops],
        "asked to `stopped`": [stop.asked_to_stopped for stop in stops],
        "commit to `stopped`": [stop.committed_to_stopped for stop in stops],
        "commit to last byte": [stop.committed_to_last_byte for stop in stops],
    }
    for name, values in rows.items():
        cuts = "   ".join(
            f"{word} {quantile(values, q):7.2f} ms" for word, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
        )
        print(f"{name:24} {cuts}   most {max(values):7.2f} ms")
    late = sum(stop.late_writes > 0 for stop in stops)
    most = max(stop.late_bytes for stop in stops) / CHUNK
    print(
        f"uploads with bytes after the commit: {late} of {len(stops)}; at most {most:g} chunks of {CHUNK // 1024} KiB"
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cancels", type=int, default=200)
    parser.add_argument("--senders", type=int, default=8)
    parser.add_argument("--watchers", type=int, default=50)
    parser.add_argument("--others", type=int, default=100)
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cancel-latency-") as folder,
        starter(Path(folder) / "data", (), "late_bytes_told")() as server,
    ):
        program = build_loadgen(Path(folder), "stops")
        with contextlib.nullcontext() if options.quiet else full_load(program, server, options):
            stops = measure(program, server, options.cancels)
        show(stops)
        print(f"the server's memory: {server.rss() / MIB:.0f} MiB")


if __name__ == "__main__":
    main()
