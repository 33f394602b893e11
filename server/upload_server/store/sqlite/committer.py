"""Decides how a commit that failed is looked up on SQLite, and that no file that was taken away is written."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from upload_server.store.commands.served import ServedClock
from upload_server.store.sql.committer import NothingDone, SqlCommitter, Unknown
from upload_server.store.sql.connection import said
from upload_server.store.sql.row_room import RowRoom
from upload_server.store.sqlite.connection import SqliteConnection, Whereabouts
from upload_server.store.sqlite.transaction import SqliteTransaction
from upload_server.store.sqlite.turn import Turn

_log = logging.getLogger(__name__)


class SqliteCommitter(SqlCommitter[SqliteConnection, SqliteTransaction]):
    """Owns the writing connection to a file."""

    def __init__(
        self,
        connect: Callable[[], SqliteConnection],
        whereabouts: Whereabouts,
        clock: ServedClock,
        room: RowRoom,
        node_id: str = "",
        turn: Turn | None = None,
    ) -> None:
        """Connect; raises what ``connect`` raises. ``turn``: where other processes write too."""
        super().__init__(clock, room, node_id, SqliteConnection.errors)
        if turn is not None:
            self.turn = turn
        self._connect = connect
        self._whereabouts = whereabouts
        self._connection = self._open()

    def _open(self) -> SqliteConnection:
        connection = self._connect()
        # The first read creates the log.
        self._count_open(connection)
        with contextlib.suppress(OSError):
            self._whereabouts.opened()
        return connection

    def _usable(self) -> SqliteConnection:
        connection = super()._usable()
        if not self._whereabouts.unchanged():
            _log.error("the database file was removed or replaced; it is not written to any more")
            raise NothingDone
        return connection

    def _transact(self, connection: SqliteConnection) -> SqliteTransaction:
        return SqliteTransaction(connection, self._clock, self._room, self._node_id)

    def _look_up(self, transaction: SqliteTransaction) -> None:
        """Reading alone would not do: frames of a failed commit can lie in the log, and count after a crash. The
        transaction that is written here takes their place, so what it read stays true.
        """
        self._disconnect()
        try:
            self._connection = self._open()
            look = SqliteTransaction(self._connection, self._clock, node_id=self._node_id)
            look.keep()
            look.finish()
            self._connection.execute("COMMIT")
        except self._errors as error:
            _log.warning("the fate of a commit is not known: %s", said(error))
            self._disconnect()
            raise Unknown from error
        if look.commit_no == 1 < transaction.commit_no:
            # The others have forgotten this node: it was stopped for longer than they remember a dead one.
            raise Unknown
        if look.commit_no <= transaction.commit_no:
            raise NothingDone

    def close(self) -> None:
        """Bring the log into the database file and close. Errors are logged: what was answered is durable already."""
        if self._connection is None:
            return
        try:
            self._connection.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        except self._errors as error:
            _log.warning("the checkpoint at the end failed, the next start does it: %s", said(error))
        self._disconnect()
