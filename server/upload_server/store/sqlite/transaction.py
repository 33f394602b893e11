"""Decides how one write transaction reads, writes and numbers changes.

Must not know what is written. Used on the writer's thread only, between BEGIN IMMEDIATE and COMMIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from upload_server.store.sqlite import statements
from upload_server.store.sqlite.connection import Connection
from upload_server.store.sqlite.rows import Row


class Inconsistent(Exception):
    """A conditional write missed a row that was just read: a bug, or a trigger's work. Nothing is committed."""


class Transaction:
    """An open write transaction; ``begin`` makes it, the committer ends it."""

    def __init__(self, connection: Connection, last_change: int, last_commit: int) -> None:
        self._connection = connection
        self._numbered_from = last_change
        self.last_change = last_change
        # Identifies this transaction in the store, once it has written something.
        self.commit_no = last_commit + 1
        self.wrote = False

    @classmethod
    def begin(cls, connection: Connection) -> Transaction:
        """Take the write lock and read the counters."""
        connection.execute(statements.BEGIN)
        last_change, last_commit = connection.rows(statements.READ_COUNTERS)[0]
        return cls(connection, last_change, last_commit)

    @property
    def changed(self) -> bool:
        """Whether a watched row has changed."""
        return self.last_change > self._numbered_from

    def read(self, sql: str, /, **parameters: Any) -> list[Row]:
        """Run a SELECT."""
        return self._connection.rows(sql, parameters)

    def write(self, sql: str, /, **parameters: Any) -> int:
        """Run a statement that changes rows; returns how many."""
        count = self._connection.execute(sql, parameters)
        self.wrote |= count > 0
        return count

    def write_returning(self, sql: str, /, **parameters: Any) -> list[Row]:
        """Run a statement with RETURNING; returns its rows."""
        rows = self._connection.rows(sql, parameters)
        self.wrote |= bool(rows)
        return rows

    def write_exactly(self, count: int, sql: str, /, **parameters: Any) -> None:
        """Run a statement that has to change ``count`` rows."""
        written = self.write(sql, **parameters)
        if written != count:
            raise Inconsistent(f"{written} rows were written instead of {count}")

    def number(self, count: int = 1) -> int:
        """Allot ``count`` change numbers; returns the first. Watchers rely on them being in commit order."""
        first = self.last_change + 1
        self.last_change += count
        return first

    def finish(self) -> None:
        """Write the counters; the last statement before COMMIT."""
        if self.wrote:
            counters: Mapping[str, int] = {"last_change": self.last_change, "last_commit": self.commit_no}
            self._connection.execute(statements.WRITE_COUNTERS, counters)
