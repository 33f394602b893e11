"""Decides how a connection to the database file is opened, and what its errors mean.

Must not know what is read or written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import peewee

from upload_server.store.options import StoreOptions
from upload_server.store.sql.connection import Connection
from upload_server.store.sqlite.dialect import SQLITE

_KIB = 1024


class SqliteConnection(Connection):
    """One connection to a database file."""

    dialect = SQLITE
    errors = (peewee.PeeweeException, sqlite3.Error)

    def execute_all(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """Run a statement once with each row's values; returns how many rows it changed."""
        raw: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
        return raw.executemany(sql, rows).rowcount

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; SQLite ends one by itself after some errors."""
        raw: sqlite3.Connection = self.database.connection()  # type: ignore[no-untyped-call]
        return raw.in_transaction

    def lost_by(self, error: BaseException) -> bool:
        """Whether it cannot write at all: SQLite opens a file for reading that it fails to open for writing."""
        code = error_code(error)
        return code is not None and code & 0xFF == sqlite3.SQLITE_READONLY

    def surely_not_committed(self, error: BaseException) -> bool:
        """Tell it by SQLite's code."""
        code = error_code(error)
        return code is not None and code & 0xFF in _NOT_COMMITTED


def connect(path: Path, options: StoreOptions, *, writes: bool) -> SqliteConnection:
    """Open an existing database file."""
    pragmas: dict[str, int | str] = {
        "journal_mode": "wal",
        # NORMAL may lose commits that were answered when power fails.
        "synchronous": "full",
        "journal_size_limit": options.wal_size_limit_bytes,
        "temp_store": "memory",
        "cache_size": -16 * _KIB,
    }
    if not writes:
        pragmas["query_only"] = 1
    database = peewee.SqliteDatabase(
        # Never creates: a file that was removed must not come back empty.
        f"{path.absolute().as_uri()}?mode=rw",
        pragmas=pragmas,
        timeout=options.busy_timeout_seconds,
        thread_safe=False,
        autoconnect=False,
        uri=True,
        check_same_thread=False,
    )
    database.connect()
    return SqliteConnection(database)


def error_code(error: BaseException) -> int | None:
    """Return SQLite's extended result code, None when the error did not come from SQLite."""
    seen: BaseException | None = error
    while seen is not None:
        code = getattr(seen, "sqlite_errorcode", None)
        if isinstance(code, int):
            return code
        seen = getattr(seen, "orig", None) or seen.__cause__ or seen.__context__
    return None


# After these a failed COMMIT has certainly committed nothing; after others (an I/O error) it may have.
_NOT_COMMITTED = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_INTERRUPT,
    }
)


class Whereabouts:
    """The identity of the database's files, to notice that they were removed or replaced under us.

    SQLite would go on writing into files that no name leads to any more.
    """

    def __init__(self, path: Path) -> None:
        """Remember which database lies at ``path``; raises OSError when there is none."""
        self._path = path
        self._log_path = path.with_name(path.name + "-wal")
        # Taken once: a file that is exchanged under a running server is another database.
        self._file = _identity(path)
        self._log: tuple[int, int] | None = None

    def opened(self) -> None:
        """Remember which log the connection just opened writes to."""
        self._log = _identity(self._log_path)

    def unchanged(self) -> bool:
        """Whether they still are the same files."""
        try:
            return _identity(self._path) == self._file and _identity(self._log_path) == self._log
        except OSError:
            return False


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
