"""Decides how a write transaction begins and ends on PostgreSQL: whoever writes holds the order lock."""

from __future__ import annotations

from upload_server.store.postgresql import statements
from upload_server.store.postgresql.connection import PostgresqlConnection
from upload_server.store.sql.transaction import SqlTransaction


class PostgresqlTransaction(SqlTransaction[PostgresqlConnection]):
    """An open write transaction, from the order lock on."""

    # The database's own number of this transaction, once it has written its counters.
    transaction_no = ""

    def _begin(self) -> tuple[int, float]:
        [(last_change, served)] = self._connection.last_rows(
            statements.BEGIN, statements.TAKE_ORDER_LOCK, statements.READ_COUNTERS
        )
        return last_change, served

    def _write_counters(self) -> None:
        counters = {"last_change": self.last_change, "served": self.served}
        self.transaction_no = self._connection.execute_returning(statements.WRITE_COUNTERS, counters)[0][0]

    def _database_bytes(self) -> int:
        return int(self._connection.rows(statements.DATABASE_BYTES)[0][0])
