"""Decides what every watcher has, whatever it watches: its progress, and its rest until there is more to say.

Must not know who hands it over, nor what a stream makes of it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from upload_server.watch.events import Changed
from upload_server.watch.turns import Turns


class Watcher(ABC):
    """One stream's place: which changes it has not sent yet, its progress, and its rest until there is more.

    One change wakes thousands of them: nothing here may cost more than it must.
    """

    __slots__ = ("_alarm", "_resting", "_turns", "progress", "ticked", "wants_progress")

    def __init__(self, turns: Turns, *, wants_progress: bool) -> None:
        self.wants_progress = wants_progress
        # Byte counts for the next tick of progress, and those of the last one that are not sent yet.
        self.progress: dict[str, int] = {}
        self.ticked: dict[str, int] = {}
        self._turns = turns
        self._resting: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None

    @property
    @abstractmethod
    def behind(self) -> bool:
        """Whether it has to read what it missed from the store."""

    @abstractmethod
    def begin_to_catch_up(self) -> None:
        """From now on changes are kept for it; those before are left to what it reads after this."""

    @property
    @abstractmethod
    def has_more(self) -> bool:
        """Whether ``take`` may have something."""

    @abstractmethod
    def take(self) -> Changed | None:
        """Take out the oldest change that is the newest of its target; None: there is none."""

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

    def wake(self) -> None:
        """End the rest, if it rests, when it is its turn."""
        if self._resting is not None:
            resting, self._resting = self._resting, None
            self._turns.give(resting)

    async def rest(self, due: float) -> None:
        """Wait to be woken, or for the loop's time ``due``; may end early.

        The alarm stays set when something else ends the rest: what mostly moves it is that something was said, and
        then it need not be set before it has rung.
        """
        loop = asyncio.get_running_loop()
        if self._alarm is None or self._alarm.when() > due:
            self._silence()
            self._alarm = loop.call_at(due, self._ring)
        self._resting = loop.create_future()
        await self._resting

    def leave(self) -> None:
        """Its stream is over."""
        self._silence()

    def _silence(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        self.wake()
