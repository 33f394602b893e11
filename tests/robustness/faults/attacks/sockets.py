"""Attacks on WebSockets: handshakes by halves, frames that lie, frames without number."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from robustness.faults.attacks.target import Line, Target, again_and_again, hold, pour
from robustness.faults.frames import LIES, handshake

_MASK = b"\0\0\0\0"
_EMPTY_PING = b"\x89\x80" + _MASK
# The first fragment of a message without a byte, one that goes on, and a whole message of one byte.
_FIRST, _NEXT, _WHOLE = b"\x02\x80" + _MASK, b"\x00\x80" + _MASK, b"\x82\x81" + _MASK + b"x"


async def half_open_sockets(target: Target) -> None:
    """More WebSockets than there may be, of which nothing is heard any more; and half of a handshake each."""

    async def one(whole: int) -> asyncio.StreamWriter:
        _, writer = await target.http()
        request = handshake(target.file_id)
        writer.write(request if whole else request[:-10])
        target.counts["sockets"] += 1
        return writer

    target.begin()
    await hold(target, [one(i % 2) for i in range(200)])


async def _opened(target: Target) -> Line:
    reader, writer = await target.http()
    writer.write(handshake(target.file_id))
    async with asyncio.timeout(5):
        await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def lying_sockets(target: Target) -> None:
    """WebSockets whose frames are not what they say, ten at a time."""
    lies = itertools.cycle(LIES)

    async def strike(_target: Target) -> None:
        reader, writer = await _opened(target)
        try:
            writer.write(next(lies))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await reader.read(-1)
            await target.struck("lies")
        finally:
            writer.transport.abort()

    target.begin()
    await asyncio.gather(*(again_and_again(target, strike) for _ in range(10)))


async def _frames(target: Target, first: bytes, more: bytes) -> None:
    """One socket after the other, each sending frames as long as it may; 100 a strike."""

    async def strike(_target: Target) -> None:
        batches = itertools.chain([first], itertools.repeat(more * 100 * target.batch))
        await pour(target, await _opened(target), batches, "hundred frames", target.batch)

    target.begin()
    await again_and_again(target, strike)


async def socket_pings(target: Target) -> None:
    """Pings that all want an answer."""
    await _frames(target, b"", _EMPTY_PING)


async def empty_fragments(target: Target) -> None:
    """One message of fragments without a byte."""
    await _frames(target, _FIRST, _NEXT)


async def tiny_messages(target: Target) -> None:
    """Messages of a byte."""
    await _frames(target, b"", _WHOLE)
