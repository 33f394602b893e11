"""Decides how a write transaction begins and ends on SQLite: BEGIN IMMEDIATE takes the write lock."""

from __future__ import annotations

from upload_server.store.sql.transaction import SqlTransaction
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.connection import SqliteConnection


class SqliteTransaction(SqlTransaction[SqliteConnection]):
    """An open write transaction, from the write lock on."""

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
