"""Decides what happens to the bytes of one file on their way in: claim, check, hash, store, stop when cancelled.

Must not know through which door they come. One ingest, many doors.
"""

from __future__ import annotations

from upload_server.domain import Caller, File
from upload_server.errors import Stopped


class StopSignal:
    """A level, not an edge: once set it stays set and says why. The first cause wins."""

    def set(self, cause: Stopped) -> None:
        """Set the signal with its cause; later causes are ignored."""
        raise NotImplementedError

    @property
    def cause(self) -> Stopped | None:
        """Why the stream has to stop, or None."""
        raise NotImplementedError

    async def wait(self) -> Stopped:
        """Wait until it is set."""
        raise NotImplementedError


class Upload:
    """One open stream of bytes into one file; made by ``Ingest.open``, closed by ``close``."""

    file: File
    stop: StopSignal

    @property
    def durable(self) -> int:
        """Bytes that are synced and recorded in the row; never shrinks."""
        raise NotImplementedError

    async def wait_durable(self, above: int) -> int:
        """Wait until ``durable`` is greater than ``above`` and return it."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        """Take the next bytes; awaits while too much is buffered (back-pressure). Raises the stop signal's cause,
        ``SizeExceeded`` (dropped whole) or ``StorageFailure``."""
        raise NotImplementedError

    async def commit(self, sha256: str, caller: Caller) -> File:
        """Complete the file. Raises ``UploadIncomplete``, ``ChecksumMismatch``, the stop signal's cause, ..."""
        raise NotImplementedError

    async def close(self) -> None:
        """Sync and record what came (unless stopped), release the file. Safe to call twice."""
        raise NotImplementedError


class Ingest:
    """Opens uploads, and knows those that are open on this node."""

    async def open(self, file_id: str, offset: int, caller: Caller) -> Upload:
        """Claim a file and open it for writing at ``offset``; an older stream on it is replaced."""
        raise NotImplementedError

    def stop_file(self, file: File) -> None:
        """Tell the open stream of a cancelled file, if any."""
        raise NotImplementedError
