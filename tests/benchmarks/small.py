"""Files of 4 KiB by tus and by gRPC, 1, 16 and 64 at once, beside tusd and another edition of this service. Needs Go.

Options: ``--rounds N`` (3; medians), ``--count N`` files of a round (800), ``--against FOLDER`` the other edition (a
working copy with its own ``.venv``). Prints files a second and milliseconds of processor time a file.

By gRPC a file is a `PutFile`, or an `InitiateUpload` and an `UploadFile`, which every edition has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.grpc_cancel import METHOD, build_loadgen
from benchmarks.peers import PEERS, Usage
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

SIZE = 4096
IN_FLIGHT = (1, 16, 64)
TUSD = next(peer for peer in PEERS if peer.name == "tusd")
ROADS = ("tus", "gRPC, whole", "gRPC, announced")


@dataclass
class Score:
    """Files a second, and seconds of processor time a file."""

    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Medians."""
        return f"{statistics.median(self.rates):6,.0f} files/s {statistics.median(self.cpu) * 1e3:5.2f} ms CPU"


def _edition(root: Path) -> type[ServerProcess]:
    """Return the server of another working copy."""
    path = str(root.resolve() / ".venv" / "bin" / "python")

    class Other(ServerProcess):
        # By its own path: Python looks for its packages beside what it was called by.
        program = ("-c", f"import os, sys; os.execv({path!r}, [{path!r}, '-m', 'upload_server', *sys.argv[1:]])")

    return Other


class Bench:
    """The programs that ask."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder = folder
        self._count = count
        build_loadgen(folder)
        build_loadgen(folder, "files")

    def tus(self, url: str, in_flight: int, count: int) -> float:
        """Send files by creation-with-upload; returns seconds."""
        command = [str(self._folder / "files"), "-url", url, "-kind", "tus", "-size", str(SIZE)]
        return self._seconds([*command, "-count", str(count), "-in-flight", str(in_flight)])

    def grpc(self, target: str, road: str, in_flight: int, count: int) -> float:
        """Send files; returns seconds."""
        name = "a.bin"
        command = [str(self._folder / "loadgen"), "-target", target, "-in-flight", str(in_flight)]
        if road == ROADS[1]:
            message = pb.PutFileRequest(filename=name, size_bytes=SIZE, data=bytes(SIZE)).SerializeToString()
            command += ["-method", f"{METHOD}PutFile"]
        else:
            message = pb.InitiateUploadRequest(filename=name, size_bytes=SIZE).SerializeToString()
            command += ["-method", f"{METHOD}InitiateUpload", "-then", f"{METHOD}UploadFile", "-upload", str(SIZE)]
        with tempfile.NamedTemporaryFile(dir=self._folder) as requests:
            requests.write((struct.pack(">I", len(message)) + message) * count)
            requests.flush()
            return self._seconds([*command, "-requests", requests.name])

    def _seconds(self, command: list[str]) -> float:
        answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        if answer["failed"]:
            raise RuntimeError(f"{answer}")
        return float(answer["seconds"])

    def measure(self, pid: int, send: Callable[[int], float], score: Score) -> None:
        """Send a few, then those that count."""
        usage = Usage(pid)
        send(20)
        before = usage.cpu()
        score.rates.append(self._count / send(self._count))
        score.cpu.append((usage.cpu() - before) / self._count)


@contextlib.contextmanager
def _servers(folder: Path, against: Path | None) -> Iterator[dict[str, ServerProcess]]:
    with contextlib.ExitStack() as stack:
        servers = {"this": stack.enter_context(ServerProcess(folder / "this"))}
        if against is not None:
            servers["the other"] = stack.enter_context(_edition(against)(folder / "other"))
        yield servers


def main() -> None:
    """Measure in turns, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=800)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    scores: dict[tuple[str, str, int], Score] = {}
    with tempfile.TemporaryDirectory(prefix="small-") as name:
        folder = Path(name)
        bench = Bench(folder, options.count)
        for number in range(options.rounds):
            (run := folder / str(number)).mkdir()
            with _servers(run, options.against) as servers, TUSD.run(run, folder) as (tusd, tusd_url):
                for in_flight in IN_FLIGHT:
                    of = scores.setdefault(("tusd", ROADS[0], in_flight), Score())
                    bench.measure(tusd, partial(bench.tus, tusd_url, in_flight), of)
                    for who, server in servers.items():
                        for road in ROADS:
                            if who != "this" and road == ROADS[1]:
                                continue
                            send = _sender(bench, server, road, in_flight)
                            bench.measure(server.pid, send, scores.setdefault((who, road, in_flight), Score()))
    for (who, road, in_flight), score in sorted(scores.items(), key=lambda item: (item[0][2], item[0][1])):
        print(f"{in_flight:3} at once, {road:16} {who:10} {score}")


def _sender(bench: Bench, server: ServerProcess, road: str, in_flight: int) -> Callable[[int], float]:
    if road == ROADS[0]:
        return partial(bench.tus, f"{server.url}/api/v1/tus", in_flight)
    return partial(bench.grpc, server.target, road, in_flight)


if __name__ == "__main__":
    main()
