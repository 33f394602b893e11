"""Decides what a write is to the writer: a value that runs inside a transaction, alone or with others of its kind.

Must not know how transactions are grouped, begun or ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from upload_server.domain.errors import UploadError
from upload_server.store.sqlite.transaction import Transaction

T = TypeVar("T")
# What a write came to: its answer, or the exception its caller gets.
Outcome = Any


class Write(Generic[T]):
    """One call that changes something; ``T`` is its answer."""

    # May use the places kept for cancels.
    urgent: ClassVar[bool] = False

    @property
    def alone(self) -> bool:
        """Whether it may be long: it then gets a transaction of its own, in turn with the groups of short ones."""
        return False

    def run(self, transaction: Transaction) -> T:
        """Do it. An UploadError is raised before anything is written, so that the group can go on."""
        raise NotImplementedError

    @classmethod
    def run_all(cls, transaction: Transaction, writes: Sequence[Any]) -> list[Outcome]:
        """Do several of one kind; kinds that come in masses do it with one set of statements."""
        outcomes: list[Outcome] = []
        for write in writes:
            try:
                outcomes.append(write.run(transaction))
            except UploadError as refusal:
                outcomes.append(refusal)
        return outcomes


class Ping(Write[None]):
    """Takes the write lock and writes nothing."""

    def run(self, transaction: Transaction) -> None:
        """Do nothing: the transaction is the check."""
