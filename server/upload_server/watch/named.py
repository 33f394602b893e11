"""Decides what is kept for one who names what it watches: the newest of each target between two writes, within a bound.

Must not know who hands it over, nor what a stream makes of it.
"""

from __future__ import annotations

from collections import OrderedDict

from upload_server.watch.events import Changed
from upload_server.watch.turns import Turns
from upload_server.watch.watcher import Watcher


class Named(Watcher):
    """One who watches files and batches by their ids."""

    __slots__ = ("_behind", "_limit", "_pending")

    def __init__(self, limit: int, turns: Turns, *, wants_progress: bool) -> None:
        super().__init__(turns, wants_progress=wants_progress)
        self._behind = True
        # Oldest first. (Of a dict the first one is not taken out in constant time.)
        self._pending: OrderedDict[str, Changed] = OrderedDict()
        self._limit = limit

    @property
    def behind(self) -> bool:
        """Whether it was handed more than it has room for."""
        return self._behind

    def begin_to_catch_up(self) -> None:
        """Keep again what is handed over."""
        self._behind = False

    @property
    def has_more(self) -> bool:
        """Whether something is kept."""
        return bool(self._pending)

    def offer(self, changed: Changed) -> None:
        """Take a change; an older one of the same target is merged into it. Never waits."""
        pending, key = self._pending, changed.key
        if self._behind:
            # The page that it reads next holds this change too; kept here, it would be sent before older ones.
            return
        pending[key] = changed
        if len(pending) > 1:
            # The order stays that of the change numbers.
            pending.move_to_end(key)
        if len(pending) > self._limit:
            pending.clear()
            self._behind = True
        self.wake()

    def take(self) -> Changed | None:
        """Take the oldest change that is kept."""
        return self._pending.popitem(last=False)[1] if self._pending else None
