"""Decides how the old end of the trail goes, which was exported, and then the rows that no event is about any more.

Must not know how old they are. Each transaction is short: a cancel that comes meanwhile waits for its end.
"""

from __future__ import annotations

from dataclasses import dataclass

from upload_server.store.commands import statements
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Wants, Write
from upload_server.store.values import PrunedRows


@dataclass(frozen=True, slots=True)
class PruneTrail(Write[bool]):
    """Delete the events from behind the origin up to ``upto``, with their seals; the last of these is the new origin.

    ``events``: how many were exported, and no other number may go.
    """

    after: int
    upto: int
    events: int

    @property
    def wants(self) -> Wants:
        """That nobody else moves the origin."""
        return Wants((("", "PruneTrail", ""),))

    def run(self, transaction: Transaction) -> bool:
        """Move it; False, and nothing written, when it is another one by now."""
        origin = transaction.read(statements.READ_ORIGIN)
        if (origin[0].event_id if origin else 0) != self.after:
            return False
        transaction.write_exactly(1, statements.MOVE_ORIGIN, upto=self.upto)
        transaction.write_exactly(self.events, statements.PRUNE_EVENTS, upto=self.upto)
        transaction.write_exactly(self.events, statements.PRUNE_SEALS, upto=self.upto)
        transaction.write(statements.FORGET_ORIGINS, upto=self.upto)
        return True


@dataclass(frozen=True, slots=True)
class DeleteRows(Write[None]):
    """Delete files and batches that the trail tells nothing of any more, and go on counting them."""

    rows: PrunedRows

    @property
    def wants(self) -> Wants:
        """That nobody else counts them."""
        return Wants((("", "DeleteRows", ""),))

    def run(self, transaction: Transaction) -> None:
        """Delete them; those that are gone already are no error."""
        files, batches = self.rows
        transaction.write(statements.COUNT_PRUNED_FILES, rows=files)
        transaction.write(statements.FORGET_RUNS, rows=files)
        transaction.write(statements.DELETE_FILES, rows=files)
        transaction.write(statements.COUNT_PRUNED_BATCHES, rows=batches)
        transaction.write(statements.DELETE_BATCHES, rows=batches)
