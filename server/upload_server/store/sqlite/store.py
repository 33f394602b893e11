"""Decides how a store opens on SQLite, and how it closes.

Must not know what is read or written.
"""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Callable
from pathlib import Path

from upload_server.store.commands.served import ServedClock
from upload_server.store.lock import FileLock, lock_database, lock_file_of
from upload_server.store.options import StoreOptions
from upload_server.store.readers import Readers
from upload_server.store.sql import queries
from upload_server.store.sql.store import SqlStore
from upload_server.store.sqlite.ballast import Ballast
from upload_server.store.sqlite.bell import SqliteBell
from upload_server.store.sqlite.committer import SqliteCommitter
from upload_server.store.sqlite.connection import SqliteConnection, Whereabouts, connect
from upload_server.store.sqlite.row_room import FileRoom
from upload_server.store.sqlite.schema import as_unusable, prepare
from upload_server.store.sqlite.sharing import forget_nodes
from upload_server.store.sqlite.turn import Turn


class _Opened:
    """A database file: its lock, its ballast, the connection that writes."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self._path = path
        self._options = options
        # Nobody asks for the name of one that is alone.
        self.node_id = str(uuid.uuid4()) if options.shared else ""
        # Of a file that is shared somebody else holds the lock, and has given up the ballast if need be.
        self._lock: FileLock | None = None if options.shared else lock_database(path)
        self._turn = Turn(lock_file_of(path)) if options.shared else None
        self._ballast = Ballast(path, options.ballast_bytes)
        try:
            if not options.shared:
                self._ballast.drop_if_full()
                prepare(path)
                forget_nodes(path)
            connection = connect(path, options, writes=False)
            try:
                self.store_id = queries.read_store_id(connection)
                self.last_change = queries.read_last_change(connection)
                self.clock = ServedClock(queries.read_served(connection))
            finally:
                connection.close()
            # A file does not tell that it was restored.
            self.incarnation = self.store_id
            writing = functools.partial(connect, path, options, writes=True)
            self._rows = FileRoom(path, options.room, options.max_database_bytes)
            self.committer = SqliteCommitter(
                writing, Whereabouts(path), self.clock, self._rows, self.node_id, self._turn
            )
            self._ballast.take(options.room)
        except BaseException:
            self._unlock()
            raise

    def bell(self, rung: Callable[[], None]) -> SqliteBell | None:
        """Ring on this machine."""
        return SqliteBell(self.node_id, rung) if self.node_id else None

    def readers(self) -> Readers[SqliteConnection]:
        """Read beside the writer: SQLite's log lets both go on."""
        connecting = functools.partial(connect, self._path, self._options, writes=False)
        return Readers(connecting, self._options, SqliteConnection.errors, "BEGIN")

    def room(self) -> int:
        """Ask the disk."""
        return self._rows.left()

    def release(self) -> None:
        """Take the ballast, which the last start perhaps had to give up, and release the lock."""
        self._ballast.take(self._options.room)
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()
        if self._turn is not None:
            self._turn.close()


async def open_sqlite(path: Path, options: StoreOptions) -> SqlStore:
    """Lock, migrate and open the database, creating it when there is none; raises as ``open_store``."""
    store = SqlStore(options, await asyncio.to_thread(_open, path, options))
    await store.join()
    return store


def _open(path: Path, options: StoreOptions) -> _Opened:
    with as_unusable(path):
        return _Opened(path, options)
