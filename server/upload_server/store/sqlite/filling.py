"""Decides how an empty database file takes over the rows of another store: in one transaction.

Must not know where the rows come from.
"""

# ruff: noqa: S608 - put together from the names of our own tables

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from upload_server.store import models
from upload_server.store.inspection import TableRow
from upload_server.store.options import StoreOptions
from upload_server.store.sql.inspecting import as_damaged
from upload_server.store.sqlite.connection import SqliteConnection, connect

_TABLES: Final = {model.table_name(): model for model in models.MODELS}
_IDENTITY: Final = models.StoreInfo.table_name()


class SqliteFilling:
    """Fills one file, which the caller has locked."""

    def __init__(self, path: Path) -> None:
        """Open it for writing; raises ``Damaged``."""
        with as_damaged(*SqliteConnection.errors):
            self._connection = connect(path, StoreOptions(), writes=True)
            self._connection.execute("BEGIN IMMEDIATE")

    def add(self, table: str, rows: Iterable[TableRow]) -> int:
        """Add rows to a table."""
        columns = _TABLES[table].copied_columns()
        names, places = ", ".join(columns), ", ".join("?" * len(columns))
        insert = f"INSERT INTO {table} ({names}) VALUES ({places})"
        if table == _IDENTITY:
            # Its counter of commits is its own.
            insert = f"UPDATE {table} SET ({names}) = ({places})"
        with as_damaged(*SqliteConnection.errors, UnicodeEncodeError):
            return self._connection.execute_all(insert, rows)

    def commit(self) -> None:
        """Have all of it there at once."""
        with as_damaged(*SqliteConnection.errors):
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close."""
        self._connection.close()
