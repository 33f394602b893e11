"""Decides what is remembered of a file's senders from one request to the next: who heard of a cancel, who was replaced.

Must not know requests or answers. A node remembers by itself, the newest files only. One that has forgotten (a restart,
another node) tells a sender once more what it has heard before: no harm.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# Files that are remembered; a file costs some 200 bytes.
_MOST: Final = 10_000
# A sender that is replaced again so soon is not a late request of the one that has replaced it: two senders fight.
FIGHT_SECONDS: Final = 10.0


class Senders:
    """What one node remembers of senders between their requests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, bool] = {}
        self._replaced: dict[str, float] = {}

    def note_told(self, file_id: str, *, heard: bool) -> None:
        """Note that a sender was told of its file's cancel, and whether it was there to hear all of it."""
        _remember(self._heard, file_id, heard or self._heard.get(file_id, False))

    def has_heard(self, file_id: str) -> bool | None:
        """Whether a sender has heard of its file's cancel; None when none was told."""
        return self._heard.get(file_id)

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
