"""Decides what those are told who watch everything: all of them read one history, each from a position of its own.

Must not know what a stream makes of it. Who takes nothing costs a commit nothing, and nothing is kept for him alone.
"""

from __future__ import annotations

from upload_server.watch.events import Changed
from upload_server.watch.history import History
from upload_server.watch.turns import Turns
from upload_server.watch.watcher import Watcher


class Everything:
    """The changes handed out last, and who of its readers waits for the next one."""

    def __init__(self, limit: int) -> None:
        self.history = History(limit)
        self.readers = 0
        self.waiting: set[Watcher] = set()

    def publish(self, changed: Changed) -> None:
        """Keep a change, and wake whoever waits for one."""
        if len(self.waiting) == self.readers:
            # Nobody needs what there was: who waits has taken all of it.
            self.history.clear()
        self.history.append(changed)
        waiting, self.waiting = self.waiting, set()
        for reader in waiting:
            reader.wake()


class Reader(Watcher):
    """One who watches everything."""

    __slots__ = ("_everything", "_position")

    def __init__(self, everything: Everything, turns: Turns, *, wants_progress: bool) -> None:
        super().__init__(turns, wants_progress=wants_progress)
        self._everything = everything
        everything.readers += 1
        # A fresh one has missed everything.
        self._position = -1

    @property
    def behind(self) -> bool:
        """Whether what comes next is no longer kept."""
        return self._position < self._everything.history.start

    def begin_to_catch_up(self) -> None:
        """Leave to the store what was handed out so far."""
        self._position = self._everything.history.end

    @property
    def has_more(self) -> bool:
        """Whether something was handed out since."""
        return self._position < self._everything.history.end

    def take(self) -> Changed | None:
        """Take the next change that is the newest of its target."""
        history = self._everything.history
        while self._position < history.end:
            changed = history.at(self._position)
            self._position += 1
            if changed is not None:
                return changed
        return None

    def offer_progress(self, file_id: str, bytes_received: int) -> None:
        """Take the newest byte count, unless it would be forgotten: who never reads is told of ever more files."""
        if not self.behind:
            super().offer_progress(file_id, bytes_received)

    async def rest(self, due: float) -> None:
        """Wait for the next change, or as the others."""
        self._everything.waiting.add(self)
        await super().rest(due)

    def leave(self) -> None:
        """Its stream is over: nobody waits."""
        self._everything.waiting.discard(self)
        self._everything.readers -= 1
        super().leave()
