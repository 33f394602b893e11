"""CancelFile beside hostile peers, quiet and attacked in turns on one server: p50, p99, most, the loop's longest turn.

Options: attacks by name (all), ``--rounds N`` (3), ``--seconds N`` of each turn (4), ``--stated`` for stated rates
only, ``--envoy`` in front, as deployed. Prints its memory, and who was cut off, too.

Each attack strikes at a stated rate, and then as fast as it can. The attacker runs on one core, with the caller and
behind it (SCHED_IDLE), the server on the others: what starves is never the caller for the attacker's sake.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from benchmarks.sizes import quantile
from e2e.envoy.proxy import EnvoyProcess, Node
from robustness.faults.attacks import ATTACKS, RATES
from robustness.faults.vitals import Memory
from robustness.faults.watched import WatchedServer
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

MIB = 2**20
TESTS = Path(__file__).parents[1]
FULL = 0
# What is opened once and held: told as a number, not as a rate.
HELD = {"watches", "sockets"}
# A bound that the attack is to exceed.
BOUNDS = {"half_open_sockets": ["--max-websockets=50"]}
_SETTLE_SECONDS = 0.5
_CALM_SECONDS = 2.0
_PATIENCE_SECONDS = 10.0
_REST_SECONDS = 3.0


@dataclass
class Turns:
    """What all turns of one kind have given. Times in seconds."""

    took: list[float] = field(default_factory=list)
    longest_turn: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0
    seconds: float = 0.0
    attacked_seconds: float = 0.0
    turns: int = 0


def cancel_for(stub: upload_pb2_grpc.UploadServiceStub, seconds: float, failed: Counter[str]) -> list[float]:
    """Announce and cancel file after file, one in flight; returns how long each cancel took, which failed ones have."""
    took = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        try:
            made = stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=10), timeout=_PATIENCE_SECONDS)
            request = pb.CancelFileRequest(file_id=made.file.file_id)
            began = time.perf_counter()
            stub.CancelFile(request, timeout=_PATIENCE_SECONDS)
        except grpc.RpcError as error:
            failed[error.code().name] += 1
        took.append(time.perf_counter() - began)
    return took


class Stage:
    """A server, perhaps behind Envoy, and one caller."""

    def __init__(self, server: WatchedServer, grpc_port: int, http_port: int) -> None:
        self._server = server
        self.memory = Memory(server.pid)
        self._ports = (grpc_port, http_port)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")
        self.stub = upload_pb2_grpc.UploadServiceStub(self.channel)
        made = self.stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=10_000_000), timeout=30)
        self._file_id = made.file.file_id

    def turn(self, turns: Turns, seconds: float) -> None:
        """Cancel for some seconds."""
        cpu, began = self.memory.cpu_seconds(), time.monotonic()
        turns.took += cancel_for(self.stub, seconds, turns.failed)
        turns.cpu += self.memory.cpu_seconds() - cpu
        turns.seconds += time.monotonic() - began
        turns.longest_turn = max(turns.longest_turn, self._server.longest_turn(began))

    def attacked_turn(self, turns: Turns, seconds: float, name: str, rate: int) -> None:
        """The same beside an attack, which lasts a little longer."""
        command = [sys.executable, "-m", "robustness.faults.attacks", name, *map(str, self._ports)]
        command += [str(seconds + 1), self._file_id, str(rate)]
        turns.attacked_seconds += seconds + 1
        turns.turns += 1
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as attack:
            # It takes what the caller leaves.
            os.sched_setscheduler(attack.pid, os.SCHED_IDLE, os.sched_param(0))
            assert attack.stdout is not None
            assert attack.stdout.readline() == "begins\n"
            time.sleep(_SETTLE_SECONDS)
            self.turn(turns, seconds)
            report = json.loads(attack.stdout.readline())
        turns.struck.update(report["struck"])
        turns.ends.update(report["ends"])
        # What is still queued of it is no part of the quiet turn that follows.
        time.sleep(_CALM_SECONDS)


@contextlib.contextmanager
def staged(options: list[str], *, envoy: bool) -> Iterator[Stage]:
    """Start it all: the server on the second half of the cores, we and our attackers on the first."""
    cores = sorted(os.sched_getaffinity(0))
    ours, theirs = (cores[: len(cores) // 2], cores[len(cores) // 2 :]) if len(cores) > 1 else (cores, cores)
    node = Node.planned()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-"))
        os.sched_setaffinity(0, theirs)
        server = stack.enter_context(WatchedServer(Path(folder) / "data", [*options, *node.options]))
        proxy = stack.enter_context(EnvoyProcess(node)) if envoy else None
        os.sched_setaffinity(0, ours)
        stack.callback(os.sched_setaffinity, 0, cores)
        ports = (proxy.port, proxy.port) if proxy else (server.grpc_port, server.http_port)
        if proxy:
            time.sleep(2)
        stage = Stage(server, *ports)
        stack.callback(stage.channel.close)
        yield stage


def measure(name: str, options: argparse.Namespace) -> None:
    """Put one attack to a server of its own, and print."""
    rate = RATES[ATTACKS[name]]
    rates = [rate, FULL] if rate and not options.stated else [rate]
    with staged([*BOUNDS.get(name, []), *options.server], envoy=options.envoy) as stage:
        cancel_for(stage.stub, 2.0, Counter())
        quiet, attacked = Turns(), {rate: Turns() for rate in rates}
        before, peaks = stage.memory.now, dict.fromkeys(rates, 0)
        for _ in range(options.rounds):
            stage.turn(quiet, options.seconds)
            for rate in rates:
                stage.memory.forget()
                stage.attacked_turn(attacked[rate], options.seconds, name, rate)
                peaks[rate] = max(peaks[rate], stage.memory.peak)
        time.sleep(_REST_SECONDS)
        after = stage.memory.now
    _print(name, "quiet", quiet, quiet)
    for rate in rates:
        _print("", f"{rate}/s" if rate else "full", attacked[rate], quiet, f"peak {peaks[rate] / MIB:.0f} MiB")
    print(f"{'':18}memory before {before / MIB:.0f} MiB, {_REST_SECONDS:g} s after {after / MIB:.0f} MiB", flush=True)


def _print(name: str, kind: str, turns: Turns, quiet: Turns, more: str = "") -> None:
    p50, p99, most = (quantile(turns.took, q) for q in (0.5, 0.99, 1.0))
    line = f"{name:18}{kind:>9} {len(turns.took):6} cancels  p50 {p50 * 1e3:6.2f}  p99 {p99 * 1e3:6.2f} ms"
    line += f"  most {most * 1e3:6.1f} ms  longest turn {turns.longest_turn * 1e3:6.1f} ms"
    if turns is not quiet:
        line += f"  p99 {p99 / quantile(quiet.took, 0.99):5.2f} times"
    line += f"  server at {turns.cpu / turns.seconds:4.0%}"
    for what, count in turns.struck.items():
        held = what in HELD
        line += f"; {count / turns.turns:,.0f} {what}" if held else f"; {count / turns.attacked_seconds:,.0f} {what}/s"
    if turns.failed:
        line += f"; FAILED {dict(turns.failed)}"
    if turns.ends:
        line += "; " + ", ".join(f"{count} {end}" for end, count in turns.ends.most_common(3))
    print(line + (f"; {more}" if more else ""))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("attacks", nargs="*", choices=[*ATTACKS, []], default=list(ATTACKS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--stated", action="store_true", help="only at the stated rates")
    parser.add_argument("--envoy", action="store_true")
    parser.add_argument("--server", action="append", default=[], help="an option of the server, as --server=--x=y")
    options = parser.parse_args()
    for name in options.attacks:
        measure(name, options)


if __name__ == "__main__":
    main()
