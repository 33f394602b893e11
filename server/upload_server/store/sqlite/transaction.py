"""Decides how a write transaction begins and ends on SQLite: BEGIN IMMEDIATE takes the write lock."""

from __future__ import annotations

from typing import Any

from upload_server.store.commands.statements import Statement
from upload_server.store.commands.transaction import Inconsistent
from upload_server.store.sql.transaction import SqlTransaction
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.connection import SqliteConnection


class SqliteTransaction(SqlTransaction[SqliteConnection]):
    """An open write transaction, alone from the write lock on: each statement runs at once."""

    # Identifies this transaction among those of its node, once it has written something.
    commit_no: int

    def _begin(self) -> tuple[int, float]:
        self._connection.execute(statements.BEGIN)
        # Where this node's commits are counted.
        self._commits = f'$."{self.node_id}"'
        counters = self._connection.rows(statements.READ_COUNTERS, {"commits": self._commits})
        last_change, last_commit, served = counters[0]
        self.commit_no = last_commit + 1
        return last_change, served

    def write(self, statement: Statement, /, **values: Any) -> None:
        """Run it."""
        self.write_counted(statement, **values)

    def write_exactly(self, count: int, statement: Statement, /, **values: Any) -> None:
        """Run it; raises ``Inconsistent``."""
        written = self.write_counted(statement, **values)
        if written != count:
            raise Inconsistent(f"{statement.name} changed {written} rows instead of {count}")

    def finish(self) -> None:
        """Write the counters; the last statement before COMMIT."""
        if self.wrote:
            self._write_counters()

    def commit(self) -> None:
        """Commit."""
        self._connection.execute("COMMIT")

    def _write_counters(self) -> None:
        self._connection.execute(
            statements.WRITE_COUNTERS,
            {
                "last_change": self.last_change,
                "served": self.served,
                "commits": self._commits,
                "commit_no": self.commit_no,
            },
        )

    def _database_bytes(self) -> int:
        return int(self._connection.rows(statements.DATABASE_BYTES)[0][0])
