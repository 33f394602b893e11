"""Decides how the SHA-256 of a file comes about when its first part is on disk and its last part is still coming.

Must not know about streams or states. Everything here blocks and runs on the ingest's threads, one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from upload_server.sink.protocol import Chunk, Sink

# Read at once; hashing lets other threads run meanwhile.
_READ_BYTES = 1024 * 1024


class Digest:
    """SHA-256 of the first ``position`` bytes of one file; never used by two threads at once."""

    def __init__(self, sink: Sink, file_id: str) -> None:
        self._sink = sink
        self._file_id = file_id
        self._hash = hashlib.sha256()
        self.position = 0

    def update(self, chunks: Sequence[Chunk]) -> None:
        """Add bytes from memory; they must follow ``position``."""
        for chunk in chunks:
            self._hash.update(chunk)
            self.position += len(chunk)

    def follow(self, end: int, stopped: Callable[[], bool]) -> None:
        """Add bytes from the sink up to ``end``, unless ``stopped`` says so in between; raises SinkError."""
        if self.position >= end:
            return
        for chunk in self._sink.read(self._file_id, end, _READ_BYTES, self.position):
            if stopped():
                return
            self.update([chunk])

    def hexdigest(self) -> str:
        """The digest of what was added so far."""
        return self._hash.hexdigest()
