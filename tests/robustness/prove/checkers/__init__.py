"""Checkers: each reads a history and says which promises it breaks. They know the contract, not the code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from robustness.prove.checkers import audit, batches, disk, finality, linear, nodes, reads, requests, watches
from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History

Checker = Callable[[History], Iterable[Violation]]

CHECKERS: Mapping[str, Checker] = {
    "linear": linear.check,
    "finality": finality.check,
    "requests": requests.check,
    "batches": batches.check,
    "reads": reads.check,
    "watch.ordered": watches.ordered,
    "watch.unique": watches.unique,
    "watch.atomic": watches.atomic,
    "watch.reliable": watches.reliable,
    "watch.resumable": watches.resumable,
    "watch.bookmarkable": watches.bookmarkable,
    "watch.true": watches.true,
    "audit": audit.check,
    "disk": disk.check,
    "nodes.told": nodes.told,
    "nodes.living": nodes.living,
    "nodes.alarms": nodes.alarms,
}


def check(history: History, *names: str) -> list[Violation]:
    """Run the named checkers, or all."""
    return [violation for name in names or CHECKERS for violation in CHECKERS[name](history)]


__all__ = ["CHECKERS", "Checker", "Violation", "check"]
