"""Decides how a store opens on PostgreSQL, and that it goes on with the history that it has opened.

Must not know what else is read or written.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Final

from upload_server.store.commands.served import ServedClock
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql import lock
from upload_server.store.postgresql.bell import PostgresqlBell
from upload_server.store.postgresql.committer import PostgresqlCommitter
from upload_server.store.postgresql.connection import Address, AnotherHistory, PostgresqlConnection, connect
from upload_server.store.postgresql.requirements import check_server
from upload_server.store.postgresql.schema import as_unusable, check_schema
from upload_server.store.readers import Readers
from upload_server.store.sql import queries
from upload_server.store.sql.dialect import Sql
from upload_server.store.sql.row_room import RowRoom
from upload_server.store.sql.store import SqlStore

_BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# A server that was a standby, or that was restored, has a new timeline: the first digits of its log's name. A dump that
# is restored into the same database makes its tables anew.
_IDENTITY: Final = Sql("""
    SELECT i.store_id, (SELECT system_identifier FROM pg_control_system()),
           left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid, 'store_info'::regclass::oid
    FROM pg_database AS d CROSS JOIN store_info AS i WHERE d.datname = current_database()""")


class _Opened:
    """A database: checked, locked by the session that writes."""

    def __init__(self, address: Address, options: StoreOptions) -> None:
        self._address = address
        self._options = options
        self.node_id = str(uuid.uuid4())
        self._identity = ""
        connection = self._connect_writing(0)
        try:
            self._identity = _identity(connection)
            self.store_id = queries.read_store_id(connection)
            self.last_change = queries.read_last_change(connection)
            self.clock = ServedClock(queries.read_served(connection))
            self.incarnation = str(uuid.uuid5(uuid.UUID(self.store_id), self._identity))
            self._rows = RowRoom(options.max_database_bytes)
            self.committer = PostgresqlCommitter(
                connection, self._connect_writing, self.clock, self._rows, options, self.node_id
            )
        except BaseException:
            connection.close()
            raise

    def _connect_writing(self, ended: int) -> PostgresqlConnection:
        """Open the connection that writes, and with it share the lock: at the start, and again when it was lost."""
        with _closed_on_error(connect(self._address, self._options, writes=True)) as connection:
            check_server(connection, self._address, self._options)
            check_schema(connection, self._address)
            lock.take(connection, self._address, shared=True)
            lock.end(connection, ended)
            self._recognize(connection)
        return connection

    def bell(self, rung: Callable[[], None]) -> PostgresqlBell:
        """Ring through the database."""
        return PostgresqlBell(lambda: connect(self._address, self._options, writes=True), rung)

    def readers(self) -> Readers[PostgresqlConnection]:
        """Read in snapshots."""
        return Readers(self._connect_reading, self._options, PostgresqlConnection.errors, _BEGIN)

    def room(self) -> int:
        """Tell what an operator allows."""
        return self._rows.left()

    def release(self) -> None:
        """Do nothing: the lock has gone with its session."""

    def _connect_reading(self) -> PostgresqlConnection:
        """Open a connection that reads."""
        with _closed_on_error(connect(self._address, self._options, writes=False)) as connection:
            self._recognize(connection)
        return connection

    def _recognize(self, connection: PostgresqlConnection) -> None:
        """Refuse to go on with another history than the one that was opened: what was answered may not be in it."""
        if self._identity and _identity(connection) != self._identity:
            raise AnotherHistory


def _identity(connection: PostgresqlConnection) -> str:
    """Read what distinguishes this database from any copy of it: a copy that takes writes has a history of its own."""
    return "/".join(map(str, connection.rows(_IDENTITY)[0]))


@contextlib.contextmanager
def _closed_on_error(connection: PostgresqlConnection) -> Iterator[PostgresqlConnection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


async def open_postgresql(address: Address, options: StoreOptions) -> SqlStore:
    """Check and open the database, and become one of its nodes; raises as ``open_store``."""
    store = SqlStore(options, await asyncio.to_thread(_open, address, options))
    await store.join()
    return store


def _open(address: Address, options: StoreOptions) -> _Opened:
    with as_unusable(address):
        return _Opened(address, options)
