"""Decides how the store forgets what is no longer needed, and how seals join the audit chain.

Must not know when that is, nor how a seal is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from upload_server.domain.chain import Seal
from upload_server.store.commands import statements
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Wants, Write
from upload_server.store.values import Moment


@dataclass(frozen=True, slots=True)
class SettleDeletions(Write[None]):
    """Forget deletions that were carried out; those of ``left_over`` let the files keep what they are read from."""

    rows: Sequence[int]
    left_over: Sequence[int] = ()

    @property
    def wants(self) -> Wants:
        """Files that keep bytes: who lets go of them meanwhile owes one more deletion, not to be settled by this."""
        return Wants(rows=self.left_over)

    def run(self, transaction: Transaction) -> None:
        """Delete their rows; those that are gone already are no error."""
        transaction.write(statements.FORGET_RUNS, rows=[*self.rows, *self.left_over])
        transaction.write(statements.SETTLE_DELETIONS, rows=list(self.rows))
        if self.left_over:
            transaction.write(statements.SETTLE_LEFT_OVER, rows=list(self.left_over))


@dataclass(frozen=True, slots=True)
class ForgetAnswers(Write[int]):
    """Delete stored answers older than ``before``, the oldest first, and the tickets whose time is over."""

    before: Moment
    limit: int

    def run(self, transaction: Transaction) -> int:
        """Delete at most ``limit`` answers; returns how many."""
        transaction.write_counted(statements.FORGET_TICKETS)
        before = self.before
        values = {"before": before.at, "served": before.served, "limit": self.limit}
        return transaction.write_counted(statements.FORGET_ANSWERS, **values)


@dataclass(frozen=True, slots=True)
class KeepServed(Write[None]):
    """Keep how long a service has run on the store: every transaction does so, this one even alone."""

    def run(self, transaction: Transaction) -> None:
        """Have the transaction keep its counters."""
        transaction.keep()


@dataclass(frozen=True, slots=True)
class SealEvents(Write[bool]):
    """Add seals to the chain, if its head still is the one they follow."""

    head: Seal | None
    seals: Sequence[Seal]

    @property
    def wants(self) -> Wants:
        """That nobody else adds to the chain."""
        return Wants((("", "SealEvents", ""),))

    def run(self, transaction: Transaction) -> bool:
        """Insert them; False, and nothing written, when the head is another one."""
        last = transaction.read(statements.READ_LAST_SEAL)
        if last != ([] if self.head is None else [self.head]):
            return False
        transaction.write_exactly(
            len(self.seals),
            statements.INSERT_SEALS,
            numbers=[(seal.event_id, seal.previous_id) for seal in self.seals],
            # One value, 32 bytes each.
            hashes=b"".join(seal.hash for seal in self.seals),
        )
        return True
