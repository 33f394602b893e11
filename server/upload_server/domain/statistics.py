"""Decides what is counted about files and batches, and in which steps of time.

Must not know where the counts are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from upload_server.domain.states import BatchStatus, FileStatus

# What happened is counted in slots of so many seconds, for a day: a bucket is made of whole slots.
SLOT_SECONDS = 10
MAX_WINDOW_SECONDS = 86_400
MAX_BUCKETS = 240
_WINDOW_SLOTS = MAX_WINDOW_SECONDS // SLOT_SECONDS
# What no window needs any more is forgotten an hour's slots at a time.
_FORGOTTEN_SLOTS = 3_600 // SLOT_SECONDS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def slot_of(moment: datetime) -> int:
    """Return the number of the slot that ``moment`` lies in."""
    return (moment - _EPOCH) // timedelta(seconds=SLOT_SECONDS)


def kept_from(oldest: int, now: datetime) -> int:
    """Return the first slot to keep of those from ``oldest`` on."""
    needed = slot_of(now) - _WINDOW_SLOTS
    return needed if needed - oldest >= _FORGOTTEN_SLOTS else oldest


@dataclass(frozen=True, slots=True)
class Buckets:
    """``count`` steps of time, each of ``slots`` slots, from the slot ``first`` on."""

    first: int
    slots: int
    count: int

    @classmethod
    def until(cls, now: datetime, step_seconds: int, count: int) -> Buckets:
        """Return the buckets whose last one ``now`` lies in."""
        slots = step_seconds // SLOT_SECONDS
        last = slot_of(now) // slots * slots
        return cls(last - (count - 1) * slots, slots, count)

    def start_of(self, index: int) -> datetime:
        """When a bucket starts."""
        return _EPOCH + timedelta(seconds=(self.first + index * self.slots) * SLOT_SECONDS)

    def slots_of(self, index: int) -> range:
        """The slots of a bucket."""
        start = self.first + index * self.slots
        return range(start, start + self.slots)


@dataclass(frozen=True, slots=True)
class Total:
    """How many files, and the sum of their announced sizes in bytes, without those whose bytes were let go."""

    files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Moves:
    """How many files were announced in a step of time, and how many became what."""

    begun: int
    completed: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What the store counts: every state is there, and ``moves`` has one for each bucket that was asked for."""

    # The last change that was counted.
    no: int
    files: Mapping[FileStatus, Total]
    batches: Mapping[BatchStatus, int]
    moves: Sequence[Moves]


class LateCancels:
    """Counts, by caller, the cancels that this process refused as too late: the store keeps no refusal."""

    def __init__(self, since: datetime) -> None:
        self.since = since
        self._totals: Counter[str | None] = Counter()
        self._slots: Counter[tuple[str | None, int]] = Counter()
        self._oldest = slot_of(since)

    def add(self, principal: str, now: datetime) -> None:
        """Count one more cancel of ``principal``."""
        slot = slot_of(now)
        for name in (principal, None):
            self._totals[name] += 1
            self._slots[name, slot] += 1
        oldest = kept_from(self._oldest, now)
        if oldest != self._oldest:
            self._oldest = oldest
            self._slots = Counter({key: count for key, count in self._slots.items() if key[1] >= oldest})

    def total(self, principal: str | None) -> int:
        """How many there were since ``since``; None: of everybody."""
        return self._totals[principal]

    def in_bucket(self, principal: str | None, buckets: Buckets, index: int) -> int:
        """How many there were in a bucket."""
        return sum(self._slots[principal, slot] for slot in buckets.slots_of(index))
