"""Decides what commands can ask of an open write transaction; a dialect meets it.

Must not know SQL: statements come by name, and take and return values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from upload_server.store.commands.statements import BatchRow, Query, Statement

R = TypeVar("R")


class Inconsistent(Exception):
    """A conditional write missed a row that was just read: a bug, or a trigger's work. Nothing is committed."""


class Transaction(Protocol):
    """An open write transaction: until it ends no other one writes what its writes have said that they want.

    What it writes a read may not show: a dialect may send it with the COMMIT. So what is asked again is remembered.
    """

    # Batches by row, as this transaction leaves them.
    batches: dict[int, BatchRow]

    @property
    def node_id(self) -> str:
        """Which node writes; empty where no other can."""

    @property
    def served(self) -> float:
        """Seconds in which a service ran on the store, up to the beginning of the transaction."""

    def keep(self) -> None:
        """Have the counters written at the end, even if nothing else is."""

    def tidy(self) -> None:
        """Clear away what transactions have left behind that died half-way."""

    def count_open(self) -> None:
        """Count the open files anew, for whose ends room is kept: other nodes announce and end some too."""

    def claim_room(self, files: int, text_bytes: int) -> None:
        """Take the room of so many new files whose rows hold so much text; raises ``StorageFull``."""

    def fit(self, reason: str, files: int) -> str:
        """Return a cancel's reason, cut short where it would take room that is kept for the ends of others."""

    def number(self, count: int = 1) -> int:
        """Give ``count`` change numbers; returns the first. Watchers rely on them being in commit order.

        They may be what the real ones, which only the COMMIT brings, are counted from: they go into writes and
        outcomes, and are compared with each other alone.
        """

    def read(self, query: Query[R], /, **values: Any) -> list[R]:
        """Run a query that changes nothing."""

    def write(self, statement: Statement, /, **values: Any) -> None:
        """Have a statement run that changes any number of rows."""

    def write_exactly(self, count: int, statement: Statement, /, **values: Any) -> None:
        """Have a statement run that has to change ``count`` rows; else nothing is committed."""

    def write_counted(self, statement: Statement, /, **values: Any) -> int:
        """Run a statement that changes rows and takes no numbers; returns how many."""

    def write_returning(self, query: Query[R], /, **values: Any) -> Sequence[R]:
        """Run a statement that changes rows, takes no numbers and returns something of each row."""
