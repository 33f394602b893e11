"""Decides where the bytes of an upload come from, and that they are the announced bytes.

Must not know how bytes are sent. A source is read at an offset, so that an upload can go back to the durable offset.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from upload.errors import SourceChanged, SourceNotReplayable
from upload.transport import Transport

Content: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | Iterable[bytes] | AsyncIterable[bytes]
"""What can be uploaded: a path, bytes, or an iterator of bytes."""

# One hop to a worker thread reads and hashes this much: four messages.
BLOCK_BYTES = 1024 * 1024
# Hashed without a hop, which takes longer.
_HASHED_HERE_BYTES = 64 * 1024
# The server makes bytes durable every 8 MiB or every second; the client keeps the others, to send them again.
REPLAY_BYTES = 64 * 1024 * 1024


class Source(Protocol):
    """Bytes at offsets, ``size`` of them."""

    size: int

    async def read_at(self, offset: int) -> bytes:
        """Return some bytes at ``offset``, empty only at the end."""

    def forget(self, offset: int) -> None:
        """Drop bytes below ``offset``, if the source keeps any."""

    async def verify(self) -> None:
        """Raise ``SourceChanged`` when the source has changed since it was opened."""

    async def close(self) -> None:
        """Release it."""


class FileSource:
    """A file on disk; its size and time of change must stay what they were."""

    def __init__(self, path: Path, file: BinaryIO, transport: Transport) -> None:
        self._path = path
        self._file = file
        self._run = transport.run
        self._seen = _identity(file)
        self.size = self._seen[0]

    async def read_at(self, offset: int) -> bytes:
        """Read up to a block."""
        return await self._run(self._read, offset)

    def _read(self, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(BLOCK_BYTES)

    def forget(self, offset: int) -> None:
        """A file can always be read again."""

    async def verify(self) -> None:
        """Compare size and time of change with those at the start, and see that nothing lies behind the size."""
        await self._run(self._verify)

    def _verify(self) -> None:
        if _identity(self._file) != self._seen:
            raise SourceChanged(f"{self._path} changed while it was uploaded")
        # Files of /proc and of some mounts say 0 and have more.
        if self._read(self.size):
            raise SourceChanged(f"{self._path} does not say its size: it has more than {self.size} bytes")

    async def close(self) -> None:
        """Close the file."""
        self._file.close()


def _identity(file: BinaryIO) -> tuple[int, int]:
    facts = os.fstat(file.fileno())
    return facts.st_size, facts.st_mtime_ns


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data).cast("B")
        self.size = len(self._view)

    async def read_at(self, offset: int) -> bytes:
        """Copy up to a block."""
        return bytes(self._view[offset : offset + BLOCK_BYTES])

    def forget(self, offset: int) -> None:
        """Memory can always be read again."""

    async def verify(self) -> None:
        """Nothing to compare: its size is what it was."""

    async def close(self) -> None:
        """Nothing to close."""


class IteratorSource:
    """The bytes of an iterator, which gives them once: keeps undurable bytes, at most ``REPLAY_BYTES``."""

    def __init__(self, items: Iterator[bytes] | AsyncIterator[bytes], size: int, transport: Transport) -> None:
        self._items = items
        self._run = transport.run
        self.size = size
        self._kept: deque[tuple[int, bytes]] = deque()
        self._kept_bytes = 0
        self._pulled = 0

    async def read_at(self, offset: int) -> bytes:
        """Give kept bytes again, or pull until there are new ones."""
        while offset >= self._pulled:
            if not await self._pull():
                return b""
        # From the right: mostly the sender asks for the newest bytes.
        for start, data in reversed(self._kept):
            if start <= offset < start + len(data):
                return data[offset - start :]
        raise SourceNotReplayable(f"The iterator cannot give the bytes from {offset} on once more")

    async def _pull(self) -> bool:
        if isinstance(self._items, AsyncIterator):
            item = await anext(self._items, None)
        else:
            item = await self._run(_next, self._items)
        if item is None:
            return False
        if item:
            data = bytes(item)
            self._kept.append((self._pulled, data))
            self._kept_bytes += len(data)
            self._pulled += len(data)
            while self._kept_bytes > REPLAY_BYTES and len(self._kept) > 1:
                self._kept_bytes -= len(self._kept.popleft()[1])
        return True

    def forget(self, offset: int) -> None:
        """Drop durable bytes."""
        while self._kept and self._kept[0][0] + len(self._kept[0][1]) <= offset:
            self._kept_bytes -= len(self._kept.popleft()[1])

    async def verify(self) -> None:
        """See that the iterator has nothing left."""
        while self._pulled <= self.size:
            if not await self._pull():
                return
        raise SourceChanged(f"The iterator gives more than the {self.size} bytes that were announced")

    async def close(self) -> None:
        """Drop the kept bytes; the iterator's owner closes the iterator."""
        self._kept.clear()


def _next(items: Iterator[bytes]) -> bytes | None:
    return next(items, None)


class Feed:
    """Blocks of a source at offsets, hashed once each on the way, whoever reads them.

    A stale stream and its successor may read at the same time: the lock keeps one read, and one step of the
    hash, whole.
    """

    def __init__(self, source: Source, transport: Transport, *, checksum: bool) -> None:
        self._source = source
        self._run = transport.run
        self._lock = transport.lock()
        self._digest = hashlib.sha256() if checksum else None
        self._hashed = 0
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._source.size

    async def block(self, offset: int) -> bytes:
        """Return the next bytes at ``offset``; raises ``SourceChanged`` when the source ends too early."""
        async with self._reading():
            return await self._block(offset)

    async def skip_to(self, offset: int) -> None:
        """Hash (and, of an iterator, skip) the bytes that the server has already."""
        if self._digest is None and not isinstance(self._source, IteratorSource):
            return
        async with self._reading():
            while self._hashed < offset:
                await self._block(self._hashed)
                self._source.forget(min(self._hashed, offset))

    async def finish(self) -> str:
        """Return the SHA-256 of all bytes in hex, or nothing without ``checksum``; raises ``SourceChanged``."""
        async with self._reading():
            await self._source.verify()
            return self._digest.hexdigest() if self._digest else ""

    def forget(self, offset: int) -> None:
        """Say that the bytes below ``offset`` are durable."""
        self._source.forget(offset)

    async def close(self) -> None:
        """Let go of the source, without waiting for a read.

        A pipe or a camera may block for minutes, and its sender must hear of a cancel before that: a read that is under
        way then lets go of the source when it ends.
        """
        self._closed = True
        if not self._lock.locked():
            async with self._lock:
                await self._source.close()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        async with self._lock:
            if self._closed:
                raise SourceChanged("The source is closed")
            try:
                yield
            finally:
                await self._close_if_asked()

    async def _close_if_asked(self) -> None:
        if self._closed:
            await self._source.close()

    async def _block(self, offset: int) -> bytes:
        data = await self._source.read_at(offset)
        if not data:
            raise SourceChanged(f"The source ended after {offset} of {self.size} bytes")
        data = data[: self.size - offset]
        fresh = self._hashed - offset
        if 0 <= fresh < len(data):
            self._hashed += len(data) - fresh
            if self._digest is not None and len(data) > _HASHED_HERE_BYTES:
                await self._run(self._digest.update, data[fresh:])
            elif self._digest is not None:
                self._digest.update(data[fresh:])
        return data


async def open_source(content: Content, size_bytes: int | None, transport: Transport) -> Source:
    """Open the source of an upload; raises ``OSError`` for a path that fails.

    ``size_bytes`` is needed for an iterator and, when given, must be right for the others.
    """
    source: Source
    match content:
        case str() | os.PathLike():
            path = Path(content)
            source = FileSource(path, await transport.run(path.open, "rb"), transport)
        case bytes() | bytearray() | memoryview():
            source = BytesSource(content)
        case AsyncIterable() | Iterable():
            if size_bytes is None:
                raise TypeError("size_bytes must be given to upload from an iterator")
            items = aiter(content) if isinstance(content, AsyncIterable) else iter(content)
            source = IteratorSource(items, size_bytes, transport)
        case _:
            raise TypeError(f"Cannot upload a {type(content).__name__}: give a path, bytes or an iterator")
    if size_bytes is not None and size_bytes != source.size:
        await source.close()
        raise SourceChanged(f"The source has {source.size} bytes, not the {size_bytes} that were announced")
    return source
