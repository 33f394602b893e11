"""Decides how a group of writes becomes durable, and what each comes to when the database fails.

Must not know who waits for the answers. Runs on the writer's thread. What it promises: an answer is returned only after
its commit; a failure that it returns has changed nothing, unless it says ``OutcomeUnknown``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

from upload_server.domain.errors import DatabaseFailure, OutcomeUnknown
from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.writer import Committed
from upload_server.store.commands.writes import Write, run_group
from upload_server.store.protocol import Result
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.connection import (
    DATABASE_ERRORS,
    Connection,
    Whereabouts,
    opened_read_only,
    surely_not_committed,
)
from upload_server.store.sqlite.row_room import RowRoom
from upload_server.store.sqlite.transaction import SqliteTransaction

_log = logging.getLogger(__name__)


class _NothingDone(Exception):
    """The database is not usable now; no write of the group was even tried, or the commit surely failed."""


class _Unknown(Exception):
    """Whether the commit was done cannot be found out now."""


class SqliteCommitter:
    """Owns the writing connection; opens it anew after errors that leave it in doubt."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        whereabouts: Whereabouts,
        clock: ServedClock,
        room: RowRoom,
        node_id: str = "",
    ) -> None:
        """Connect; raises what ``connect`` raises. ``room`` hears how many files are open."""
        self._node_id = node_id
        self._connect = connect
        self._clock = clock
        self._whereabouts = whereabouts
        self._room = room
        self._connection: Connection | None = self._open()

    def _open(self) -> Connection:
        connection = self._connect()
        # The first read creates the log.
        self._room.open_files = int(connection.rows(statements.COUNT_OPEN)[0][0])
        with contextlib.suppress(OSError):
            self._whereabouts.opened()
        return connection

    def run(self, group: Sequence[Write[Any]]) -> Committed:
        """Commit the group in one transaction, or, when one write spoils it, each in its own."""
        try:
            return self._transaction(group)
        except _NothingDone:
            return Committed([DatabaseFailure() for _ in group])
        except _Unknown:
            return Committed([OutcomeUnknown() for _ in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome of one of these writes
            if len(group) > 1:
                return self._one_by_one(group)
            if isinstance(error, DATABASE_ERRORS):
                _log.warning("%s failed: %s", type(group[0]).__name__, error)
                return Committed([DatabaseFailure()])
            _log.exception("%s failed", type(group[0]).__name__)
            return Committed([error])

    def _one_by_one(self, group: Sequence[Write[Any]]) -> Committed:
        alone = [self.run((write,)) for write in group]
        numbers = [each.last_change for each in alone if each.last_change is not None]
        return Committed([each.outcomes[0] for each in alone], max(numbers, default=None))

    def _transaction(self, group: Sequence[Write[Any]]) -> Committed:
        connection = self._usable()
        try:
            transaction = SqliteTransaction(connection, self._clock, self._room, self._node_id)
        except DATABASE_ERRORS as error:
            self._give_up_beginning(connection, error)
            raise _NothingDone from error
        try:
            outcomes = run_group(transaction, group)
            transaction.finish()
        except BaseException:
            self._roll_back(connection)
            raise
        self._commit(connection, transaction)
        if connection is self._connection:
            # Else all were counted anew, since the commit was looked up.
            self._room.open_files += sum(each.audited.opened for each in outcomes if isinstance(each, Result))
        changed = transaction.last_change > transaction.numbered_from
        return Committed(outcomes, transaction.last_change if changed else None)

    def _usable(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = self._open()
            except DATABASE_ERRORS as error:
                _log.warning("the database cannot be opened: %s", error)
                raise _NothingDone from error
        if not self._whereabouts.unchanged():
            _log.error("the database file was removed or replaced; it is not written to any more")
            raise _NothingDone
        return self._connection

    def _give_up_beginning(self, connection: Connection, error: BaseException) -> None:
        _log.warning("no write transaction can be begun: %s", error)
        self._roll_back(connection)
        if opened_read_only(error):
            # It would stay so when the disk works again.
            self._disconnect()

    def _roll_back(self, connection: Connection) -> None:
        """Leave no transaction open; a connection that cannot even do that is closed."""
        try:
            # SQLite ends the transaction by itself after some errors.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except DATABASE_ERRORS as error:
            _log.warning("a rollback failed, so the connection is opened anew: %s", error)
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*DATABASE_ERRORS):
                connection.close()

    def _commit(self, connection: Connection, transaction: SqliteTransaction) -> None:
        try:
            connection.execute("COMMIT")
        except DATABASE_ERRORS as error:
            _log.warning("a commit failed: %s", error)
            self._roll_back(connection)
            if surely_not_committed(error):
                raise
            if not transaction.wrote:
                raise _NothingDone from error
            self._look_up(transaction)

    def _look_up(self, transaction: SqliteTransaction) -> None:
        """Return if the doubtful commit is in the database after all; raises otherwise.

        Reading alone would not do: frames of a failed commit can lie in the log, and count after a crash. The
        transaction that is written here takes their place, so what it read stays true.
        """
        self._disconnect()
        try:
            self._connection = self._open()
            look = SqliteTransaction(self._connection, self._clock, node_id=self._node_id)
            look.keep()
            look.finish()
            self._connection.execute("COMMIT")
        except DATABASE_ERRORS as error:
            _log.warning("the fate of a commit is not known: %s", error)
            self._disconnect()
            raise _Unknown from error
        if look.commit_no == 1 < transaction.commit_no:
            # The others have forgotten this node: it was stopped for longer than they remember a dead one.
            raise _Unknown
        if look.commit_no <= transaction.commit_no:
            raise _NothingDone

    def close(self) -> None:
        """Bring the log into the database file and close. Errors are logged: what was answered is durable already."""
        if self._connection is None:
            return
        try:
            self._connection.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        except DATABASE_ERRORS as error:
            _log.warning("the checkpoint at the end failed, the next start does it: %s", error)
        self._disconnect()
