"""Decides how an empty database takes over the rows of another store: by COPY, in one transaction.

Must not know where the rows come from.
"""

# ruff: noqa: S608 - put together from the names of our own tables

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from peewee import AutoField

from upload_server.store import models
from upload_server.store.inspection import TableRow
from upload_server.store.postgresql.connection import PostgresqlConnection
from upload_server.store.sql.inspecting import as_damaged

_TABLES: Final = {model.table_name(): model for model in models.MODELS}
_IDENTITY: Final = models.StoreInfo.table_name()


class PostgresqlFilling:
    """Fills one database, which the caller has locked."""

    def __init__(self, connection: PostgresqlConnection) -> None:
        """Begin, in the session that has locked it; raises ``Damaged``."""
        self._connection = connection
        with as_damaged(*connection.errors):
            self._connection.execute("BEGIN")

    def add(self, table: str, rows: Iterable[TableRow]) -> int:
        """Add rows to a table. A text with NUL, or of bytes that were no UTF-8, is refused."""
        names = _TABLES[table].copied_columns()
        columns = ", ".join(names)
        with as_damaged(*self._connection.errors, UnicodeEncodeError):
            if table == _IDENTITY:
                # Which programs its schema bears is its own.
                places = ", ".join(f"%({name})s" for name in names)
                update = f"UPDATE {table} SET ({columns}) = ROW ({places})"
                return sum(self._connection.execute(update, dict(zip(names, row, strict=True))) for row in rows)
            return self._connection.load(f"COPY {table} ({columns}) FROM STDIN", rows)

    def commit(self) -> None:
        """Have the next ids follow those that were taken over, commit, and tell the planner what is there."""
        with as_damaged(*self._connection.errors):
            for table, model in _TABLES.items():
                if AutoField in model.field_types():
                    self._connection.rows(
                        f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}"
                    )
            self._connection.execute("COMMIT")
            for table in _TABLES:
                self._connection.execute(f"ANALYZE {table}")

    def close(self) -> None:
        """Close."""
        self._connection.close()
