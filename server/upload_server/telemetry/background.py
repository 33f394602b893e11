"""Decides what happens to log text when its reader is slow: it waits in a thread, within a bound, never on the loop.

Must not know what the text says.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import Final, TextIO

# Writes that may wait, some 20 MiB of lines; beyond it lines are dropped and counted: a log must not stop the work.
MAX_WAITING: Final = 50_000
# How long the end of the program waits for a reader that does not read.
CLOSE_SECONDS: Final = 2.0


class BackgroundStream:
    """A text stream that writes in a thread, as much at once as has queued up. ``close`` it to see all written."""

    def __init__(self, target: TextIO, max_waiting: int = MAX_WAITING) -> None:
        self._target = target
        self._max = max_waiting
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._closing = False
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def isatty(self) -> bool:
        """Whether a person reads."""
        return self._target.isatty()

    def write(self, text: str) -> int:
        """Queue ``text``, or drop it when too much waits; from any thread."""
        with self._news:
            if self._closing or len(self._waiting) >= self._max:
                self._dropped += 1
            else:
                self._waiting.append(text)
                self._news.notify()
        return len(text)

    def flush(self) -> None:
        """Do nothing: what is queued is written without being asked."""

    def close(self) -> None:
        """Write what waits, within a bound. Safe to call twice."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._closing:
                    self._news.wait()
                text = "".join(self._waiting)
                self._waiting.clear()
                dropped, self._dropped = self._dropped, 0
                if not text and self._closing:
                    return
            if dropped:
                text += (
                    f'{{"level":"warning","event":"log lines dropped: the log is read too slowly","lines":{dropped}}}\n'
                )
            # A closed pipe (OSError), a closed or narrow stream (ValueError): there is nobody left to tell.
            with contextlib.suppress(OSError, ValueError):
                self._target.write(text)
                self._target.flush()
