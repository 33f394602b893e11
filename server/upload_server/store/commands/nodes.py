"""Decides how a node says that it lives, whose turn it is to keep house, and how it leaves.

Must not know what a node does, nor when. Times are the store's: the clocks of nodes may differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from upload_server.store.commands import statements
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Write
from upload_server.store.values import StreamStop

# Nothing of a node that died is needed any more after so long: even one that was stopped has looked up its last commit.
_REMEMBERED_SECONDS = 3600.0


class Beaten(NamedTuple):
    """What a node hears when it says that it lives: whether it is its turn to keep house, and which others live."""

    leads: bool
    others: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Beat(Write[Beaten]):
    """Say that a node lives for another ``lease_seconds``, and take or keep the turn to keep house if it is free."""

    version: str
    address: str
    lease_seconds: float

    def run(self, transaction: Transaction) -> Beaten:
        """Say so; the node that keeps house forgets those that died long ago."""
        node = transaction.node_id
        others = transaction.read(statements.READ_OTHERS, node=node)
        # Of two that find the turn free at once both believe that they have it, until they say again that they live.
        leads = not transaction.read(statements.READ_LEASE_OF_OTHER, name="upkeep", node=node)
        transaction.write(
            statements.BEAT, node=node, version=self.version, address=self.address, seconds=self.lease_seconds
        )
        if leads:
            transaction.write(statements.TAKE_LEASE, name="upkeep", node=node, seconds=self.lease_seconds)
            transaction.write(statements.FORGET_NODES, seconds=-_REMEMBERED_SECONDS)
            transaction.write(statements.FORGET_STOPS)
        transaction.tidy()
        transaction.count_open()
        return Beaten(leads, tuple(row[0] for row in others))


@dataclass(frozen=True, slots=True)
class Leave(Write[None]):
    """Have a node's place be free at once, not only when its lease is over."""

    def run(self, transaction: Transaction) -> None:
        """Delete what names the node as one that lives."""
        transaction.write(statements.LEAVE, node=transaction.node_id)
        transaction.write(statements.GIVE_UP_LEASES, node=transaction.node_id)
        transaction.write(statements.FORGET_STOPS)


@dataclass(frozen=True, slots=True)
class SettleStops(Write[None]):
    """Forget stops of this node's streams that it has heard."""

    stops: Sequence[StreamStop]

    def run(self, transaction: Transaction) -> None:
        """Delete their rows."""
        stops = [(stop.row, stop.fence) for stop in self.stops]
        transaction.write(statements.SETTLE_STOPS, stops=stops, node=transaction.node_id)


class Membership:
    """What this node knows of its own life among others, by a clock of its own that nobody sets."""

    def __init__(self, lease_seconds: float, steady: Callable[[], float] = time.monotonic) -> None:
        self.lease_seconds = lease_seconds
        self._steady = steady
        self._until = 0.0
        # Since when it has lived without a gap.
        self._since = 0.0
        self._beaten = Beaten(leads=False)

    def now(self) -> float:
        """Return the time that a beat is asked for."""
        return self._steady()

    def beaten(self, asked_at: float, beaten: Beaten) -> None:
        """A beat that was asked for at ``asked_at`` was committed: the store counts its lease from later on."""
        if asked_at > self._until:
            self._since = asked_at
        self._until = asked_at + self.lease_seconds
        self._beaten = beaten

    def lived_since(self, moment: float) -> bool:
        """Whether no other node could take this one for dead at any time since ``moment`` of its clock."""
        return self._since <= moment and self.lives

    @property
    def lives(self) -> bool:
        """Whether no other node can take this one for dead."""
        return self._steady() < self._until

    @property
    def leads(self) -> bool:
        """Whether it is this node's turn to keep house. That saves work, and guards nothing."""
        return self._beaten.leads and self.lives

    @property
    def others(self) -> tuple[str, ...]:
        """The nodes that lived besides this one when it was last heard of."""
        return self._beaten.others
