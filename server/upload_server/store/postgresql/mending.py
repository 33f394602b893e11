"""Decides how the schema of a database is mended."""

from __future__ import annotations

from collections.abc import Sequence

from upload_server.store.inspection import SchemaFault
from upload_server.store.postgresql.connection import PostgresqlConnection
from upload_server.store.postgresql.schema import new_schema
from upload_server.store.postgresql.transaction import PostgresqlTransaction
from upload_server.store.sql.mending import SqlMending


class PostgresqlMending(SqlMending[PostgresqlConnection]):
    """Mends one database by the session that holds its lock: when that is lost, nothing more is mended."""

    def _begin(self) -> PostgresqlTransaction:
        return PostgresqlTransaction(self._connection)

    def _create(self, faults: Sequence[SchemaFault]) -> None:
        made = new_schema(self._connection).objects
        for fault in faults:
            table, definition = made[fault.kind, fault.name]
            on = f' ON "{table}"' if fault.kind == "trigger" else ""
            self._connection.execute(f'DROP {fault.kind} IF EXISTS "{fault.name}"{on}')
            self._connection.execute(definition.replace("%", "%%"))
