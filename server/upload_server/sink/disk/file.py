"""Decides how a run is appended to, and what an error of the disk means.

Must not know in which folder a run lies, nor what is stored beside it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from upload_server.process.room import Room
from upload_server.sink.disk.shards import opened
from upload_server.sink.protocol import BytesMissing, BytesThere, Chunk, NoRoom, SinkError

# The kernel takes at most IOV_MAX (1,024 on Linux) pieces a call.
_MAX_PIECES = 1024


class _AsSinkErrors:
    """Inside the block an OSError becomes an error of the sink."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise what the OSError means."""
        if isinstance(error, OSError):
            raise meaning_of(error) from error


as_sink_errors = _AsSinkErrors()


def meaning_of(error: OSError) -> SinkError:
    """Return the error of the sink that an error of the disk is."""
    text = error.strerror or repr(error)
    if error.filename is not None:
        text = f"{text}: {error.filename}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(text)
    if isinstance(error, FileExistsError):
        return BytesThere(text)
    return BytesMissing(text) if isinstance(error, FileNotFoundError) else SinkError(text)


class DiskFile:
    """A run, open for appending."""

    def __init__(self, descriptor: int, offset: int, room: Room, start: int = 0, path: Path | None = None) -> None:
        self._descriptor = descriptor
        self._room = room
        # Where the run begins, and its file.
        self._start = start
        self._path = path
        self._device = os.fstat(descriptor).st_dev
        # Where what was appended ends.
        self._end = offset
        self._lost: SinkError | None = None

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write all of ``chunks`` at the end; after a SinkError a part of them may have been written.

        ``NoRoom`` comes before the disk is full to its last byte, see ``DiskSink.room``.
        """
        left = [memoryview(chunk) for chunk in chunks if chunk]
        size = sum(map(len, left))
        with as_sink_errors:
            if not self._room.claim(self._descriptor, self._device, size):
                raise NoRoom("what is left of the disk is kept for cancels")
            first = 0
            while first < len(left):
                written = os.writev(self._descriptor, left[first : first + _MAX_PIECES])
                while first < len(left) and written >= len(left[first]):
                    written -= len(left[first])
                    first += 1
                if written:  # a short write ended inside this piece
                    left[first] = left[first][written:]
        self._end += size

    def sync(self, upto: int | None = None) -> int:  # noqa: ARG002 - the kernel knows no such bound
        """Make everything appended survive power loss; returns where it ends. After an error give the file up."""
        if self._lost is not None:
            raise self._lost
        # Before the call: what another thread appends meanwhile may come too late for it.
        end = self._end
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # The kernel may have marked the lost pages clean: a second sync would succeed without them.
            self._lost = meaning_of(error)
            raise self._lost from error
        return end

    def discard(self, end: int) -> None:
        """Cut off what lies behind ``end``; a run of which nothing is left goes."""
        with as_sink_errors:
            if end > self._start:
                os.ftruncate(self._descriptor, end)
            elif self._path is not None:
                with contextlib.suppress(FileNotFoundError), opened(self._path.parent) as folder:
                    os.unlink(self._path.name, dir_fd=folder)

    def close(self) -> None:
        """Close without syncing. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                raise meaning_of(error) from error


def cut(descriptor: int, name: str, start: int, offset: int) -> None:
    """Have the next byte of a run written at ``offset``; what lies behind is cut off."""
    found = os.fstat(descriptor).st_size
    if found < offset > start:
        raise BytesMissing(f"{name} ends at {found} where {offset} bytes were durable")
    # Need not be synced: after power loss the next opening cuts again, and no row ever counts what lies beyond.
    os.ftruncate(descriptor, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
