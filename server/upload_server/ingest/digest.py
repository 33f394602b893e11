"""Decides how the SHA-256 of a file comes about beside its writing: of pieces just written, or of what lies on disk.

Must not know about streams or states. Everything here blocks and runs on the ingest's threads.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from upload_server.domain.runs import Run
from upload_server.sink.protocol import Chunk, Sink

# Read at once; hashing lets other threads run meanwhile.
_READ_BYTES = 1024 * 1024


@dataclass(slots=True)
class Piece:
    """Messages that are written at once, ``size`` bytes together. ``cost`` is what they take of the memory."""

    chunks: list[Chunk]
    size: int = 0
    cost: int = 0
    # Where it lies in the file, once it is written.
    start: int = 0


class Digest:
    """SHA-256 of the first ``position`` bytes of one file, of which ``end`` are written.

    One thread adds what it has written while another one goes on with the hash: a piece belongs to whoever took it out
    of the queue, so no state needs a lock.
    """

    def __init__(
        self,
        sink: Sink,
        file_id: str,
        runs: Sequence[Run],
        end: int,
        most_kept: int,
        give_back: Callable[[Chunk], None] = lambda _: None,
        readable: Callable[[], int] | None = None,
    ) -> None:
        """A piece is read back from the sink when more than ``most_kept`` bytes in front of it are not hashed yet.

        ``give_back`` gets each chunk that is needed no longer. ``readable`` tells how far the file can be read back by
        now, where that is less than what is written.
        """
        self.position = 0
        self.end = end
        self._sink = sink
        self._file_id = file_id
        self._runs = runs
        self._most_kept = most_kept
        self._give_back = give_back
        self._readable = readable or (lambda: self.end)
        self._hash = hashlib.sha256()
        # Written, and kept to be hashed; what lies between `position` and the first of them is on disk only.
        self._kept: deque[Piece] = deque()
        # Cost of the pieces that are hashed, and of those that were not kept; each is counted by one thread.
        self._hashed = 0
        self._dropped = 0

    @property
    def lag(self) -> int:
        """Bytes that are written and not hashed."""
        return self.end - self.position

    @property
    def reads_back(self) -> bool:
        """Whether the next bytes to hash are in memory no longer."""
        try:
            return self.position < self._kept[0].start
        except IndexError:
            # Another thread may just have taken the last one.
            return self.position < self.end

    @property
    def can_go_on(self) -> bool:
        """Whether there is something to hash that is in memory, or can be read back by now."""
        return self.lag > 0 and (bool(self._kept) or self.position < self._readable())

    @property
    def released(self) -> int:
        """Cost of all pieces that were added and are in memory no longer."""
        return self._hashed + self._dropped

    def add(self, piece: Piece) -> None:
        """Take a piece that was written behind all others."""
        piece.start = self.end
        self._kept.append(piece)
        if piece.start + piece.size - self.position > self._most_kept:
            while (kept := self._next()) is not None:
                self._let_go(kept)
                self._dropped += kept.cost
        self.end += piece.size

    def go_on(self, most: int, stopped: Callable[[], bool]) -> None:
        """Hash about ``most`` of the bytes that are written, unless ``stopped`` in between; raises SinkError."""
        enough = self.position + most
        while self.position < min(self.end, enough) and not stopped():
            # Before the look into the queue: what is added after it is not read back too.
            end = self.end
            piece = self._next()
            if piece is None:
                before = self.position
                self._read_back(min(end, enough), stopped)
                if self.position == before:
                    return
                continue
            self._read_back(piece.start, stopped)
            if self.position == piece.start:
                for chunk in piece.chunks:
                    self._hash.update(chunk)
                self.position += piece.size
            self._let_go(piece)
            self._hashed += piece.cost

    def hexdigest(self) -> str:
        """The digest of what was hashed so far."""
        return self._hash.hexdigest()

    def _let_go(self, piece: Piece) -> None:
        for chunk in piece.chunks:
            self._give_back(chunk)

    def _next(self) -> Piece | None:
        try:
            return self._kept.popleft()
        except IndexError:
            return None

    def _read_back(self, end: int, stopped: Callable[[], bool]) -> None:
        end = min(end, self._readable())
        if self.position >= end:
            return
        for data in self._sink.read(self._file_id, self._runs, end, _READ_BYTES, self.position):
            if stopped():
                return
            self._hash.update(data)
            self.position += len(data)
