"""Decides what is kept for one stream between two of its writes: the newest per target, within a bound.

Must not know who hands it over, nor when it is sent.
"""

from __future__ import annotations

import asyncio

from upload_server.watch.events import Changed, key_of


class Watcher:
    """One stream's place: what it was handed and has not sent yet, newest per target."""

    def __init__(self, limit: int, *, wants_progress: bool) -> None:
        self.wake = asyncio.Event()
        self.wants_progress = wants_progress
        self.behind = True
        self.pending: dict[str, Changed] = {}
        self.progress: dict[str, int] = {}
        self._limit = limit

    def offer(self, changed: Changed) -> None:
        """Take a change; an older one of the same target is merged into it. Never waits."""
        record = changed.change.record
        key = key_of(record)
        # Taken out and put in at the end: the order stays that of the change numbers.
        self.pending.pop(key, None)
        self.pending[key] = changed
        if record.status.final:
            self.progress.pop(key, None)
        if len(self.pending) > self._limit:
            self.pending.clear()
            self.behind = True
        self.wake.set()

    def offer_progress(self, file_id: str, bytes_received: int) -> None:
        """Take the newest byte count; it is sent with the next tick."""
        if not self.progress:
            # The stream may be resting until its next bookmark: let it set its timer anew.
            self.wake.set()
        self.progress[file_id] = bytes_received

    def drop_upto(self, no: int) -> None:
        """Forget what a page read up to ``no`` has covered."""
        self.pending = {key: c for key, c in self.pending.items() if c.change.no > no}
