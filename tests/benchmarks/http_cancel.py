"""HTTP cancels: this service, its gRPC port, Envoy before that or a null server, FastAPI by hand; 64 connections.

Needs `wrk` (Debian), `ghz` (Go: github.com/bojand/ghz/cmd/ghz) for the gRPC line, and the dependency group `bench` for
FastAPI; what is missing is left out. Every file is cancelled once and every answer is a commit on disk. Servers, Envoy
included, share one core; the load comes from another, in C and Go, so that the servers are what is measured. Quote the
ratios: absolute figures are the machine's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil

from e2e.envoy.proxy import EnvoyProcess, Node
from support.ports import free_port

CONNECTIONS = 64
# More than can be cancelled: in the seconds of a warm-up, and of a run.
WARM_UP = 20_000
FILES = 200_000
WARM_UP_SECONDS = 1.0
RIVALS = Path(__file__).parent / "http_rivals"
PROTOSET = Path(__file__).parents[2] / "deploy" / "upload.binpb"
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Figures:
    """One run of load: cancels, cancels a second, and milliseconds."""

    count: int
    rate: float
    p50: float
    p99: float
    # Processor time of the servers for one cancel, in microseconds: what neighbours on the machine disturb least.
    cpu: float = 0.0


@dataclass(frozen=True)
class Store:
    """A database full of pending files, to be copied for every run."""

    folder: Path
    ids: Path

    @classmethod
    def prepare(cls, folder: Path) -> Store:
        """Make the service's own schema and put the files into it."""
        program = [sys.executable, "-m", "upload_server", "migrate", "--data-dir", str(folder / "store")]
        subprocess.run(program, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ids = [str(uuid.uuid4()) for _ in range(FILES)]
        # Now, or they would be expired.
        at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        rows = [(file_id, f"file {n}.bin", at, at, at, n) for n, file_id in enumerate(ids, 1)]
        with contextlib.closing(sqlite3.connect(folder / "store" / "upload.sqlite3")) as db, db:
            db.executemany(
                "INSERT INTO file (file_id, filename, content_type, size_bytes, status, created_at, updated_at,"
                " active_at, change_no) VALUES (?, ?, '', 1000, 'pending', ?, ?, ?, ?)",
                rows,
            )
            db.execute("UPDATE store_info SET last_change = ?", (FILES,))
        (folder / "ids").write_text("\n".join(ids))
        return cls(folder / "store", folder / "ids")

    def copy(self, to: Path) -> Path:
        """Return a fresh data directory."""
        shutil.copytree(self.folder, to)
        return to


def wrk(port: int, store: Store, seconds: float, skip: int, count: int) -> Figures:
    """Cancel over HTTP as fast as it goes; every answer must be a success."""
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds:g}s",
        "--timeout",
        "20s",
        "-s",
        str(RIVALS / "cancel.lua"),
    ]
    command += [f"http://127.0.0.1:{port}", "--", str(store.ids), str(skip), str(count)]
    output = subprocess.run([*_load_core(), *command], check=True, capture_output=True, text=True).stdout
    seen = json.loads(output.strip().splitlines()[-1])
    if seen["refused"] or seen["broken"]:
        raise SystemExit(f"not every cancel was answered OK: {seen}")
    return Figures(
        seen["requests"], seen["requests"] / seen["microseconds"] * 1e6, seen["p50"] / 1e3, seen["p99"] / 1e3
    )


def load_http(port: int, store: Store, seconds: float, *pids: int) -> Figures:
    """Warm up with the first files, then measure with the others."""
    wrk(port, store, WARM_UP_SECONDS, 0, WARM_UP)
    return metered(pids, lambda: wrk(port, store, seconds, WARM_UP, FILES))


def load_grpc(port: int, store: Store, seconds: float, *pids: int) -> Figures:
    """The same over gRPC. ghz takes a number of calls, not of seconds: the warm-up tells how many."""
    ids = store.ids.read_text().splitlines()
    warm = ghz(port, ids[:2_000])
    chosen = ids[WARM_UP : WARM_UP + int(warm.rate * seconds)]
    return metered(pids, lambda: ghz(port, chosen))


def metered(pids: Sequence[int], run: Callable[[], Figures]) -> Figures:
    """Run, and note the processor time that the servers took."""
    before = sum(_cpu_seconds(pid) for pid in pids)
    figures = run()
    used = sum(_cpu_seconds(pid) for pid in pids) - before
    return replace(figures, cpu=used / figures.count * 1e6)


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def ghz(port: int, ids: Sequence[str]) -> Figures:
    """Cancel ``ids`` over as many connections."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as data:
        json.dump([{"file_id": file_id, "reason": "not needed"} for file_id in ids], data)
        data.flush()
        command = ["ghz", "--insecure", "--protoset", str(PROTOSET), "--call", "upload.v1.UploadService.CancelFile"]
        command += ["--data-file", data.name, "--total", str(len(ids)), "--concurrency", str(CONNECTIONS)]
        command += ["--connections", str(CONNECTIONS), "--format", "json", f"127.0.0.1:{port}"]
        report = json.loads(subprocess.run([*_load_core(), *command], check=True, capture_output=True).stdout)
    if report["statusCodeDistribution"] != {"OK": len(ids)}:
        raise SystemExit(f"not every cancel was answered OK: {report['statusCodeDistribution']}")
    at = {entry["percentage"]: entry["latency"] / 1e6 for entry in report["latencyDistribution"]}
    return Figures(len(ids), report["rps"], at[50], at[99])


@contextmanager
def service(data: Path) -> Iterator[tuple[Node, int]]:
    """The service and its process id: as it runs by default, but without the log's line for each cancel.

    The endpoint by hand writes none either.
    """
    node = Node.planned()
    command = [sys.executable, "-m", "upload_server", "serve", "--data-dir", str(data), *node.options]
    process = subprocess.Popen([*command, "--log-level", "warning"], stdin=subprocess.DEVNULL)
    try:
        _wait_for(f"http://127.0.0.1:{node.http_port}/readyz")
        yield node, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def ours_http(data: Path, store: Store, seconds: float) -> Figures:
    """The HTTP port, transcoded in process."""
    with service(data) as (node, pid):
        return load_http(node.http_port, store, seconds, pid)


def ours_grpc(data: Path, store: Store, seconds: float) -> Figures:
    """The gRPC port."""
    with service(data) as (node, pid):
        return load_grpc(node.grpc_port, store, seconds, pid)


def envoy(data: Path, store: Store, seconds: float) -> Figures:
    """Envoy's transcoder in front of the gRPC port, on the same core."""
    with service(data) as (node, pid), EnvoyProcess(node) as proxy:
        _wait_for(f"{proxy.url}/openapi.json")
        _wait_for(f"{proxy.url}/api/v1/files?page_size=1")
        return load_http(proxy.port, store, seconds, pid, proxy.pid)


def envoy_null(data: Path, store: Store, seconds: float) -> Figures:  # noqa: ARG001 - it stores nothing
    """Envoy's transcoder in front of a gRPC server that does nothing, on the same core: no proxy can be faster."""
    null = [sys.executable, "-m", "benchmarks.grpc_rivals.null"]
    with subprocess.Popen(null, cwd=RIVALS.parents[1], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            # What goes to the HTTP port is not asked for here.
            with EnvoyProcess(Node(int(server.stdout.readline()), free_port())) as proxy:
                _wait_for(f"{proxy.url}/api/v1/upload/cancel/any", "POST")
                return load_http(proxy.port, store, seconds, server.pid, proxy.pid)
        finally:
            server.terminate()


def fastapi(data: Path, store: Store, seconds: float) -> Figures:
    """The endpoint by hand."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "fastapi_cancel:app", "--app-dir", str(RIVALS), "--port", str(port)]
    command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    environment = {**os.environ, "BENCH_DATABASE": str(data / "upload.sqlite3")}
    process = subprocess.Popen(command, env=environment)
    try:
        _wait_for(f"http://127.0.0.1:{port}/healthz")
        return load_http(port, store, seconds, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


Contender = Callable[[Path, Store, float], Figures]


def contenders() -> dict[str, Contender]:
    """Who can run here."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is needed (Debian: apt-get install wrk)")
    found: dict[str, Contender] = {"HTTP": ours_http}
    if shutil.which("ghz") is None:
        print("left out: gRPC (no ghz: go install github.com/bojand/ghz/cmd/ghz@v0.120.0)")
    else:
        found["gRPC"] = ours_grpc
    found["Envoy → gRPC"] = envoy
    found["Envoy → null"] = envoy_null
    if importlib.util.find_spec("fastapi") is None:
        print("left out: FastAPI (no fastapi: pip install --group bench)")
    else:
        found["FastAPI"] = fastapi
    return found


def main() -> None:
    """Run every contender in turn, some rounds, and print the best of each and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="load of each run (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--only", action="append", help="only this contender; may be repeated")
    options = parser.parse_args()
    chosen = {name: run for name, run in contenders().items() if options.only is None or name in options.only}
    # Servers inherit this core; the load generators are moved to the other one.
    os.sched_setaffinity(0, {_cores()[0]})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, set(_cores()))
        store = Store.prepare(Path(folder))
        results: dict[str, list[Figures]] = {name: [] for name in chosen}
        for number in range(options.rounds):
            for name, run in chosen.items():
                data = store.copy(Path(folder, f"{number} {name}".replace("/", "")))
                figures = run(data, store, options.seconds)
                results[name].append(figures)
                shutil.rmtree(data)
                print(f"round {number + 1}  {name:14} {figures.rate:8.0f}/s {figures.cpu:6.0f} µs", flush=True)
    report(results)


def report(results: dict[str, list[Figures]]) -> None:
    """Print each one's best run, the one that others on the machine disturbed least, and the ratios of these."""
    best = {name: max(runs, key=lambda run: run.rate) for name, runs in results.items()}
    cpu = {name: min(run.cpu for run in runs) for name, runs in results.items()}
    first = next(iter(best))
    print(f"\n{'':14} {'cancels/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8}   {first}: rate, CPU")
    for name, run in best.items():
        ratios = f"{best[first].rate / run.rate:.2f}x {cpu[name] / cpu[first]:.2f}x"
        print(f"{name:14} {run.rate:10.0f} {run.p50:8.2f} {run.p99:8.2f} {cpu[name]:8.0f}   {ratios}")


def _cores() -> list[int]:
    return sorted(range(os.cpu_count() or 1))[:2]


def _load_core() -> list[str]:
    return ["taskset", "-c", str(_cores()[-1])]


def _wait_for(url: str, method: str = "GET") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.request(method, url).status_code == httpx.codes.OK:
                return
        time.sleep(0.05)
    raise SystemExit(f"{url} did not answer")


if __name__ == "__main__":
    main()
