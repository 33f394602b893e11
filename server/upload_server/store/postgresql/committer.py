"""Decides how a group of writes becomes durable, and what each comes to when the database fails.

Must not know who waits for the answers. Runs on the writer's thread. What it promises: an answer is returned only after
its commit; a failure that it returns has changed nothing, unless it says ``OutcomeUnknown``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from upload_server.domain.errors import CannotStart, DatabaseFailure, OutcomeUnknown
from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.writer import Committed
from upload_server.store.commands.writes import Write, run_group
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql import statements
from upload_server.store.postgresql.connection import DATABASE_ERRORS, Connection, said
from upload_server.store.postgresql.row_room import RowRoom
from upload_server.store.postgresql.transaction import PostgresqlTransaction
from upload_server.store.protocol import Result

_log = logging.getLogger(__name__)

# How often the fate of a commit is asked for.
_ASK_SECONDS: Final = 0.05


class _NothingDone(Exception):
    """The database is not usable now; no write of the group was even tried, or the commit surely failed."""


class _Unknown(Exception):
    """Whether the commit was done cannot be found out now."""


class PostgresqlCommitter:
    """Owns the writing connection; opens it anew when it is lost."""

    def __init__(
        self,
        connection: Connection,
        connect: Callable[[int], Connection],
        clock: ServedClock,
        room: RowRoom,
        options: StoreOptions,
        node_id: str,
    ) -> None:
        """``connect`` opens another one, given the server's process for the one that is lost; it may raise
        ``CannotStart``. ``room`` hears how many files are open."""
        self._connect = connect
        self._node_id = node_id
        self._clock = clock
        self._room = room
        self._doubt_seconds = options.busy_timeout_seconds
        # The server's process for the connection that was lost last.
        self._ended = 0
        self._connection: Connection | None = connection
        self._count_open(connection)

    def _open(self) -> Connection:
        connection = self._connect(self._ended)
        try:
            self._count_open(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _count_open(self, connection: Connection) -> None:
        self._room.open_files = int(connection.rows(statements.COUNT_OPEN)[0][0])

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
                _log.warning("%s failed: %s", type(group[0]).__name__, said(error))
                return Committed([DatabaseFailure()])
            _log.exception("%s failed", type(group[0]).__name__)
            return Committed([error])

    def _one_by_one(self, group: Sequence[Write[Any]]) -> Committed:
        alone = [self.run((write,)) for write in group]
        numbers = [each.last_change for each in alone if each.last_change is not None]
        return Committed([each.outcomes[0] for each in alone], max(numbers, default=None))

    def _begin(self) -> tuple[Connection, PostgresqlTransaction]:
        """Begin a transaction; a connection that was lost while it rested is opened anew for it, once."""
        for last in (False, True):
            connection = self._usable()
            try:
                return connection, PostgresqlTransaction(connection, self._clock, self._room, self._node_id)
            except DATABASE_ERRORS as error:
                _log.warning("no write transaction can be begun: %s", said(error))
                lost = connection.lost
                self._roll_back(connection)
                if last or not lost:
                    raise _NothingDone from error
        raise AssertionError("unreachable")

    def _transaction(self, group: Sequence[Write[Any]]) -> Committed:
        connection, transaction = self._begin()
        try:
            outcomes = run_group(transaction, group)
            transaction.finish()
        except BaseException as error:
            lost = connection.lost
            self._roll_back(connection)
            if lost:
                # With its session the transaction has ended too; one by one they would only wait for the next.
                _log.warning("the connection to the database is lost: %s", said(error))
                raise _NothingDone from error
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
            except (*DATABASE_ERRORS, CannotStart) as error:
                _log.warning("the database cannot be opened: %s", said(error))
                raise _NothingDone from error
        return self._connection

    def _roll_back(self, connection: Connection) -> None:
        """Leave no transaction open; a connection that cannot even do that is closed."""
        try:
            if connection.lost:
                self._disconnect()
            elif connection.in_transaction:
                connection.execute("ROLLBACK")
        except DATABASE_ERRORS as error:
            _log.warning("a rollback failed, so the connection is opened anew: %s", said(error))
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._ended = connection.backend_pid
            with contextlib.suppress(*DATABASE_ERRORS):
                connection.close()

    def _commit(self, connection: Connection, transaction: PostgresqlTransaction) -> None:
        try:
            connection.execute("COMMIT")
        except DATABASE_ERRORS as error:
            _log.warning("a commit failed: %s", said(error))
            lost = connection.lost
            self._roll_back(connection)
            if not lost:
                # The server itself has answered that nothing was committed.
                raise
            if not transaction.wrote:
                raise _NothingDone from error
            self._look_up(transaction)

    def _look_up(self, transaction: PostgresqlTransaction) -> None:
        """Return if the doubtful commit is in the database after all; raises otherwise."""
        deadline = time.monotonic() + self._doubt_seconds
        while True:
            fate = self._fate(transaction)
            if fate == "committed":
                return
            if fate == "aborted":
                raise _NothingDone
            if time.monotonic() > deadline:
                raise _Unknown
            time.sleep(_ASK_SECONDS)

    def _fate(self, transaction: PostgresqlTransaction) -> str:
        """Ask what became of a transaction: `committed`, `aborted`, or something else as long as that is not known.

        To open a connection takes the lock, which the lost one holds until it has ended.
        """
        try:
            if self._connection is None:
                self._connection = self._open()
            [(fate, written)] = self._connection.rows(
                statements.READ_FATE,
                {
                    "transaction": transaction.transaction_no,
                    "last_change": transaction.last_change,
                    "served": transaction.served,
                },
            )
            if fate == "committed" and written:
                # A session that ends while it waits for a standby has committed without it; this one waits for both.
                self._connection.execute(statements.FOLLOW)
                return "committed"
            return "aborted" if fate == "committed" else str(fate)
        except (*DATABASE_ERRORS, CannotStart) as error:
            _log.warning("the fate of a commit is not known: %s", said(error))
            self._disconnect()
            return "unknown"

    def close(self) -> None:
        """Close."""
        self._disconnect()
