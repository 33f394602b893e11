"""Decides how an open stream learns that it has to end, and why.

Must not know what the stream does about it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from upload_server.domain.errors import Stopped, UploadCancelled, WriterReplaced


class StopSignal:
    """A level, not an edge: once set it stays set and says why. The first cause wins.

    Set on the event loop; ``cause`` and ``abandoned`` may be read from any thread.
    """

    __slots__ = ("_cause", "_event", "_listeners", "set_at")

    def __init__(self) -> None:
        self._cause: Stopped | None = None
        self._event = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        # time.monotonic() when it was set; 0 before.
        self.set_at = 0.0

    def set(self, cause: Stopped) -> None:
        """Set the signal with its cause; later causes are ignored."""
        if self._cause is not None:
            return
        self.set_at = time.monotonic()
        self._cause = cause
        self._event.set()
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    @property
    def cause(self) -> Stopped | None:
        """Why the stream has to stop, or None."""
        return self._cause

    @property
    def abandoned(self) -> bool:
        """Whether no further byte may reach the disk: the file is cancelled, or another stream's."""
        return isinstance(self._cause, (UploadCancelled, WriterReplaced))

    def check(self) -> None:
        """Raise the cause if the signal is set."""
        if self._cause is not None:
            # The one object is raised wherever the stream is used: without this, its traceback would grow.
            raise self._cause.with_traceback(None)

    async def wait(self) -> Stopped:
        """Wait until it is set; returns the cause."""
        while self._cause is None:
            await self._event.wait()
        return self._cause

    def on_set(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called once, when the signal is set; at once if it is."""
        if self._cause is not None:
            listener()
        else:
            self._listeners.append(listener)
