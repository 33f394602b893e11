"""Decides how much one principal may have: at once, a second, and in files and bytes.

Must not know doors, nor how files are counted. Cancels are never refused for files or bytes, and have a rate of their
own: who is over every quota can still make room.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from upload_server.domain.errors import QuotaExceeded, RateExceeded

# So many times the rate of calls a principal may cancel.
_CANCELS: Final = 10
# Seconds of its rate that a principal may take at once.
_BURST_SECONDS: Final = 2.0
# Principals whose rates and use are remembered: those that called last.
_MOST_REMEMBERED: Final = 10_000
# A refusal for files or bytes rests on a count that is at most so old.
_FRESH_SECONDS: Final = 0.2
# What others than this node have announced is heard of after so long.
_STALE_SECONDS: Final = 10.0


class Use(NamedTuple):
    """What a principal has: files that are not final, and bytes, announced of those and kept of completed ones."""

    open_files: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Quota:
    """How much a principal may have; 0: as much as there is room for. ``calls`` are those of a second."""

    open_files: int = 0
    size_bytes: int = 0
    uploads: int = 0
    watches: int = 0
    websockets: int = 0
    calls: float = 0


@dataclass(slots=True)
class _Known:
    """What was counted of a principal, when, and what this node has announced for it since then."""

    use: Use
    at: float
    files: int = 0
    size_bytes: int = 0


@dataclass(slots=True)
class _Bucket:
    """Calls that a principal may make at once; filled by its rate."""

    calls: float
    at: float


class Quotas:
    """The quota of every principal, and what each has of it on this node; on one event loop."""

    def __init__(
        self,
        quota: Quota,
        count: Callable[[str], Awaitable[Use]],
        clock: Callable[[], float] = time.monotonic,
        own: Callable[[str], Quota | None] = lambda _: None,
    ) -> None:
        """``quota`` is that of principals for whom ``own`` has none; ``count`` tells what a principal has in the store.

        ``clock`` gives seconds.
        """
        self._quota = quota
        self._own = own
        self._count = count
        self._clock = clock
        self._at_once: Counter[tuple[str, str]] = Counter()
        self._buckets: OrderedDict[tuple[str, bool], _Bucket] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def _of(self, principal: str) -> Quota:
        return self._own(principal) or self._quota

    def _most_at_once(self, principal: str) -> Mapping[str, int]:
        quota = self._of(principal)
        return {"uploads": quota.uploads, "watches": quota.watches, "websockets": quota.websockets}

    def call(self, principal: str, *, cancels: bool) -> None:
        """Count a call; raises ``RateExceeded``."""
        rate = self._of(principal).calls * (_CANCELS if cancels else 1)
        if not rate:
            return
        now, most = self._clock(), max(1.0, rate * _BURST_SECONDS)
        bucket = self._buckets.setdefault((principal, cancels), _Bucket(most, now))
        bucket.calls, bucket.at = min(most, bucket.calls + (now - bucket.at) * rate), now
        self._buckets.move_to_end((principal, cancels))
        if len(self._buckets) > _MOST_REMEMBERED:
            self._buckets.popitem(last=False)
        if bucket.calls < 1:
            raise RateExceeded("cancels" if cancels else "calls", rate, (1 - bucket.calls) / rate)
        bucket.calls -= 1

    def enter(self, principal: str, kind: str) -> None:
        """Count a stream or socket in, ``uploads``, ``watches`` or ``websockets``; raises ``QuotaExceeded``."""
        most, used = self._most_at_once(principal)[kind], self._at_once[principal, kind]
        if most and used >= most:
            raise QuotaExceeded(principal, kind, most, used)
        self._at_once[principal, kind] += 1

    def leave(self, principal: str, kind: str) -> None:
        """Count a stream or socket out."""
        self._at_once[principal, kind] -= 1
        if not self._at_once[principal, kind]:
            del self._at_once[principal, kind]

    async def announce(self, principal: str, files: int, size_bytes: int, *, whole: bool = False) -> None:
        """Count an announcement; raises ``QuotaExceeded``. ``whole``: its files are completed at once.

        What was counted and what this node has announced since then is the most that there can be: only where that is
        over the quota is it counted anew. Nodes that announce for one principal at once may go over by what each takes
        in a few seconds.
        """
        quota = self._of(principal)
        if not (quota.open_files or quota.size_bytes):
            return
        opened = 0 if whole else files
        known = await self._read(principal, _STALE_SECONDS)
        if _lacking(quota, known, opened, size_bytes) is not None:
            known = await self._read(principal, _FRESH_SECONDS)
            lacking = _lacking(quota, known, opened, size_bytes)
            if lacking is not None:
                raise QuotaExceeded(principal, *lacking)
        known.files += opened
        known.size_bytes += size_bytes

    async def used(self, principal: str) -> Mapping[str, tuple[int, int]]:
        """Return each bound of a principal, by its name, with what it has of it."""
        quota, at_once = self._of(principal), self._most_at_once(principal)
        found = {kind: (most, self._at_once[principal, kind]) for kind, most in at_once.items()}
        if quota.open_files or quota.size_bytes:
            known = await self._read(principal, _FRESH_SECONDS)
            found["open-files"] = quota.open_files, known.use.open_files + known.files
            found["bytes"] = quota.size_bytes, known.use.size_bytes + known.size_bytes
        return {name: bound for name, bound in found.items() if bound[0]}

    async def _read(self, principal: str, seconds: float) -> _Known:
        """Return what is known of a principal, counted no longer ago than that."""
        known = self._known.get(principal)
        if known is None or self._clock() - known.at > seconds:
            at, before = self._clock(), (known.files, known.size_bytes) if known is not None else (0, 0)
            use = await self._count(principal)
            newest = self._known.get(principal)
            # What was announced while it was counted may be in the count or not: it counts as not.
            since = (newest.files - before[0], newest.size_bytes - before[1]) if newest is not None else (0, 0)
            known = self._known[principal] = _Known(use, at, max(0, since[0]), max(0, since[1]))
        self._known.move_to_end(principal)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return known


def _lacking(quota: Quota, known: _Known, opened: int, size_bytes: int) -> tuple[str, int, int] | None:
    """Return the bound that an announcement would break, with what is used of it."""
    files, used = known.use.open_files + known.files, known.use.size_bytes + known.size_bytes
    if opened and quota.open_files and files + opened > quota.open_files:
        return "open-files", quota.open_files, files
    if quota.size_bytes and used + size_bytes > quota.size_bytes:
        return "bytes", quota.size_bytes, used
    return None
