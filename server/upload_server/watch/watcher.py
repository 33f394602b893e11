"""Decides what every watcher has, whatever its targets: its progress, and its rest until there is more to send.

Must not know who offers it changes, nor what a stream makes of them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from upload_server.domain.errors import UploadError
from upload_server.watch.events import Changed
from upload_server.watch.turns import LoopTurns


class Watcher(ABC):
    """One stream's place: which changes it has not sent yet, its progress, and its rest until there is more.

    One change wakes thousands of watchers: nothing here may cost more than it must.
    """

    __slots__ = ("_alarm", "_awake", "_rest", "_send", "_turns", "lost", "progress", "ticked", "wants_progress")

    def __init__(self, turns: LoopTurns, *, wants_progress: bool) -> None:
        self.wants_progress = wants_progress
        # Why its stream has to end, although others go on.
        self.lost: UploadError | None = None
        # Byte counts for the next tick of progress, and those of the last one that are not sent yet.
        self.progress: dict[str, int] = {}
        self.ticked: dict[str, int] = {}
        self._turns = turns
        # While its stream rests: what ends the rest, and what may send without ending it.
        self._rest: asyncio.Future[None] | None = None
        self._send: Callable[[], bool] | None = None
        # It is woken, and waits for its turn.
        self._awake = False
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
        """If it rests: have what there is sent, or end the rest, when its stream has its turn."""
        if self._rest is not None and not self._awake:
            self._awake = True
            self._turns.call(self._go_on)

    async def rest(self, due: float, send: Callable[[], bool]) -> None:
        """Wait for ``wake``, or for the loop's time ``due``, until ``send`` says that the stream has to go on.

        ``send`` sends what may be sent at once, and then calls ``stay`` or ``wake``, or returns False.
        """
        self._rest, self._send = asyncio.get_running_loop().create_future(), send
        self.stay(due)
        await self._rest

    def stay(self, due: float) -> None:
        """Rest on until ``wake``, or for the loop's time ``due``; may end early.

        The alarm is left running: traffic usually pushes it back, and re-arming it every time would cost more than one
        early wake-up.
        """
        if self._alarm is None or self._alarm.when() > due:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = asyncio.get_running_loop().call_at(due, self._ring)

    def leave(self) -> None:
        """End with its stream."""
        self._rest = self._send = None
        if self._alarm is not None:
            self._alarm.cancel()

    def _go_on(self) -> None:
        self._awake = False
        rest, send = self._rest, self._send
        if rest is None or send is None or rest.done():
            # The client has left its stream.
            return
        try:
            if send():
                return
        except Exception as error:  # noqa: BLE001 - the stream raises it
            rest.set_exception(error)
        else:
            rest.set_result(None)
        self._rest = self._send = None

    def _ring(self) -> None:
        self._alarm = None
        self.wake()
