"""Decides what is remembered of a file's senders from one request to the next: who heard of a cancel, who was replaced.

Must not know requests or answers. A node remembers by itself, the newest files only. One that has forgotten (a restart,
another node) tells a sender once more what it has heard before: no harm.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# Files that are remembered; a file costs some 200 bytes.
_MOST: Final = 10_000
# A sender that is replaced again so soon is not a late request of the one that has replaced it: two senders fight.
FIGHT_SECONDS: Final = 10.0
# A client that comes back by itself does so within so long.
COME_BACK_SECONDS: Final = 60.0


class Senders:
    """What one node remembers of senders between their requests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # From when on a file's senders count as told.
        self._heard: dict[str, float] = {}
        self._replaced: dict[str, float] = {}

    def note_told(self, file_id: str, *, in_full: bool, asked: bool) -> None:
        """Note that a sender was told of its file's cancel, and whether it was there for all of the answer.

        One that ``asked`` (its request is younger than the cancel) and then hung up has heard it, or its line broke:
        then it comes back by itself, but soon. After that the next one to ask is a person.
        """
        if self.has_heard(file_id):
            return
        now = self._clock()
        _remember(self._heard, file_id, now if in_full else now + COME_BACK_SECONDS if asked else math.inf)

    def has_heard(self, file_id: str) -> bool | None:
        """Whether a file's sender knows of its cancel; None when none was told."""
        since = self._heard.get(file_id)
        return None if since is None else since <= self._clock()

    def note_replaced(self, file_id: str) -> bool:
        """Note that a newer sender took the file over; returns whether that has happened just before as well."""
        now = self._clock()
        before = self._replaced.get(file_id)
        _remember(self._replaced, file_id, now)
        return before is not None and now - before < FIGHT_SECONDS


def _remember(memory: dict[str, T], file_id: str, what: T) -> None:
    memory.pop(file_id, None)
    memory[file_id] = what
    if len(memory) > _MOST:
        del memory[next(iter(memory))]
