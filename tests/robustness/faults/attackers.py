"""``python attackers.py NAME GRPC_PORT HTTP_PORT SECONDS [FILE_ID [RATE]]``: a hostile peer, in a process of its own.

What it sends is made before it begins, so that it is the server that works. It strikes RATE times a second, ten times
at once, or as fast as it can, a hundred times at once. Prints a line when it begins, and when its time is up, as JSON,
how often it struck and how it was sent away.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import uvloop

from robustness.faults.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD_BYTES,
    HEADERS,
    LIES,
    PING,
    RST,
    SETTINGS,
    call_headers,
    call_without_body,
    frame,
    goodbye,
    greeting,
    handshake,
    header_block,
)

# Strikes on one connection; the peer comes back then.
_STRIKES = 50_000


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
        """Whether the time is up."""
        return self.seconds_left <= 0

    @property
    def seconds_left(self) -> float:
        """Seconds until the time is up."""
        return max(0.0, self._began + self._seconds - time.monotonic())

    async def struck(self, name: str, times: int = 1) -> None:
        """Count, and keep to the rate."""
        self.counts[name] += times
        self._struck += times
        due = self._began + self._struck / self._rate if self._rate else 0.0
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def _http2(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.grpc_port)
    writer.write(greeting())
    # Who does not acknowledge the server's settings may open few streams.
    await reader.readexactly(FRAME_HEAD_BYTES)
    writer.write(frame(SETTINGS, ACK, 0))
    target.counts["connections"] += 1
    return reader, writer


async def _again_and_again(target: Target, strike: Callable[[Target], Awaitable[None]]) -> None:
    """A server may throw the peer out; it comes back."""
    while not target.over:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(target.seconds_left + 1):
                await strike(target)


async def _listen(target: Target, reader: asyncio.StreamReader) -> None:
    """Read whatever comes, and note how it ends."""
    tail = b""
    with contextlib.suppress(OSError):
        while heard := await reader.read(1 << 16):
            tail = (tail + heard)[-512:]
    target.ends[goodbye(tail)] += 1


async def _pour(target: Target, batches: list[bytes], name: str) -> None:
    """Send batches on one connection, reading whatever comes."""
    reader, writer = await _http2(target)
    listening = asyncio.create_task(_listen(target, reader))
    try:
        for batch in batches:
            if target.over or listening.done() or writer.is_closing():
                break
            writer.write(batch)
            await writer.drain()
            await target.struck(name, target.batch)
    finally:
        if not target.over:
            # What the server had to say before it hung up.
            await asyncio.wait({listening}, timeout=0.05)
        listening.cancel()
        writer.transport.abort()


def _flood(target: Target, batches: list[bytes], name: str) -> Awaitable[None]:
    target.begin()
    return _again_and_again(target, lambda _: _pour(target, batches, name))


def _streams(target: Target, one: Callable[[int], bytes], strikes: int = _STRIKES) -> list[bytes]:
    """Batches of what is sent on stream after stream."""
    size = target.batch
    return [b"".join(one(2 * (first + i) + 1) for i in range(size)) for first in range(0, strikes, size)]


def _repeated(target: Target, strike: bytes) -> list[bytes]:
    """Batches of one and the same."""
    return [strike * target.batch] * (_STRIKES // target.batch)


def _resets(target: Target, method: str) -> Awaitable[None]:
    block, reset = call_headers(method), struct.pack("!I", 8)
    batches = _streams(target, lambda i: frame(HEADERS, END_HEADERS, i, block) + frame(RST, 0, i, reset))
    return _flood(target, batches, "streams reset")


async def rapid_reset(target: Target) -> None:
    """Streams that are opened and reset at once."""
    await _resets(target, "UploadFile")


async def cancel_reset(target: Target) -> None:
    """The same with cancels: they stand in the queue in which everybody's cancels stand."""
    await _resets(target, "CancelFile")


async def ping_flood(target: Target) -> None:
    """Pings that all want an answer."""
    await _flood(target, _repeated(target, frame(PING, 0, 0, b"8 bytes.")), "pings")


async def settings_flood(target: Target) -> None:
    """Settings that all want an answer."""
    await _flood(target, _repeated(target, frame(SETTINGS, 0, 0, struct.pack("!HI", 4, 65535))), "settings")


async def header_flood(target: Target) -> None:
    """A header block that never ends."""
    first, *others = _repeated(target, frame(CONTINUATION, 0, 1, header_block(("x-flood", "a" * 8000))))
    start = frame(HEADERS, 0, 1, call_headers("GetFile"))
    await _flood(target, [start + first, *others], "headers")


async def huge_metadata(target: Target) -> None:
    """Calls with 12 KiB of metadata each, and with 60."""
    blocks = [call_headers("GetFile", ("x-huge", "a" * size)) for size in (12_000, 60_000)]
    await _flood(target, _streams(target, lambda i: call_without_body(i, blocks[i // 2 % 2]), 1000), "huge calls")


async def deaf_watchers(target: Target) -> None:
    """Watches of everything, over gRPC and HTTP, that are never read."""
    target.begin()
    block = call_headers("WatchStatus")
    everything = b"\x00" + struct.pack("!I", 2) + b"\x20\x01"
    writers = []
    for connection in range(20):
        reader, writer = await _http2(target)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        for i in range(1, 40, 2):
            writer.write(frame(HEADERS, END_HEADERS, i, block) + frame(0, END_STREAM, i, everything))
            target.counts["watches"] += 1
        writers.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        accept = b"text/event-stream" if connection % 2 else b"application/x-ndjson"
        writer.write(b"GET /api/v1/watch?all=true HTTP/1.1\r\nHost: localhost\r\nAccept: " + accept + b"\r\n\r\n")
        target.counts["watches"] += 1
        writers.append(writer)
    await asyncio.sleep(target.seconds_left)
    for writer in writers:
        writer.transport.abort()


async def slow_drip(target: Target) -> None:
    """Requests whose heads come byte by byte, on 200 connections."""

    async def one(_target: Target) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        target.counts["connections"] += 1
        listening = asyncio.create_task(_listen(target, reader))
        try:
            for byte in b"GET /api/v1/files HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 10_000:
                if target.over or listening.done():
                    break
                writer.write(bytes([byte]))
                target.counts["bytes"] += 1
                await asyncio.sleep(0.05)
        finally:
            listening.cancel()
            writer.transport.abort()

    target.begin()
    await asyncio.gather(*(_again_and_again(target, one) for _ in range(200)))


async def half_open_sockets(target: Target) -> None:
    """More WebSockets than there may be, of which nothing is heard any more; and half of a handshake each."""
    target.begin()
    writers = []
    for i in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        whole = handshake(target.file_id)
        writer.write(whole if i % 2 else whole[:-10])
        target.counts["sockets"] += 1
        writers.append(writer)
    await asyncio.sleep(target.seconds_left)
    for writer in writers:
        writer.transport.abort()


async def lying_sockets(target: Target) -> None:
    """WebSockets whose frames are not what they say, ten at a time."""
    turn = 0

    async def strike(_target: Target) -> None:
        nonlocal turn
        reader, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        try:
            writer.write(handshake(target.file_id))
            async with asyncio.timeout(5):
                await reader.readuntil(b"\r\n\r\n")
            lie, turn = LIES[turn % len(LIES)], turn + 1
            writer.write(lie)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(-1)
            await target.struck("lies")
        finally:
            writer.transport.abort()

    target.begin()
    await asyncio.gather(*(_again_and_again(target, strike) for _ in range(10)))


async def garbage(target: Target) -> None:
    """Bytes that are nothing, to both ports."""
    noise = os.urandom(4000)

    async def strike(_target: Target) -> None:
        for port in (target.grpc_port, target.http_port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(noise)
            await writer.drain()
            writer.transport.abort()
            await target.struck("connections")

    target.begin()
    await _again_and_again(target, strike)


ATTACKS: dict[str, Callable[[Target], Awaitable[None]]] = {
    attack.__name__: attack
    for attack in (
        rapid_reset,
        cancel_reset,
        ping_flood,
        settings_flood,
        header_flood,
        huge_metadata,
        deaf_watchers,
        slow_drip,
        half_open_sockets,
        lying_sockets,
        garbage,
    )
}


async def _main(name: str, grpc_port: str, http_port: str, seconds: str, file_id: str = "", rate: str = "0") -> None:
    target = Target(int(grpc_port), int(http_port), float(seconds), file_id, float(rate))
    await ATTACKS[name](target)
    print(json.dumps({"struck": target.counts, "ends": target.ends}))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(*sys.argv[1:]))
