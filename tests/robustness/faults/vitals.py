"""What a server holds: open uploads, watches and WebSockets, descriptors, threads, memory."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

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
