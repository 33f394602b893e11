"""Decides how the schema of a database file is mended, and how the file is left."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from upload_server.store.inspection import SchemaFault
from upload_server.store.options import StoreOptions
from upload_server.store.sql.inspecting import as_damaged
from upload_server.store.sql.mending import SqlMending
from upload_server.store.sqlite.connection import SqliteConnection, connect
from upload_server.store.sqlite.schema import new_schema
from upload_server.store.sqlite.transaction import SqliteTransaction


class SqliteMending(SqlMending[SqliteConnection]):
    """Mends one SQLite file, which the caller has locked."""

    def __init__(self, path: Path) -> None:
        """Open it for writing; raises ``Damaged``."""
        with as_damaged(*SqliteConnection.errors):
            super().__init__(connect(path, StoreOptions(), writes=True))

    def _begin(self) -> SqliteTransaction:
        return SqliteTransaction(self._connection)

    def _create(self, faults: Sequence[SchemaFault]) -> None:
        made = new_schema()[0]
        for fault in faults:
            self._connection.execute(f'DROP {fault.kind} IF EXISTS "{fault.name}"')
            self._connection.execute(made[fault.kind, fault.name])

    def close(self) -> None:
        """Bring the log into the file, as the service does, and close."""
        with contextlib.suppress(*SqliteConnection.errors):
            self._connection.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        super().close()
