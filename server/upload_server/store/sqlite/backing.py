"""Decides how a database file is copied while a server writes to it: all of it as it is at one moment.

Must not know what is in it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path


def copy_database(source: Path, target: Path) -> None:
    """Make ``target`` a copy, durable and for its owner alone; raises OSError and sqlite3.Error.

    The newest commits may be in the log beside the file: SQLite reads both, and a copy of the file would lack them.
    """
    target.unlink(missing_ok=True)
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reader,
            contextlib.closing(sqlite3.connect(target)) as writer,
        ):
            # In one step: a writer between two steps would have it begin anew, on a busy server for ever.
            reader.backup(writer)
            # Whoever only looks at it then leaves no logs beside it. The service sets its own mode at its start.
            writer.execute("PRAGMA journal_mode = DELETE")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
