"""Attacks on the HTTP port: requests that come slowly, never end, or are not what they say."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterable

from robustness.faults.attacks.target import Target, again_and_again, hold, listen, pour

_KIB = 1024
_ASK = b"POST %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n\r\n"


async def slow_drip(target: Target) -> None:
    """Requests whose heads come byte by byte, on 200 connections."""
    head = b"GET /api/v1/files HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 10_000
    await _drip(target, b"", head, 0.05)


async def slow_rests(target: Target) -> None:
    """Requests that were answered, and whose bodies go on byte by byte, on 200 connections."""
    start = _ASK.replace(b"POST", b"GET") % (b"/healthz", b"Content-Length: 100000")
    await _drip(target, start, b"a" * 10_000, 0.5)


async def _drip(target: Target, start: bytes, rest: bytes, seconds: float) -> None:
    async def one(_target: Target) -> None:
        reader, writer = await target.http()
        listening = asyncio.create_task(listen(target, reader))
        try:
            writer.write(start)
            for byte in rest:
                if target.over or listening.done():
                    break
                writer.write(bytes([byte]))
                target.counts["bytes"] += 1
                await asyncio.sleep(seconds)
        finally:
            listening.cancel()
            writer.transport.abort()

    target.begin()
    await asyncio.gather(*(again_and_again(target, one) for _ in range(200)))


async def _endless(target: Target, start: bytes, batches: Iterable[bytes], name: str, times: int) -> None:
    async def strike(_target: Target) -> None:
        await pour(target, await target.http(), itertools.chain([start], batches), name, times)

    target.begin()
    await again_and_again(target, strike)


async def trailers(target: Target) -> None:
    """Trailers without end, a KiB a strike."""
    start = _ASK % (b"/api/v1/upload/cancel/none", b"Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n"
    await _endless(target, start, itertools.repeat(b"a1: bc\r\n" * 128 * target.batch), "KiB", target.batch)


async def tiny_chunks(target: Target) -> None:
    """A body that comes in chunks of a byte, a KiB a strike."""
    start = _ASK % (b"/api/v1/upload/initiate", b"Transfer-Encoding: chunked")
    await _endless(target, start, itertools.repeat(b"1\r\nx\r\n" * 170 * target.batch), "KiB", target.batch)


async def unfinished_bodies(target: Target) -> None:
    """Forty bodies of 8 MiB that lack the last byte."""
    length = 8 * _KIB * _KIB - 10
    start = _ASK % (b"/api/v1/batch/initiate", b"Content-Type: application/json\r\nContent-Length: %d" % length)

    async def one() -> asyncio.StreamWriter:
        _, writer = await target.http()
        writer.write(start)
        piece = b" " * (64 * _KIB)
        for left in range(length - 1, 0, -len(piece)):
            if target.over or writer.is_closing():
                break
            writer.write(piece[:left])
            target.counts["KiB"] += len(piece) // _KIB
            # Who is not read from waits here, and is cut by the end of the time.
            await asyncio.wait({asyncio.create_task(writer.drain())}, timeout=target.seconds_left)
        return writer

    target.begin()
    await again_and_again(target, lambda _: hold(target, [one() for _ in range(40)]))


async def garbage(target: Target) -> None:
    """Bytes that are nothing, to both ports."""
    noise = os.urandom(4000)

    async def strike(_target: Target) -> None:
        for connect in (target.grpc, target.http):
            _, writer = await connect()
            writer.write(noise)
            await writer.drain()
            writer.transport.abort()
            await target.struck("garbage")

    target.begin()
    await again_and_again(target, strike)
