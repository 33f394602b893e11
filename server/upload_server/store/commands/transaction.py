"""Decides what commands can ask of an open write transaction; a dialect meets it.

Must not know SQL: statements come by name, and take and return values.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from upload_server.store.commands.statements import Query, Statement

R = TypeVar("R")


class Inconsistent(Exception):
    """A conditional write missed a row that was just read: a bug, or a trigger's work. Nothing is committed."""


class Transaction(Protocol):
    """An open write transaction. No other one writes until it ends."""

    @property
    def last_change(self) -> int:
        """The last change number that was given."""

    @property
    def node_id(self) -> str:
        """Which node writes; empty where no other can."""

    @property
    def served(self) -> float:
        """Seconds in which a service ran on the store, up to the beginning of the transaction."""

    def keep(self) -> None:
        """Have the counters written at the end, even if nothing else is."""

    def count_open(self) -> None:
        """Count the open files anew, for whose ends room is kept: other nodes announce and end some too."""

    def claim_room(self, files: int, text_bytes: int) -> None:
        """Take the room of so many new files whose rows hold so much text; raises ``StorageFull``."""

    def fit(self, reason: str, files: int) -> str:
        """Return a cancel's reason, cut short where it would take room that is kept for the ends of others."""

    def number(self, count: int = 1) -> int:
        """Give ``count`` change numbers; returns the first. Watchers rely on them being in commit order."""

    def read(self, query: Query[R], /, **values: Any) -> list[R]:
        """Run a query that changes nothing."""

    def write(self, statement: Statement, /, **values: Any) -> int:
        """Run a statement that changes rows; returns how many."""

    def write_exactly(self, count: int, statement: Statement, /, **values: Any) -> None:
        """Run a statement that has to change ``count`` rows; raises ``Inconsistent``."""

    def write_returning(self, query: Query[R], /, **values: Any) -> list[R]:
        """Run a statement that changes rows and returns something of each."""
