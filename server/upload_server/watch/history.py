"""Decides which changes are kept for the watchers of ``all``: those who see the same rows share one history, each has
its own position in it.

Must not know what a stream makes of a change. A watcher that never reads costs a commit nothing, and keeps nothing.
"""

from __future__ import annotations

from upload_server.watch.events import Changed
from upload_server.watch.turns import LoopTurns
from upload_server.watch.watcher import Watcher

# The oldest changes go by so many at once: moving the others for each of them would cost more.
_FORGOTTEN_AT_ONCE = 256
# However many histories share what may be kept.
_LEAST_SHARE = 16


class History:
    """The newest changes, by position: the first one ever has 0, the next one 1."""

    def __init__(self) -> None:
        # Position of the oldest change that is kept, and the one that the next change will have.
        self.start = self.end = 0
        # How many watchers read it, and those of them that wait for the next change: they have taken all there is.
        self.readers = 0
        self.resting: set[Watcher] = set()
        self._kept: list[Changed] = []
        # Of each target the position of its newest change.
        self._newest: dict[str, int] = {}

    def publish(self, changed: Changed, limit: int) -> None:
        """Keep a change, and wake the watchers that rest.

        ``limit``: at least so many changes are kept; never twice as many, nor a few hundred more.
        """
        if self._kept and len(self.resting) == self.readers:
            # All of them have taken what there was.
            self._forget(len(self._kept))
        if not self.readers:
            return
        self._newest[changed.key] = self.end
        self._kept.append(changed)
        self.end += 1
        if len(self._kept) >= limit + min(limit, _FORGOTTEN_AT_ONCE):
            self._forget(len(self._kept) - limit)
        resting, self.resting = self.resting, set()
        for watcher in resting:
            watcher.wake()

    def at(self, position: int) -> Changed | None:
        """Return the change at a position that is kept; None if there is a newer one of its target."""
        changed = self._kept[position - self.start]
        return changed if self._newest[changed.key] == position else None

    def _forget(self, count: int) -> None:
        for position, changed in enumerate(self._kept[:count], self.start):
            if self._newest[changed.key] == position:
                del self._newest[changed.key]
        del self._kept[:count]
        self.start += count


class Histories:
    """The histories of those who watch ``all``: one for each owner whose rows alone some of them see, and one for those
    who see everybody's (None).

    So a change wakes those who may hear of it, and costs nothing of however many others there are.
    """

    def __init__(self, limit: int) -> None:
        """``limit``: so many changes are kept at least, shared out among the histories."""
        self._limit = limit
        self._by_sight: dict[str | None, History] = {}

    def join(self, sees: str | None) -> History:
        """Return the history of those who see this; whoever joins leaves again, and has read meanwhile."""
        history = self._by_sight.get(sees)
        if history is None:
            history = self._by_sight[sees] = History()
        return history

    def leave(self, sees: str | None) -> None:
        """Forget a history that nobody reads any more."""
        if not self._by_sight[sees].readers:
            del self._by_sight[sees]

    def publish(self, owner: str, changed: Changed) -> None:
        """Keep a change of an owner's row for those who see it, and wake those that rest."""
        for sees in (None, owner):
            history = self._by_sight.get(sees)
            if history is not None:
                history.publish(changed, max(min(_LEAST_SHARE, self._limit), self._limit // len(self._by_sight)))


class AllWatcher(Watcher):
    """A watcher of ``all``: of all that it sees."""

    __slots__ = ("_histories", "_history", "_position", "sees")

    def __init__(self, histories: Histories, sees: str | None, turns: LoopTurns, *, wants_progress: bool) -> None:
        super().__init__(turns, wants_progress=wants_progress)
        self.sees = sees
        self._histories = histories
        self._history = histories.join(sees)
        self._history.readers += 1
        # A fresh one has missed everything.
        self._position = -1

    @property
    def behind(self) -> bool:
        """Whether the history has forgotten what comes next."""
        return self._position < self._history.start

    def begin_to_catch_up(self) -> None:
        """Leave to the store what the history has so far."""
        self._position = self._history.end

    @property
    def has_more(self) -> bool:
        """Whether the history has something that it has not taken."""
        return self._position < self._history.end

    def take(self) -> Changed | None:
        """Take the next change that is the newest of its target."""
        history = self._history
        while self._position < history.end:
            changed = history.at(self._position)
            self._position += 1
            if changed is not None:
                return changed
        return None

    def offer_progress(self, file_id: str, bytes_received: int) -> None:
        """Take the newest byte count, unless it is behind: one that never reads would gather ever more files."""
        if not self.behind:
            super().offer_progress(file_id, bytes_received)

    def stay(self, due: float) -> None:
        """Rest on until the next change, progress, or ``due``."""
        self._history.resting.add(self)
        super().stay(due)

    def leave(self) -> None:
        """End with its stream."""
        self._history.resting.discard(self)
        self._history.readers -= 1
        self._histories.leave(self.sees)
        super().leave()
