"""Decides what every watcher has, whatever its targets: its progress, and its rest until there is more to send.

Must not know who offers it changes, nor what a stream makes of them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from upload_server.watch.events import Changed
from upload_server.watch.turns import Turns


class Watcher(ABC):
    """One stream's place: which changes it has not sent yet, its progress, and its rest until there is more.

    One change wakes thousands of watchers: nothing here may cost more than it must.
    """

    __slots__ = ("_alarm", "_rest", "_turns", "progress", "ticked", "wants_progress")

    def __init__(self, turns: Turns, *, wants_progress: bool) -> None:
        self.wants_progress = wants_progress
        # Byte counts for the next tick of progress, and those of the last one that are not sent yet.
        self.progress: dict[str, int] = {}
        self.ticked: dict[str, int] = {}
        self._turns = turns
        self._rest: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    @property
    @abstractmethod
    def behind(self) -> bool:
        """Whether it has to read what it missed from the store."""

    @abstractmethod
    def begin_to_catch_up(self) -> None:
        """Keep changes from now on; those before are left to what its stream reads after this."""

    @property
    @abstractmethod
    def has_more(self) -> bool:
        """Whether ``take`` may have something."""

    @abstractmethod
    def take(self) -> Changed | None:
        """Take out the oldest change that is the newest of its target; None: there is none."""

    def offer_progress(self, file_id: str, bytes_received: int) -> None:
        """Take the newest byte count; the stream sends it with the next tick."""
        if not self.progress:
            # The stream may rest until its next bookmark: let it set its alarm anew.
            self.wake()
        self.progress[file_id] = bytes_received

    def forget_progress(self, key: str) -> None:
        """Forget the progress of a file that is final."""
        self.progress.pop(key, None)
        self.ticked.pop(key, None)

    def tick(self) -> None:
        """Have the stream send what there is of progress; what comes later waits for the next tick."""
        self.ticked, self.progress = self.progress, {}

    def wake(self) -> None:
        """End the rest, if it rests, when its stream has its turn."""
        if self._rest is not None:
            rest, self._rest = self._rest, None
            self._turns.end_rest(rest)

    async def rest(self, due: float) -> None:
        """Wait for ``wake``, or for the loop's time ``due``; may end early.

        The alarm is left running: traffic usually pushes it back, and re-arming it every time would cost more than one
        early wake-up.
        """
        loop = asyncio.get_running_loop()
        if self._alarm is None or self._alarm.when() > due:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = loop.call_at(due, self._ring)
        self._rest = loop.create_future()
        await self._rest

    def leave(self) -> None:
        """End with its stream."""
        if self._alarm is not None:
            self._alarm.cancel()

    def _ring(self) -> None:
        self._alarm = None
        self.wake()
