"""Decides how a part below the doors notes what a call waited for: a queue, a commit, a disk.

Must not know who reads the notes. Where nobody does, as without traces, nothing is noted.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from typing import Final, NamedTuple

# Of a stream that lasts for hours the first ones are kept.
_MOST: Final = 64


class Step(NamedTuple):
    """What a call waited for, from when to when by ``time.monotonic``, and what it was about."""

    name: str
    began: float
    ended: float
    about: str = ""


class Steps:
    """The steps of one call, in the order in which they ended."""

    def __init__(self) -> None:
        self.taken: list[Step] = []

    def add(self, name: str, began: float, ended: float, about: str = "") -> None:
        """Note a step; one too many is left out."""
        if len(self.taken) < _MOST:
            self.taken.append(Step(name, began, ended, about))


# Of the call that the running task works for; None: nobody asks.
STEPS: Final[ContextVar[Steps | None]] = ContextVar("steps", default=None)


def note(name: str, began: float) -> None:
    """Note a step of this task's call that has ended just now."""
    steps = STEPS.get()
    if steps is not None:
        steps.add(name, began, time.monotonic())
