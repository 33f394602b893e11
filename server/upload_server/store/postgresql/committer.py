"""Decides how a commit that failed is looked up on PostgreSQL, and how a session that was lost is replaced."""

from __future__ import annotations

import functools
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.writer import Committed
from upload_server.store.commands.writes import Outcome, Write, in_waves
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql import statements
from upload_server.store.postgresql.connection import PostgresqlConnection
from upload_server.store.postgresql.transaction import COMMIT, PostgresqlTransaction
from upload_server.store.sql.committer import NothingDone, SqlCommitter, Unknown
from upload_server.store.sql.connection import said
from upload_server.store.sql.row_room import RowRoom

_log = logging.getLogger(__name__)

# How often the fate of a commit is asked for.
_ASK_SECONDS: Final = 0.05


class PostgresqlCommitter(SqlCommitter[PostgresqlConnection, PostgresqlTransaction]):
    """Owns the writing session; opens another one when it is lost."""

    def __init__(
        self,
        connection: PostgresqlConnection,
        connect: Callable[[int], PostgresqlConnection],
        clock: ServedClock,
        room: RowRoom,
        options: StoreOptions,
        node_id: str,
    ) -> None:
        """``connect`` opens another one, given the server's process for the one that is lost."""
        super().__init__(clock, room, node_id, PostgresqlConnection.errors)
        self._connect = connect
        self._doubt_seconds = options.busy_timeout_seconds
        # The server's process for the connection that was lost last.
        self._ended = 0
        self._connection = connection
        self._attempts = itertools.count(1)
        # Takes blocks of numbers beside a long transaction, once there is one.
        self._numbering: PostgresqlConnection | None = None
        self._count_open(connection)

    def _open(self) -> PostgresqlConnection:
        connection = self._connect(self._ended)
        try:
            self._count_open(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _transact(self, connection: PostgresqlConnection) -> PostgresqlTransaction:
        numbering = self._numbering
        take_block = None if numbering is None else functools.partial(self._take_block, numbering)
        attempt = next(self._attempts)
        return PostgresqlTransaction(connection, self._clock, self._room, self._node_id, take_block, attempt)

    def _take_block(self, numbering: PostgresqlConnection, count: int) -> int:
        try:
            taken = numbering.in_one(
                [
                    (statements.BEGIN, {}),
                    (statements.TAKE_ORDER_LOCK, {}),
                    (statements.TAKE_BLOCK, {"count": count}),
                    (COMMIT, {}),
                ]
            )
        except BaseException:
            self._stop_numbering()
            raise
        return int(taken[2][0][0])

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._stop_numbering()

    def _stop_numbering(self) -> None:
        if self._numbering is not None:
            self._numbering.close()
            self._numbering = None

    def run(self, group: Sequence[Write[Any]]) -> Committed:
        """Commit the group, in as many transactions as there are writes that want the same."""
        if self._numbering is None and any(write.long for write in group):
            # Now: in the transaction it would keep rows from others meanwhile. Without it numbers come under the lock.
            try:
                self._numbering = self._connect(0)
            except self._cannot_open as error:
                _log.warning("a second session that writes cannot be opened: %s", said(error))
        waves = in_waves(group)
        if len(waves) == 1:
            return super().run(group)
        outcomes: list[Outcome] = [None] * len(group)
        last_change: int | None = None
        for wave in waves:
            done = super().run([group[index] for index in wave])
            for index, outcome in zip(wave, done.outcomes, strict=True):
                outcomes[index] = outcome
            last_change = done.last_change or last_change
        return Committed(outcomes, last_change)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._ended = self._connection.backend_pid
        super()._disconnect()
        # It may be one to a server that is the primary no more.
        self._stop_numbering()

    def _look_up(self, transaction: PostgresqlTransaction) -> None:
        deadline = time.monotonic() + self._doubt_seconds
        while True:
            fate = self._fate(transaction)
            if fate == "committed":
                return
            if fate == "aborted":
                raise NothingDone
            if time.monotonic() > deadline:
                raise Unknown
            time.sleep(_ASK_SECONDS)

    def _fate(self, transaction: PostgresqlTransaction) -> str:
        """Ask what became of a transaction: `committed`, `aborted`, or something else as long as that is not known.

        To open a connection takes the lock, which the lost one holds until it has ended.
        """
        try:
            if self._connection is None:
                self._connection = self._open()
            asked = {
                "transaction": transaction.transaction_no,
                "began_at": transaction.began_at,
                "node": self._node_id,
            }
            [(fate, attempt, first)] = self._connection.rows(statements.READ_FATE, asked)
            if fate == "committed":
                if attempt is None:
                    # The others have forgotten this node: it was stopped for longer than they remember a dead one.
                    raise Unknown
                if attempt != transaction.attempt:
                    # The number was lost in a crash, and given again to another node.
                    return "aborted"
                if transaction.numbered:
                    transaction.numbers_begin(first)
                # A session that ends while it waits for a standby has committed without it; this one waits for both.
                self._connection.execute(statements.FOLLOW)
            return str(fate)
        except self._cannot_open as error:
            _log.warning("the fate of a commit is not known: %s", said(error))
            self._disconnect()
            return "unknown"
