"""Decides how a ticket is kept, so that one socket is opened by it, once, whichever node it comes to.

Must not know what a ticket says. Times are the store's: the clocks of nodes may differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from upload_server.store.commands import statements
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Write


@dataclass(frozen=True, slots=True)
class KeepTicket(Write[None]):
    """Keep a ticket, by its SHA-256, for so many seconds."""

    sha256: str
    identity: str
    seconds: float

    def run(self, transaction: Transaction) -> None:
        """Insert its row; raises ``StorageFull`` where an announcement does."""
        transaction.claim_room(1, len(self.sha256) + len(self.identity))
        transaction.write_exactly(
            1, statements.KEEP_TICKET, sha256=self.sha256, identity=self.identity, seconds=self.seconds
        )


@dataclass(frozen=True, slots=True)
class TakeTicket(Write[str | None]):
    """Take a ticket: of those who show the same one, one has it."""

    sha256: str

    def run(self, transaction: Transaction) -> str | None:
        """Delete its row; returns the identity that stood there, None where there is no such row."""
        taken = transaction.write_returning(statements.TAKE_TICKET, sha256=self.sha256)
        return taken[0][0] if taken else None
