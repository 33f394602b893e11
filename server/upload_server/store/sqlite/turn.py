"""Decides in which order processes write to one database file: each waits for its turn, and none comes twice before it.

Must not know what is written. SQLite's own lock keeps them apart; but who waits for it sleeps, up to a tenth of a
second, while others come and go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Final

from upload_server.process.files import open_own

# Bytes of the lock file. Who comes next holds the first while it waits for the second: so one that has just written
# stands behind it.
_NEXT, _NOW = range(2)
_FORM: Final = "hhqqi"


class Turn:
    """The turn of this process, within ``with``; used by one thread at a time."""

    def __init__(self, lock_file: Path) -> None:
        """Open the file by which processes take turns; raises OSError."""
        self._descriptor = open_own(lock_file, os.O_RDWR)

    def __enter__(self) -> None:
        """Wait for it; where the system keeps no such lock SQLite's own is what there is."""
        self._set(fcntl.F_WRLCK, _NEXT)
        self._set(fcntl.F_WRLCK, _NOW)
        self._set(fcntl.F_UNLCK, _NEXT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let the next one in."""
        self._set(fcntl.F_UNLCK, _NOW)

    def _set(self, kind: int, place: int) -> None:
        # Of this opening of the file: what else the process does with it takes nothing away.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLKW, struct.pack(_FORM, kind, os.SEEK_SET, place, 1, 0))

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
