"""Decides what a write is to the writer: a value that runs inside a transaction, alone or with others of its kind.

Must not know how transactions are begun or ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

from upload_server.domain.errors import UploadError
from upload_server.store.commands.transaction import Transaction

T = TypeVar("T")
# What a write came to: its answer, or the exception its caller gets.
Outcome = Any


class Write(Generic[T]):
    """One call that changes something; ``T`` is its answer."""

    # A cancel: it may use the places that the queue keeps for cancels, and goes before the others of its group.
    urgent: ClassVar[bool] = False

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


def run_group(transaction: Transaction, group: Sequence[Write[Any]]) -> list[Outcome]:
    """Run the writes of each kind together, urgent kinds first, and return outcomes in the group's order.

    None of a group has been answered when the last of it is called, so each order is one they could have come in.
    """
    kinds: dict[type[Write[Any]], list[int]] = {}
    for index, write in enumerate(group):
        kinds.setdefault(type(write), []).append(index)
    outcomes: list[Outcome] = [None] * len(group)
    for kind in sorted(kinds, key=lambda each: not each.urgent):
        indexes = kinds[kind]
        answers = kind.run_all(transaction, [group[index] for index in indexes])
        for index, answer in zip(indexes, answers, strict=True):
            outcomes[index] = answer
    return outcomes


class Ping(Write[None]):
    """Takes the write lock and writes nothing."""

    def run(self, transaction: Transaction) -> None:
        """Do nothing: the transaction is the check."""
