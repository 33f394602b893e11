"""Processor instructions of a cancel, a small file and a MiB, counted by callgrind. Needs valgrind.

Options: ``--record NAME`` writes the figures into ``instructions.json`` under this name, a release's; ``--case NAME``.

Instructions do not depend on what else the machine does, so a few percent show where times would not. They say nothing
of waiting, of caches, or of what the kernel does. Calls come one at a time, each with a commit of its own, and loops
that rest between their rounds (seals, gauges) rest for good: under callgrind everything but clocks and disks takes
fifty times as long, and how many calls shared a commit or a seal would depend on how busy the machine is.
A figure over the newest recorded one by a twentieth is warned of; the exit code is 0 all the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import grpc
import httpx

from support.grpc_upload import stub_on
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

FIGURES = Path(__file__).with_suffix(".json")
MIB = 2**20
# A figure may grow by this before it is warned of.
_MARGIN = 0.05
# The server, whose loops rest for days.
_PROGRAM = """
import asyncio, runpy
sleep = asyncio.sleep
asyncio.sleep = lambda seconds, result=None: sleep(seconds * 1_000_000, result)
runpy.run_module("upload_server", run_name="__main__", alter_sys=True)
"""
_CHUNK = 256 * 1024


class Counted(ServerProcess):
    """A server under callgrind, which counts only inside ``counting``."""

    start_seconds = 120.0

    def __init__(self, folder: Path) -> None:
        self._counts = folder / "counts"
        valgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self._counts}"]
        python = [sys.executable, "-c", _PROGRAM]
        self.program = ("-c", f"import os, sys; os.execvp('valgrind', {valgrind + python} + sys.argv[1:])")
        # Under callgrind everything takes fifty times as long.
        super().__init__(folder / "data", ("--call-timeout", "10m", "--idle-timeout", "10m"))

    async def count(self, work: Awaitable[object]) -> int:
        """Return how many instructions the server takes for ``work``."""
        await self._control("--instr=on")
        await work
        await self._control("--instr=off")
        await self._control("--dump")
        dump = max(self._counts.parent.glob("counts.*"), key=lambda path: int(path.suffix[1:]))
        [totals] = [line for line in dump.read_text().splitlines() if line.startswith(("totals:", "summary:"))][-1:]
        return int(totals.split()[1])

    async def _control(self, option: str) -> None:
        process = await asyncio.create_subprocess_exec(
            "callgrind_control",
            option,
            str(self.pid),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if await process.wait():
            raise RuntimeError(f"callgrind_control {option} failed")


@dataclass(frozen=True)
class Case:
    """Something that the service does again and again, and what is counted of it."""

    unit: str
    units: int
    # Prepares on the server; returns what is counted.
    prepare: Callable[[ServerProcess, int], Awaitable[Awaitable[object]]]


async def _all(calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
    """Make the calls, one after the other."""
    for call in calls:
        await call()


async def _announced(server: ServerProcess, count: int, size: int = 1) -> list[str]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        request = pb.InitiateUploadRequest(filename="example.pdf", size_bytes=size)
        return [(await stub.InitiateUpload(request)).file.file_id for _ in range(count)]


async def _cancels(server: ServerProcess, count: int) -> Awaitable[object]:
    ids = await _announced(server, count)

    async def run() -> None:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = stub_on(channel)
            await _all([partial(stub.CancelFile, pb.CancelFileRequest(file_id=i, reason="x")) for i in ids])

    return run()


async def _http_cancels(server: ServerProcess, count: int) -> Awaitable[object]:
    ids = await _announced(server, count)

    async def run() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
            path = "/api/v1/upload/cancel/"
            await _all([partial(client.post, path + i, json={"reason": "x"}) for i in ids])

    return run()


async def _small_files(server: ServerProcess, count: int) -> Awaitable[object]:
    return _sent(server, [("POST", "/api/v1/tus", bytes(4096), {"Upload-Length": "4096"})] * count)


async def _tus_mib(server: ServerProcess, count: int) -> Awaitable[object]:
    [file_id] = await _announced(server, 1, count * MIB)
    return _sent(server, [("PATCH", f"/api/v1/tus/{file_id}", bytes(count * MIB), {"Upload-Offset": "0"})])


async def _sent(server: ServerProcess, requests: Sequence[tuple[str, str, bytes, dict[str, str]]]) -> None:
    fixed = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}

    async def send(method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        answer = await client.request(method, path, content=body, headers={**fixed, **headers})
        answer.raise_for_status()

    async with httpx.AsyncClient(base_url=server.url, timeout=600) as client:
        await _all([partial(send, *request) for request in requests])


async def _grpc_mib(server: ServerProcess, count: int) -> Awaitable[object]:
    [file_id] = await _announced(server, 1, count * MIB)

    async def run() -> None:
        async with grpc.aio.insecure_channel(server.target) as channel:
            call = stub_on(channel).UploadFile()
            await call.write(pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)))
            for _ in range(count * MIB // _CHUNK):
                await call.write(pb.UploadFileRequest(data=bytes(_CHUNK)))
            await call.write(pb.UploadFileRequest(commit=pb.UploadCommit()))
            answers = [answer async for answer in call]
            assert answers[-1].HasField("completed"), answers

    return run()


CASES = {
    "cancel": Case("CancelFile over gRPC", 200, _cancels),
    "http_cancel": Case("cancel over HTTP", 200, _http_cancels),
    "small_file": Case("4 KiB file by tus, in one request", 100, _small_files),
    "tus_mib": Case("MiB by tus", 32, _tus_mib),
    "grpc_mib": Case("MiB by UploadFile, 256 KiB a message", 32, _grpc_mib),
}


async def measure(case: Case) -> int:
    """Return instructions a unit, once everything is warm."""
    with tempfile.TemporaryDirectory() as folder, Counted(Path(folder)) as server:
        await (await case.prepare(server, max(1, case.units // 4)))
        return await server.count(await case.prepare(server, case.units)) // case.units


def compare(found: dict[str, int], recorded: dict[str, int]) -> list[str]:
    """Return the figures as lines, with a warning in those that have grown."""
    lines = []
    for name, figure in found.items():
        line = f"{CASES[name].unit:40} {figure:12,}"
        if before := recorded.get(name):
            line += f"  {figure / before:5.2f}x of {before:,}"
            line += "  WARNING: dearer than recorded" if figure > before * (1 + _MARGIN) else ""
        lines.append(line)
    return lines


def main() -> None:
    """Count, compare with the newest figures recorded, and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", metavar="NAME")
    parser.add_argument("--case", choices=CASES, action="append")
    options = parser.parse_args()
    if shutil.which("callgrind_control") is None:
        parser.exit(0, "not counted: valgrind is not installed\n")
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else []
    # Other processors and Pythons take other instructions: figures of theirs are no measure.
    here = f"{platform.machine()}, Python {platform.python_version()}"
    newest = next((known for known in reversed(figures) if known["on"] == here), None)
    found = {name: asyncio.run(measure(CASES[name])) for name in options.case or CASES}
    print(f"against {newest['name']} of {newest['date']}" if newest else f"nothing is recorded on {here}")
    print("\n".join(compare(found, newest["instructions"] if newest else {})))
    if options.record:
        figures.append(
            {"name": options.record, "date": str(datetime.now(UTC).date()), "on": here, "instructions": found}
        )
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
