"""Decides what is kept for one stream between two of its writes: the newest per target, within a bound.

Must not know who hands it over, nor what a stream makes of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from upload_server.watch.events import Changed


class Watcher:
    """One stream's place: what it was handed and has not sent yet, newest per target; and its rest until there is more.

    One change wakes thousands of them in one turn of the loop: nothing here may cost more than it must.
    """

    __slots__ = ("_alarm", "_limit", "_resting", "behind", "pending", "progress", "ticked", "wants_progress")

    def __init__(self, limit: int, *, wants_progress: bool) -> None:
        self.wants_progress = wants_progress
        self.behind = True
        # Oldest first. (Of a dict the first one is not taken out in constant time.)
        self.pending: OrderedDict[str, Changed] = OrderedDict()
        # Byte counts for the next tick of progress, and those of the last one that are not sent yet.
        self.progress: dict[str, int] = {}
        self.ticked: dict[str, int] = {}
        self._limit = limit
        self._resting: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    def offer(self, changed: Changed) -> None:
        """Take a change; an older one of the same target is merged into it. Never waits."""
        pending, key = self.pending, changed.key
        if changed.final:
            self.settle(key)
        if self.behind:
            # The page that it reads next holds this change too; kept here, it would be sent before older ones.
            return
        pending[key] = changed
        if len(pending) > 1:
            # The order stays that of the change numbers.
            pending.move_to_end(key)
        if len(pending) > self._limit:
            pending.clear()
            self.behind = True
        self.wake()

    def offer_progress(self, file_id: str, bytes_received: int) -> None:
        """Take the newest byte count; it is sent with the next tick."""
        if not self.progress:
            # The stream may be resting until its next bookmark: let it set its alarm anew.
            self.wake()
        self.progress[file_id] = bytes_received

    def settle(self, key: str) -> None:
        """Forget the progress of what is final."""
        if self.wants_progress:
            self.progress.pop(key, None)
            self.ticked.pop(key, None)

    def tick(self) -> None:
        """Have what there is of progress sent; what comes later waits for the next tick."""
        self.ticked, self.progress = self.progress, {}

    def drop_upto(self, no: int) -> None:
        """Forget what a page read up to ``no`` has covered."""
        while self.pending and next(iter(self.pending.values())).change.no <= no:
            self.pending.popitem(last=False)

    def wake(self) -> None:
        """End the rest, if it rests."""
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)

    async def rest(self, due: float) -> None:
        """Wait to be woken, or for the loop's time ``due``; may end early.

        The alarm stays set when something else ends the rest: what mostly moves it is that something was said, and
        then it need not be set before it has rung.
        """
        loop = asyncio.get_running_loop()
        if self._alarm is None or self._alarm.when() > due:
            self.silence()
            self._alarm = loop.call_at(due, self._ring)
        self._resting = loop.create_future()
        await self._resting

    def silence(self) -> None:
        """Take back the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self.wake()
