"""Bugs that need a crash to show: where the server must die, and which checker then complains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from robustness.faults.crashes import Crash, survive


@dataclass(frozen=True)
class CrashCatch:
    """The bug shows after dying there, so many times; ``on``: under which circumstances."""

    point: str
    checker: str
    times: int = 3
    on: str = ""

    @property
    def crashes(self) -> Sequence[Crash]:
        """The crashes to survive."""
        return [Crash(self.point)] * self.times


CRASH_CATCHES = {
    "answer_before_commit": CrashCatch("commit.before:8", "audit"),
    "progress_before_sync": CrashCatch("record.after:4", "disk", on="volatile_disk"),
    "answers_in_memory": CrashCatch("answer.after:40", "requests"),
    "tokens_of_a_process": CrashCatch("answer.after:40", "watch.bookmarkable", times=2),
    "settled_before_deleted": CrashCatch("delete.before:4", "disk", times=5),
}
# Deletions that a bug has forgotten are not waited for.
_REST_SECONDS = 1.5


async def crash_escapes(bug: str, folder: Path) -> str:
    """Crash a server with a bug; returns the other complaints if its checker does not catch it, empty when it does."""
    catch = CRASH_CATCHES[bug]
    bugs = "+".join(filter(None, (catch.on, bug)))
    _, found = await survive(folder / "data", catch.crashes, seed=bug, bugs=bugs, rest=_REST_SECONDS)
    if any(violation.checker == catch.checker for violation in found):
        return ""
    return f"{catch.checker} says nothing of {bug} after crashes; others: {[str(each)[:200] for each in found]}"
