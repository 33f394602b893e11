"""What a server holds: open uploads, watches and WebSockets, descriptors, threads, memory."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from support.process import ServerProcess

_GAUGES = ("upload_open_uploads", "upload_open_watches", "upload_open_websockets")


@dataclass(frozen=True)
class Vitals:
    """At one moment. ``rss`` is in bytes."""

    uploads: int
    watches: int
    websockets: int
    descriptors: int
    threads: int
    rss: int

    @property
    def open(self) -> tuple[int, int, int]:
        """Everything that clients hold open."""
        return self.uploads, self.watches, self.websockets


async def vitals(server: ServerProcess) -> Vitals:
    """Look at it; the connection that asks is its own."""
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        text = (await client.get("/metrics")).text
    found = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith(_GAUGES))
    process = psutil.Process(server.pid)
    uploads, watches, websockets = (int(float(found[name])) for name in _GAUGES)
    return Vitals(uploads, watches, websockets, process.num_fds(), process.num_threads(), process.memory_info().rss)


async def come_to_rest(server: ServerProcess, baseline: Vitals, seconds: float = 20.0, spare: int = 4) -> Vitals:
    """Wait until nothing is open and descriptors are back, but for ``spare`` (readers of the database come and go)."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        now = await vitals(server)
        if now.open == (0, 0, 0) and now.descriptors <= baseline.descriptors + spare:
            return now
        assert asyncio.get_running_loop().time() < deadline, f"still {now}, at first {baseline}"
        await asyncio.sleep(0.1)


class Memory:
    """A process's resident memory in bytes: now, and the most since it was last asked to forget."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def forget(self) -> None:
        """Begin to look for the peak anew."""
        (self._folder / "clear_refs").write_text("5")

    def _field(self, name: str) -> int:
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

    @property
    def now(self) -> int:
        """At this moment."""
        return self._field("VmRSS")

    @property
    def peak(self) -> int:
        """The most since."""
        return self._field("VmHWM")

    def cpu_seconds(self) -> float:
        """Processor time the process has used."""
        fields = (self._folder / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
