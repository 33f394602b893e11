"""Decides what a write is to the writer: a value that runs inside a transaction, alone or with others of its kind.

Must not know how transactions are begun or ended.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from upload_server.domain.errors import UploadError
from upload_server.store.commands.transaction import Transaction

T = TypeVar("T")
# What a write came to: its answer, or the exception its caller gets.
Outcome = Any


class Wants(NamedTuple):
    """What a write has to itself from its first read to the COMMIT, where other nodes write at the same time."""

    # Request ids, each with its scope: an answer is stored once. A name in place of a scope keeps others of its kind.
    keys: Sequence[tuple[str, str, str]] = ()
    # Files, and the batches that they are counted in.
    file_ids: Sequence[str] = ()
    # The same, by the row.
    rows: Sequence[int] = ()
    # Files whose change of this kind is counted in no batch.
    uncounted: Sequence[str] = ()
    # Batches, and all files of theirs that are not final.
    batch_ids: Sequence[str] = ()


class Write(Generic[T]):
    """One call that changes something; ``T`` is its answer."""

    # A cancel: it may use the places that the queue keeps for cancels, and goes before the others of its group.
    urgent: ClassVar[bool] = False
    # Several of one group may want the same: they are done by one set of statements.
    by_sets: ClassVar[bool] = False
    # It may take numbers by the thousand.
    long: ClassVar[bool] = False

    @property
    def wants(self) -> Wants:
        """What no other transaction may change meanwhile."""
        return Wants()

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


def in_waves(group: Sequence[Write[Any]]) -> list[list[int]]:
    """Return the places of the group's writes by transactions: of those that want the same each is in one of its own,
    in their order, since it has to read what the one before has written."""
    waves: list[list[int]] = [[]]
    latest: dict[Hashable, tuple[int, type[Write[Any]]]] = {}
    for index, write in enumerate(group):
        keys, file_ids, rows, uncounted, _ = write.wants
        kind, wave = type(write), 0
        wanted: list[Hashable] = [*keys, *file_ids, *rows, *uncounted]
        for each in wanted:
            before, its_kind = latest.get(each, (-1, kind))
            wave = max(wave, before if kind is its_kind and kind.by_sets else before + 1)
        latest.update((each, (wave, kind)) for each in wanted)
        if wave == len(waves):
            waves.append([])
        waves[wave].append(index)
    return waves


class Ping(Write[None]):
    """Begins a transaction and writes nothing."""

    def run(self, transaction: Transaction) -> None:
        """Do nothing: the transaction is the check."""
