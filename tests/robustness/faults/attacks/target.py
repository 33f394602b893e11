"""Whom an attack strikes, how often and until when; and what attacks have in common: come back, listen, pour, hold."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from robustness.faults.frames import goodbye

Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# Fewer are no attack.
FEWEST_STRIKES = 4


class Target:
    """Whom to attack, until when, how often a second (0: as often as it can)."""

    def __init__(self, grpc_port: int, http_port: int, seconds: float, file_id: str, rate: float) -> None:
        self.grpc_port = grpc_port
        self.http_port = http_port
        self.file_id = file_id
        # Strikes that are sent at once.
        self.batch = 10 if rate else 100
        self.counts: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self._rate = rate
        self._struck = 0
        self._seconds = seconds
        self._began = 0.0

    def begin(self) -> None:
        """Start the time, and print that it runs."""
        self._began = time.monotonic()
        print("begins", flush=True)

    @property
    def over(self) -> bool:
        """Whether the time is up; one whom a busy machine has kept from striking has ten times as long."""
        return self._past >= self._seconds * (1 if sum(self.counts.values()) >= FEWEST_STRIKES else 10)

    @property
    def seconds_left(self) -> float:
        """Seconds until the time is up."""
        return max(0.0, self._seconds - self._past)

    @property
    def _past(self) -> float:
        return time.monotonic() - self._began

    async def struck(self, name: str, times: int = 1) -> None:
        """Count, and keep to the rate."""
        self.counts[name] += times
        self._struck += times
        due = self._began + self._struck / self._rate if self._rate else 0.0
        await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def http(self) -> Line:
        """Open a connection to the HTTP port."""
        return await self._connect(self.http_port)

    async def grpc(self) -> Line:
        """Open a connection to the gRPC port, on which nothing was said yet."""
        return await self._connect(self.grpc_port)

    async def _connect(self, port: int) -> Line:
        line = await asyncio.open_connection("127.0.0.1", port)
        self.counts["connections"] += 1
        return line


async def again_and_again(target: Target, strike: Callable[[Target], Awaitable[None]]) -> None:
    """A server may throw the peer out; it comes back."""
    while not target.over:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(target.seconds_left + 1):
                await strike(target)


async def listen(target: Target, reader: asyncio.StreamReader) -> None:
    """Read whatever comes, and note how it ends."""
    tail = b""
    with contextlib.suppress(OSError):
        while heard := await reader.read(1 << 16):
            tail = (tail + heard)[-512:]
    target.ends[goodbye(tail)] += 1


async def pour(target: Target, line: Line, batches: Iterable[bytes], name: str, times: int) -> None:
    """Send batches of so many strikes on one connection, reading whatever comes."""
    reader, writer = line
    listening = asyncio.create_task(listen(target, reader))
    try:
        for batch in batches:
            if target.over or listening.done() or writer.is_closing():
                break
            writer.write(batch)
            await writer.drain()
            await target.struck(name, times)
    finally:
        if not target.over:
            # What the server had to say before it hung up.
            await asyncio.wait({listening}, timeout=0.05)
        listening.cancel()
        writer.transport.abort()


async def hold(target: Target, opening: Sequence[Awaitable[asyncio.StreamWriter]]) -> None:
    """Open connections, and keep them until the time is up."""
    writers = await asyncio.gather(*opening)
    await asyncio.sleep(target.seconds_left)
    for writer in writers:
        writer.transport.abort()
