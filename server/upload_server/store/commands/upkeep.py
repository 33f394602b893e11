"""Decides how the store forgets what is no longer needed.

Must not know when that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from upload_server.store.commands.writes import Write
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.rows import time_text, to_json
from upload_server.store.sqlite.transaction import Transaction


@dataclass(frozen=True, slots=True)
class SettleDeletions(Write[None]):
    """Forget deletions that were carried out."""

    rows: Sequence[int]

    def run(self, transaction: Transaction) -> None:
        """Delete their rows; those that are gone already are no error."""
        transaction.write(statements.SETTLE_DELETIONS, rows=to_json(list(self.rows)))


@dataclass(frozen=True, slots=True)
class ForgetAnswers(Write[int]):
    """Delete stored answers older than ``before``, the oldest first."""

    before: datetime
    limit: int

    def run(self, transaction: Transaction) -> int:
        """Delete at most ``limit`` of them; returns how many."""
        forgotten = transaction.write_returning(
            statements.FORGET_ANSWERS, before=time_text(self.before), limit=self.limit
        )
        return len(forgotten)
