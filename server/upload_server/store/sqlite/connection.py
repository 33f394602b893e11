"""Decides how a connection to the database file is opened, and what its errors mean.

Must not know what is read or written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import peewee

from upload_server.store.options import StoreOptions

# Peewee wraps what `execute` raises, not what `fetch` raises.
DATABASE_ERRORS = (peewee.PeeweeException, sqlite3.Error)

_KIB = 1024

# Rows of a page are together at most so long as messages: a caller that asks for a thousand may get fewer (AIP-158).
PAGE_BYTES = 256 * _KIB
# What a row's numbers, times and tags are more as a message than as text.
_ROW_BYTES = 64


def _size(row: tuple[Any, ...]) -> int:
    """Return how many bytes a row is at most as a message."""
    texts = [value for value in row if isinstance(value, str)]
    return _ROW_BYTES + sum([len(text) if text.isascii() else len(text.encode()) for text in texts])


class Connection:
    """One connection through Peewee's ``execute_sql``; used by one thread at a time, whichever it is."""

    def __init__(self, database: peewee.SqliteDatabase) -> None:
        self._database = database

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None) -> int:
        """Run a statement that returns nothing; returns how many rows it changed."""
        cursor: sqlite3.Cursor = self._database.execute_sql(sql, parameters)  # type: ignore[no-untyped-call]
        return cursor.rowcount

    def execute_all(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """Run a statement once with each row's values; returns how many rows it changed."""
        raw: sqlite3.Connection = self._database.connection()  # type: ignore[no-untyped-call]
        return raw.executemany(sql, rows).rowcount

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement and return all its rows."""
        cursor: sqlite3.Cursor = self._database.execute_sql(sql, parameters)  # type: ignore[no-untyped-call]
        return cursor.fetchall()

    def page(
        self, sql: str, parameters: Mapping[str, Any], limit: int, most_bytes: int = PAGE_BYTES
    ) -> tuple[list[tuple[Any, ...]], bool]:
        """Run a SELECT with a LIMIT :limit; returns at most so many rows and bytes of them, and whether there are more.

        At least one row, however long it is.
        """
        # One more than the page, so that it is known whether there is a next one.
        cursor: sqlite3.Cursor = self._database.execute_sql(sql, {**parameters, "limit": limit + 1})  # type: ignore[no-untyped-call]
        rows: list[tuple[Any, ...]] = []
        for row in cursor:
            most_bytes -= _size(row)
            if len(rows) == limit or (rows and most_bytes < 0):
                cursor.close()
                return rows, True
            rows.append(row)
        return rows, False

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; SQLite ends one by itself after some errors."""
        raw: sqlite3.Connection = self._database.connection()  # type: ignore[no-untyped-call]
        return raw.in_transaction

    def close(self) -> None:
        """Close it. Safe to call twice."""
        self._database.close()


def connect(path: Path, options: StoreOptions, *, writes: bool) -> Connection:
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
    return Connection(database)


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


def surely_not_committed(error: BaseException) -> bool:
    """Whether a COMMIT that failed so has certainly changed nothing."""
    code = error_code(error)
    return code is not None and code & 0xFF in _NOT_COMMITTED


def opened_read_only(error: BaseException) -> bool:
    """Whether the connection cannot write at all: SQLite opens a file for reading that it fails to open for writing."""
    code = error_code(error)
    return code is not None and code & 0xFF == sqlite3.SQLITE_READONLY


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
