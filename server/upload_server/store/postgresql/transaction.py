"""Decides how one write transaction runs the statements of commands, and numbers changes.

Must not know what is written. Used on the writer's thread only, from the order lock to COMMIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.statements import Query, Statement
from upload_server.store.commands.transaction import Inconsistent
from upload_server.store.postgresql import statements
from upload_server.store.postgresql.connection import Connection
from upload_server.store.postgresql.row_room import RowRoom
from upload_server.store.postgresql.rows import MAKE_ROW, encode, encode_wanted

R = TypeVar("R")
# Statements by the names that commands know them by.
_SQL: Mapping[str, str] = vars(statements)


class PostgresqlTransaction:
    """An open write transaction: it begins with this object, and the committer ends it."""

    def __init__(
        self,
        connection: Connection,
        clock: ServedClock | None = None,
        room: RowRoom | None = None,
        node_id: str = "",
    ) -> None:
        """Take the order lock and read the counters. Without a ``clock`` no service runs, without ``room`` nothing can
        be announced. ``node_id``: who writes."""
        self.node_id = node_id
        [(last_change, served)] = connection.last_rows(
            statements.BEGIN, statements.TAKE_ORDER_LOCK, statements.READ_COUNTERS
        )
        self._connection = connection
        self.served: float = served if clock is None else max(served, clock.read())
        self._room = room
        # Watched rows have changed once `last_change` is above this.
        self.numbered_from = last_change
        self.last_change = last_change
        # The database's own number of this transaction, once it has written its counters.
        self.transaction_no = ""
        self.wrote = False

    def read(self, query: Query[R], /, **values: Any) -> list[R]:
        """Run a SELECT."""
        return list(map(MAKE_ROW[query.row], self._connection.rows(_SQL[query.name], encode_wanted(values))))

    def write(self, statement: Statement, /, **values: Any) -> int:
        """Run a statement that changes rows; returns how many."""
        count: int = self._connection.execute(_SQL[statement.name], encode(values))
        self.wrote |= count > 0
        return count

    def write_returning(self, query: Query[R], /, **values: Any) -> list[R]:
        """Run a statement with RETURNING; returns its rows."""
        rows = list(map(MAKE_ROW[query.row], self._connection.rows(_SQL[query.name], encode(values))))
        self.wrote |= bool(rows)
        return rows

    def write_exactly(self, count: int, statement: Statement, /, **values: Any) -> None:
        """Run a statement that has to change ``count`` rows."""
        written = self._connection.execute(_SQL[statement.name], encode(values))
        self.wrote |= written > 0
        if written != count:
            raise Inconsistent(f"{statement.name} changed {written} rows instead of {count}")

    def keep(self) -> None:
        """Have the counters written at the end."""
        self.wrote = True

    def count_open(self) -> None:
        """Count the open files anew; those that this group opens or ends are counted twice until the next time."""
        if self._room is not None:
            self._room.open_files = int(self._connection.rows(statements.COUNT_OPEN)[0][0])

    def claim_room(self, files: int, text_bytes: int) -> None:
        """Take the room of new rows."""
        if self._room is None:
            raise RuntimeError("this transaction announces nothing")
        self._room.claim(files, text_bytes, self._database_bytes)

    def fit(self, reason: str, files: int) -> str:
        """Return a cancel's reason, cut short where the database may hardly grow."""
        return self._room.fit(reason, files) if self._room else reason

    def _database_bytes(self) -> int:
        return int(self._connection.rows(statements.DATABASE_BYTES)[0][0])

    def number(self, count: int = 1) -> int:
        """Allot ``count`` change numbers; returns the first. Watchers rely on them being in commit order."""
        first: int = self.last_change + 1
        self.last_change += count
        return first

    def finish(self) -> None:
        """Write the counters; the last statement before COMMIT."""
        if self.wrote:
            counters = {"last_change": self.last_change, "served": self.served}
            self.transaction_no = self._connection.rows(statements.WRITE_COUNTERS, counters)[0][0]
