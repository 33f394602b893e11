"""Attacks on the gRPC port that are made of HTTP/2 frames: floods, and calls that are never whole or never read."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterable

from robustness.faults.attacks.messages import fill
from robustness.faults.attacks.target import Line, Target, again_and_again, hold, pour
from robustness.faults.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEAD_BYTES,
    HEADERS,
    PING,
    RST,
    SETTINGS,
    WINDOW_UPDATE,
    call_headers,
    call_without_body,
    frame,
    greeting,
    header_block,
    message,
)
from upload.v1 import upload_pb2 as pb

# Strikes on one connection; the peer comes back then.
_STRIKES = 50_000
_RESET = struct.pack("!I", 8)
# Streams that one connection may have open.
_STREAMS = 1_990
# A message of the largest size, and what HTTP/2 lets a peer send before it hears of more.
_LARGEST = 8 * 2**20 - 100
_WINDOW = 65_535
_MOST_IN_A_FRAME = 16_384


async def _http2(target: Target, *settings: tuple[int, int]) -> Line:
    reader, writer = await target.grpc()
    writer.write(greeting() + frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", *each) for each in settings)))
    # Who does not acknowledge the server's settings may open few streams.
    head = await reader.readexactly(FRAME_HEAD_BYTES)
    await reader.readexactly(int.from_bytes(head[:3], "big"))
    writer.write(frame(SETTINGS, ACK, 0))
    return reader, writer


def _flood(target: Target, batches: list[bytes], name: str) -> Awaitable[None]:
    async def strike(_target: Target) -> None:
        await pour(target, await _http2(target), batches, name, target.batch)

    target.begin()
    return again_and_again(target, strike)


def _streams(target: Target, one: Callable[[int], bytes], strikes: int = _STRIKES) -> list[bytes]:
    """Batches of what is sent on stream after stream."""
    size = target.batch
    return [b"".join(one(2 * (first + i) + 1) for i in range(size)) for first in range(0, strikes, size)]


def _repeated(target: Target, strike: bytes) -> list[bytes]:
    """Batches of one and the same."""
    return [strike * target.batch] * (_STRIKES // target.batch)


def _resets(target: Target, method: str) -> Awaitable[None]:
    block = call_headers(method)
    batches = _streams(target, lambda i: frame(HEADERS, END_HEADERS, i, block) + frame(RST, 0, i, _RESET))
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
    block, ask = call_headers("WatchStatus"), message(pb.WatchStatusRequest(all=True).SerializeToString())
    calls = b"".join(frame(HEADERS, END_HEADERS, i, block) + frame(DATA, END_STREAM, i, ask) for i in range(1, 40, 2))

    async def deaf(line: Line, request: bytes, watches: int) -> asyncio.StreamWriter:
        reader, writer = line
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(request)
        target.counts["watches"] += watches
        return writer

    target.begin()
    opened = []
    for accept in ("text/event-stream", "application/x-ndjson") * 10:
        opened.append(deaf(await _http2(target), calls, 20))
        request = f"GET /api/v1/watch?all=true HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"
        opened.append(deaf(await target.http(), request.encode(), 1))
    await hold(target, opened)


async def calls_without_message(target: Target) -> None:
    """Unary calls that end before their message, on one connection: as many as it may have open."""
    block = call_headers("CancelFile")
    batches = _streams(target, lambda i: call_without_body(i, block), _STREAMS)

    async def one() -> asyncio.StreamWriter:
        _, writer = await _http2(target)
        for batch in batches:
            writer.write(batch)
            await target.struck("calls", target.batch)
        return writer

    target.begin()
    await hold(target, [one()])


async def unread_answers(target: Target) -> None:
    """Calls for large answers, of which the peer takes nothing: its windows stay shut."""
    await fill(target)
    block, ask = call_headers("ListFiles"), message(pb.ListFilesRequest(page_size=1000).SerializeToString())
    batches = _streams(
        target, lambda i: frame(HEADERS, END_HEADERS, i, block) + frame(DATA, END_STREAM, i, ask), _STREAMS
    )

    async def one() -> asyncio.StreamWriter:
        # SETTINGS_INITIAL_WINDOW_SIZE 0: nothing of an answer may be sent.
        _, writer = await _http2(target, (4, 0))
        for batch in batches:
            if target.over:
                break
            writer.write(batch)
            await target.struck("calls", target.batch)
        return writer

    target.begin()
    await hold(target, [one()])


class _Windows:
    """What a server lets a peer send: on the connection (0) and on each stream, by its window updates."""

    def __init__(self, streams: Iterable[int]) -> None:
        self.left = dict.fromkeys((0, *streams), _WINDOW)
        self._heard = b""

    def hear(self, heard: bytes) -> None:
        """Take what the server has sent."""
        self._heard += heard
        while len(self._heard) >= FRAME_HEAD_BYTES + (length := int.from_bytes(self._heard[:3], "big")):
            kind, stream = self._heard[3], int.from_bytes(self._heard[5:9], "big")
            if kind == WINDOW_UPDATE and stream in self.left:
                self.left[stream] += int.from_bytes(self._heard[9:13], "big")
            self._heard = self._heard[FRAME_HEAD_BYTES + length :]

    def take(self, stream: int, wanted: int) -> int:
        """Return how much of that may be sent now on a stream."""
        room = max(0, min(self.left[0], self.left[stream], wanted))
        self.left[0] -= room
        self.left[stream] -= room
        return room


async def unfinished_messages(target: Target) -> None:
    """Calls whose messages of 8 MiB lack the last byte: six on each of twenty connections."""
    block, body = call_headers("InitiateBatch"), message(bytes(_LARGEST))[:-1]

    async def one() -> asyncio.StreamWriter:
        reader, writer = await _http2(target)
        sent = {2 * i + 1: 0 for i in range(6)}
        windows = _Windows(sent)
        writer.write(b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in sent))
        target.counts["calls"] += len(sent)
        while not target.over and min(sent.values()) < len(body):
            for stream, at in sent.items():
                if room := windows.take(stream, min(_MOST_IN_A_FRAME, len(body) - at)):
                    writer.write(frame(DATA, 0, stream, body[at : at + room]))
                    sent[stream] += room
                    target.counts["bytes"] += room
            async with asyncio.timeout(target.seconds_left + 0.1):
                if not (heard := await reader.read(1 << 16)):
                    break
            windows.hear(heard)
        return writer

    target.begin()
    await again_and_again(target, lambda _: hold(target, [one() for _ in range(20)]))
