"""Decides how the body of one request gets into one file, and what is left of it when something comes between.

Must not know headers or answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Never

from upload_server.domain.caller import Caller
from upload_server.domain.errors import SizeExceeded
from upload_server.domain.states import File, Source
from upload_server.doors.http.asgi import Receive
from upload_server.doors.http.pump import Lend
from upload_server.doors.mailbox import Bytes, End, Mailbox, take_bytes
from upload_server.doors.tus.answers import chunk_mismatch
from upload_server.doors.tus.protocol import Checksum
from upload_server.ingest import Upload

CALLER: Final = Caller(Source.TUS)
# Of a body in one message, from which on its socket is borrowed.
_MUCH_BYTES: Final = 32 * 1024


class Complete(End):
    """The whole body came."""

    __slots__ = ()


class SenderGone(Exception):
    """The connection broke before the body was complete."""


def reader(receive: Receive) -> Callable[[], Awaitable[bytes | End]]:
    """Return how a mailbox reads the body: pieces of at most some hundred KiB, then how it ended."""
    more = True

    async def read() -> bytes | End:
        nonlocal more
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return End()
            more = message.get("more_body", False)
            if data := message.get("body", b""):
                return bytes(data)
            # A body made of nothing must not hold the loop.
            await asyncio.sleep(0)
        return Complete()

    return read


async def transfer(
    upload: Upload, body: Mailbox[Never], checksum: Checksum | None, offset: int, announced: int, lend: Lend | None
) -> File | None:
    """Write the whole body, which begins at ``offset``; returns the completed file if it held the last byte.

    ``announced`` is the body's length where it is known; ``lend`` lends the socket of a long one. What came is durable
    then, also when this raises: the upload's own errors, ``SenderGone``, ``UploadIdle``. Bytes that must have a
    checksum are taken whole or not at all: until it is known they are withheld.
    """
    if offset + announced > upload.file.size_bytes:
        raise SizeExceeded(upload.file.file_id, upload.received, upload.file.size_bytes)
    body.follow(upload)
    if checksum is not None:
        upload.withhold()
    end = await take_bytes(upload, body, write=_writer(upload, body, checksum, upload.received - offset, lend))
    if not isinstance(end, Complete):
        raise SenderGone
    if checksum is not None:
        if not checksum.matches:
            raise chunk_mismatch(upload.file.file_id, upload.durable)
        upload.release()
    if upload.received == upload.file.size_bytes:
        return await upload.commit("", CALLER)
    await upload.close()
    upload.ending.check()
    return None


def _writer(
    upload: Upload, body: Mailbox[Never], checksum: Checksum | None, overlap: int, lend: Lend | None
) -> Callable[[Bytes], Awaitable[None]]:
    """Return how the body's bytes are written: the first ``overlap`` of them are there already."""

    async def write(data: Bytes) -> None:
        nonlocal overlap
        if checksum is not None:
            await checksum.update(data)
        known = min(overlap, len(data))
        overlap -= known
        await upload.write(data[known:])
        # A sender that brings much at once has more on its way, which need not pass through the event loop.
        if lend is None or checksum is not None or overlap or len(data) < _MUCH_BYTES or not body.silent:
            return
        if (source := lend()) is not None:
            with source:
                await upload.write_from(source)

    return write
