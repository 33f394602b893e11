"""Decides which piece the bytes of a stream go into: kept in memory until a sync puts them.

Must not know who else has written to the file: names carry the stream's fence.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from upload_server.sink.protocol import Chunk, SinkError
from upload_server.sink.s3.client import Bucket
from upload_server.sink.s3.names import Piece, next_border, part_bytes

# More than one sync puts.
_REMEMBERED = 64


class S3File:
    """The bytes of one file, open for appending. One thread appends, another may sync meanwhile."""

    def __init__(self, bucket: Bucket, file_id: str, fence: int, size_bytes: int, offset: int) -> None:
        self._bucket = bucket
        self._file_id = file_id
        self._fence = fence
        self._part = part_bytes(size_bytes)
        self._lock = threading.Lock()
        # Not put yet: pieces in order, of which the last still grows.
        self._waiting: deque[bytearray] = deque()
        # Where what was put ends, and what was appended.
        self._put = self._end = offset
        # Of those only the newest: older ones are recorded, and a file of a TiB has a hundred thousand.
        self._pieces: deque[Piece] = deque(maxlen=_REMEMBERED)
        self._lost: SinkError | None = None

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Keep ``chunks``, whose bytes are copied: whoever sent them may let go of them."""
        with self._lock:
            for chunk in chunks:
                left = memoryview(chunk)
                while left:
                    left = left[self._grow(left) :]

    def _grow(self, data: memoryview) -> int:
        """Add to the last piece what still belongs there; returns how many bytes."""
        start = self._end - len(self._waiting[-1]) if self._waiting else self._end
        border = next_border(start, self._part)
        if self._end == border or not self._waiting:
            self._waiting.append(bytearray())
            border = next_border(self._end, self._part)
        taken = min(len(data), border - self._end)
        self._waiting[-1] += data[:taken]
        self._end += taken
        return taken

    def sync(self, upto: int | None = None) -> int:
        """Put what was appended, piece by piece, at least up to ``upto``; returns where the durable bytes end.

        After an error give the file up.
        """
        with self._lock:
            wanted = self._end if upto is None else min(upto, self._end)
        while self._put < wanted:
            if self._lost is not None:
                raise self._lost
            if (data := self._oldest()) is None:
                break
            self._put_piece(data)
        return self._put

    def _oldest(self) -> bytearray | None:
        """Take out the oldest piece that waits; nothing is added to it any more: another begins behind it."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def _put_piece(self, data: bytearray) -> None:
        piece = Piece(self._file_id, self._fence, self._put, self._put + len(data))
        try:
            # One that is there is ours: nobody else has this fence, and the answer of an earlier try was lost.
            self._bucket.put_new(piece.key, data)
        except SinkError as error:
            self._lost = error
            raise
        self._pieces.append(piece)
        self._put = piece.end

    def discard(self, end: int) -> None:
        """Delete the pieces that begin behind ``end``: they came after the file was cancelled or taken over, and no row
        counts them."""
        self._bucket.delete([piece.key for piece in self._pieces if piece.start >= end])

    def close(self) -> None:
        """Give up what was not put. Safe to call twice."""
        with self._lock:
            self._waiting.clear()
