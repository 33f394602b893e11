"""Decides how one write transaction runs the statements of commands, and numbers changes.

Must not know what is written, nor how a dialect begins and commits. Used on the writer's thread only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.statements import BatchRow, Query, Statement
from upload_server.store.commands.writes import Outcome, Write
from upload_server.store.sql import statements
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Sql
from upload_server.store.sql.row_room import RowRoom
from upload_server.store.sql.rows import MAKE_ROW

R = TypeVar("R")
C = TypeVar("C", bound=Connection)
# Statements by the names that commands know them by.
SQL: Mapping[str, Sql] = vars(statements)


class SqlTransaction(ABC, Generic[C]):
    """An open write transaction: it begins with this object, and the committer ends it."""

    def __init__(
        self,
        connection: C,
        clock: ServedClock | None = None,
        room: RowRoom | None = None,
        node_id: str = "",
    ) -> None:
        """Begin, and read the counters. Without a ``clock`` no service runs, without ``room`` nothing can be
        announced. ``node_id``: who writes, where others may."""
        self.node_id = node_id
        self._connection = connection
        last_change, served = self._begin()
        self.served: float = served if clock is None else max(served, clock.read())
        self._room = room
        self.batches: dict[int, BatchRow] = {}
        # Watched rows have changed once `last_change` is above this.
        self.numbered_from = last_change
        self.last_change = last_change
        self.wrote = False

    @abstractmethod
    def _begin(self) -> tuple[int, float]:
        """Begin, and return the last change number and the seconds served."""

    def take(self, writes: Sequence[Write[Any]]) -> None:
        """Have what writes want to itself, where a transaction is not alone anyway."""

    def finish(self) -> None:
        """Do what may still fail without a doubt, right before ``commit``."""

    @abstractmethod
    def commit(self) -> None:
        """Commit; what was committed has its numbers then."""

    def settled(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Return outcomes with the numbers that were committed."""
        return outcomes

    @property
    def committed(self) -> int | None:
        """The last change that watchers may read since, None when no watched row was changed."""
        return self.last_change if self.last_change > self.numbered_from else None

    @abstractmethod
    def _database_bytes(self) -> int:
        """Ask for the size of the database."""

    def read(self, query: Query[R], /, **values: Any) -> list[R]:
        """Run a SELECT."""
        return list(map(MAKE_ROW[query.row], self._connection.rows(SQL[query.name], values)))

    @abstractmethod
    def write(self, statement: Statement, /, **values: Any) -> None:
        """Have a statement run that changes any number of rows."""

    @abstractmethod
    def write_exactly(self, count: int, statement: Statement, /, **values: Any) -> None:
        """Have a statement run that has to change ``count`` rows; else nothing is committed."""

    def write_counted(self, statement: Statement, /, **values: Any) -> int:
        """Run a statement that changes rows and takes no numbers; returns how many."""
        count = self._connection.execute(SQL[statement.name], values)
        self.wrote |= count > 0
        return count

    def write_returning(self, query: Query[R], /, **values: Any) -> list[R]:
        """Run a statement with RETURNING that takes no numbers; returns its rows."""
        rows = list(map(MAKE_ROW[query.row], self._connection.execute_returning(SQL[query.name], values)))
        self.wrote |= bool(rows)
        return rows

    def keep(self) -> None:
        """Have the counters written at the end."""
        self.wrote = True

    def tidy(self) -> None:
        """Clear away what transactions have left behind that died half-way, where one can."""

    def count_open(self) -> None:
        """Count the open files anew; those that this group opens or ends are counted twice until the next time."""
        if self._room is not None and self._room.counts:
            self._room.open_files = int(self._connection.rows(statements.COUNT_OPEN)[0][0])

    def claim_room(self, files: int, text_bytes: int) -> None:
        """Take the room of new rows."""
        if self._room is None:
            raise RuntimeError("this transaction announces nothing")
        self._room.claim(files, text_bytes, self._database_bytes)

    def fit(self, reason: str, files: int) -> str:
        """Return a cancel's reason, cut short where the database may hardly grow."""
        return self._room.fit(reason, files) if self._room else reason

    def number(self, count: int = 1) -> int:
        """Allot ``count`` change numbers; returns the first. Watchers rely on them being in commit order."""
        first: int = self.last_change + 1
        self.last_change += count
        return first
