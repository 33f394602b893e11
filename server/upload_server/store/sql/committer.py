"""Decides how a group of writes becomes durable, and what each comes to when the database fails.

Must not know who waits for the answers. Runs on the writer's thread. What it promises: an answer is returned only after
its commit; a failure that it returns has changed nothing, unless it says ``OutcomeUnknown``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from upload_server.domain.errors import CannotStart, DatabaseFailure, OutcomeUnknown
from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.writer import Committed
from upload_server.store.commands.writes import Write, run_group
from upload_server.store.sql.connection import Connection, said
from upload_server.store.sql.row_room import RowRoom
from upload_server.store.sql.statements import COUNT_OPEN
from upload_server.store.sql.transaction import SqlTransaction
from upload_server.store.values import Result

C = TypeVar("C", bound=Connection)
T = TypeVar("T", bound=SqlTransaction[Any])
_log = logging.getLogger(__name__)


class NothingDone(Exception):
    """The database is not usable now; no write of the group was even tried, or the commit surely failed."""


class Unknown(Exception):
    """Whether the commit was done cannot be found out now."""


class SqlCommitter(ABC, Generic[C, T]):
    """Owns the writing connection; opens it anew after errors that leave it in doubt."""

    def __init__(self, clock: ServedClock, room: RowRoom, node_id: str, errors: tuple[type[Exception], ...]) -> None:
        """``room`` hears how many files are open; ``node_id``: who writes, where others may; ``errors`` are those of
        the database."""
        # Only where other processes write by turns is there one to wait for.
        self.turn: AbstractContextManager[None] = contextlib.nullcontext()
        self._node_id = node_id
        self._clock = clock
        self._room = room
        self._errors = errors
        self._cannot_open: tuple[type[Exception], ...] = (*errors, CannotStart)
        self._connection: C | None = None

    @abstractmethod
    def _open(self) -> C:
        """Connect, and count the files that are open; raises ``errors`` or ``CannotStart``."""

    @abstractmethod
    def _transact(self, connection: C) -> T:
        """Begin a transaction."""

    @abstractmethod
    def _look_up(self, transaction: T) -> None:
        """Return if the doubtful commit is in the database after all; raises ``NothingDone`` or ``Unknown``."""

    def _count_open(self, connection: C) -> None:
        if self._room.counts:
            self._room.open_files = int(connection.rows(COUNT_OPEN)[0][0])

    def run(self, group: Sequence[Write[Any]]) -> Committed:
        """Commit the group in one transaction, or, when one write spoils it, each in its own."""
        try:
            return self._transaction(group)
        except NothingDone:
            return Committed([DatabaseFailure() for _ in group])
        except Unknown:
            return Committed([OutcomeUnknown() for _ in group])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the outcome of one of these writes
            if len(group) > 1:
                return self._one_by_one(group)
            if isinstance(error, self._errors):
                _log.warning("%s failed: %s", type(group[0]).__name__, said(error))
                return Committed([DatabaseFailure()])
            _log.exception("%s failed", type(group[0]).__name__)
            return Committed([error])

    def _one_by_one(self, group: Sequence[Write[Any]]) -> Committed:
        alone = [self.run((write,)) for write in group]
        numbers = [each.last_change for each in alone if each.last_change is not None]
        return Committed([each.outcomes[0] for each in alone], max(numbers, default=None))

    def _begin(self) -> tuple[C, T]:
        """Begin a transaction; a connection that was lost while it rested is opened anew for it, once."""
        for last in (False, True):
            connection = self._usable()
            try:
                return connection, self._transact(connection)
            except self._errors as error:
                _log.warning("no write transaction can be begun: %s", said(error))
                lost = self._roll_back(connection, error)
                if last or not lost:
                    raise NothingDone from error
        raise AssertionError("unreachable")

    def _transaction(self, group: Sequence[Write[Any]]) -> Committed:
        connection, transaction = self._begin()
        try:
            transaction.take(group)
            outcomes = run_group(transaction, group)
            transaction.finish()
        except BaseException as error:
            if self._roll_back(connection, error):
                # With its session the transaction has ended too; one by one they would only wait for the next.
                _log.warning("the connection to the database is lost: %s", said(error))
                raise NothingDone from error
            raise
        commit_began = time.monotonic()
        self._commit(connection, transaction)
        outcomes = transaction.settled(outcomes)
        if connection is self._connection:
            # Else all were counted anew, since the commit was looked up.
            self._room.open_files += sum(each.audited.opened for each in outcomes if isinstance(each, Result))
        return Committed(outcomes, transaction.committed, commit_began)

    def _usable(self) -> C:
        if self._connection is None:
            try:
                self._connection = self._open()
            except self._cannot_open as error:
                _log.warning("the database cannot be opened: %s", said(error))
                raise NothingDone from error
        return self._connection

    def _roll_back(self, connection: C, error: BaseException) -> bool:
        """Leave no transaction open; a connection that cannot even do that is closed. Returns whether it was lost."""
        lost = connection.lost_by(error)
        try:
            if not lost and connection.in_transaction:
                connection.execute("ROLLBACK")
        except self._errors as failure:
            _log.warning("a rollback failed, so the connection is opened anew: %s", said(failure))
            self._disconnect()
        if lost:
            self._disconnect()
        return lost

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*self._errors):
                connection.close()

    def _commit(self, connection: C, transaction: T) -> None:
        try:
            transaction.commit()
        except self._errors as error:
            _log.warning("a commit failed: %s", said(error))
            nothing = connection.surely_not_committed(error)
            self._roll_back(connection, error)
            if nothing:
                raise
            if not transaction.wrote:
                raise NothingDone from error
            self._look_up(transaction)
        except BaseException as error:
            # What cannot be sent was not.
            self._roll_back(connection, error)
            raise

    def close(self) -> None:
        """Close the connection."""
        self._disconnect()
