"""Decides how a write transaction runs on PostgreSQL: whoever writes has the rows to itself, and only at its end, with
all that it has written in one message, the order lock.

So a node that is stopped holds up those alone who want its rows. Numbers are given under the lock, by the server; what
was read and decided before it goes by numbers that are counted from `UNKNOWN`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import psycopg

from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.statements import Statement
from upload_server.store.commands.transaction import Inconsistent
from upload_server.store.commands.writes import Outcome, Write
from upload_server.store.postgresql import statements
from upload_server.store.postgresql.connection import PostgresqlConnection
from upload_server.store.postgresql.dialect import UNKNOWN
from upload_server.store.postgresql.numbers import moved
from upload_server.store.sql.dialect import Sql
from upload_server.store.sql.row_room import RowRoom
from upload_server.store.sql.transaction import SQL, SqlTransaction

COMMIT: Final = Sql("COMMIT")
# So many changes take the order lock for some ten milliseconds.
_UNDER_THE_LOCK: Final = 512
# A block is cleared away, by a node that says that it lives, only between its taking and its holding.
_TRIES: Final = 5


class PostgresqlTransaction(SqlTransaction[PostgresqlConnection]):
    """An open write transaction. Other ones write at the same time, on other rows."""

    # The database's own number of this transaction.
    transaction_no: str

    def __init__(
        self,
        connection: PostgresqlConnection,
        clock: ServedClock | None = None,
        room: RowRoom | None = None,
        node_id: str = "",
        take_block: Callable[[int], int] | None = None,
        attempt: int = 0,
    ) -> None:
        """``take_block`` takes a block of so many numbers in a session of its own, and returns the first of them.
        ``attempt``: no other transaction of this node has the same."""
        self.attempt = attempt
        super().__init__(connection, clock, room, node_id)
        self._take_block = take_block

    def _begin(self) -> tuple[int, float]:
        # What is sent with the COMMIT.
        self._writes: list[tuple[Sql, dict[str, Any]]] = []
        self._keeps = False
        self._moved_by: int | None = None
        self._committed: int | None = None
        # The first number of the block that is held.
        self._block = 0
        [(self.began_at, served, self.transaction_no)] = self._connection.last_rows(
            statements.BEGIN, statements.READ_COUNTERS
        )
        return UNKNOWN, served

    def take(self, writes: Sequence[Write[Any]]) -> None:
        """Lock what writes want: keys, batches, files, each in an order that all keep to, so that nobody waits in a
        circle."""
        wants = [write.wants for write in writes]
        keys = sorted({_lock_of(key) for want in wants for key in want.keys})
        if keys:
            self._connection.rows(statements.LOCK_KEYS, {"keys": keys})
        counted = list({each for want in wants for each in want.file_ids})
        uncounted = list({each for want in wants for each in want.uncounted})
        rows = [row for want in wants for row in want.rows]
        batch_ids = [each for want in wants for each in want.batch_ids]
        if counted or uncounted or rows or batch_ids:
            named = {"file_ids": counted, "uncounted": uncounted, "rows": rows, "batch_ids": batch_ids}
            self._connection.rows(statements.LOCK_ROWS, named)

    def write(self, statement: Statement, /, **values: Any) -> None:
        """Send it with the COMMIT."""
        self._writes.append((SQL[statement.name], values))
        self.wrote = True

    def write_exactly(self, count: int, statement: Statement, /, **values: Any) -> None:
        """Send it with the COMMIT, which is not done when it changes another number of rows."""
        self._writes.append((statements.exactly(statement.name), {**values, "rows_expected": count}))
        self.wrote = True

    def keep(self) -> None:
        """Have the seconds served kept."""
        super().keep()
        self._keeps = True

    def tidy(self) -> None:
        """Clear away blocks of nodes that died."""
        self._writes.append((statements.CLEAR_BLOCKS, {}))

    def finish(self) -> None:
        """Take a block of numbers for what would hold the order lock for long."""
        if self._take_block is None or self.numbered <= _UNDER_THE_LOCK:
            return
        for _ in range(_TRIES):
            first = self._take_block(self.numbered)
            if self._connection.rows(statements.HOLD_BLOCK, {"first": first, "unknown": UNKNOWN}):
                self._block = first
                return
        raise Inconsistent("blocks of numbers are cleared away as they are taken")

    def commit(self) -> None:
        """Send all that was written in one message: the server begins when it has read it to its end, so that nobody
        waits for this node once the lock is taken."""
        count = self.numbered
        message = [*self._writes, (statements.LAST_CHANGE, {}), (COMMIT, {})]
        if self._block:
            message = [(statements.CLOSE_BLOCK, {"first": self._block}), *message]
        elif count:
            counted = {"count": count, "served": self.served, "unknown": UNKNOWN}
            message = [(statements.TAKE_ORDER_LOCK, {}), (statements.GIVE_NUMBERS, counted), *message]
        elif self._keeps:
            message = [(statements.KEEP_SERVED, {"served": self.served}), *message]
        if self.wrote:
            # Nobody else wants the row.
            message = [(statements.NOTE_ATTEMPT, {"attempt": self.attempt, "node": self.node_id}), *message]
        try:
            answers = self._connection.in_one(message)
        except psycopg.errors.AssertFailure as error:
            raise Inconsistent(error.diag.message_primary) from error
        if count:
            self.numbers_begin(self._block or answers[2][0][0])
            [(self._committed,)] = answers[-2]

    def numbers_begin(self, first: int) -> None:
        """Hear which number was the first that the server gave."""
        self._moved_by = first - UNKNOWN - 1
        # Up to there all is committed, whatever else is.
        self._committed = self.began_at

    def settled(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return outcomes with the numbers that the server gave."""
        return outcomes if self._moved_by is None else [moved(outcome, self._moved_by) for outcome in outcomes]

    @property
    def numbered(self) -> int:
        """How many numbers were given."""
        return self.last_change - UNKNOWN

    @property
    def committed(self) -> int | None:
        """The last change, once it is known."""
        return self._committed

    def _database_bytes(self) -> int:
        return int(self._connection.rows(statements.DATABASE_BYTES)[0][0])


def _lock_of(key: tuple[str, str, str]) -> int:
    """Return what stands for a key among locks; two that share one wait for each other, and that is all."""
    text = "\0".join(key).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big", signed=True)
