"""Decides what happens to log text when its reader is slow: it waits in a thread, within a bound, never on the loop.

Must not know what the text says.
"""

from __future__ import annotations

import contextlib
import fcntl
import threading
from collections import deque
from collections.abc import Iterator
from typing import Final, TextIO

# Writes that may wait, some 20 MiB of lines; beyond it lines are dropped and counted: a log must not stop the work.
MAX_WAITING: Final = 50_000
# Lines are collected this long before they are written: waking a thread for each would cost more than the line.
LINGER_SECONDS: Final = 0.02
# How long the end of the program waits for a reader that does not read.
CLOSE_SECONDS: Final = 2.0


class BackgroundStream:
    """A text stream that writes in a thread, as much at once as has queued up. ``close`` it to see all written."""

    def __init__(self, target: TextIO, max_waiting: int = MAX_WAITING) -> None:
        self._target = target
        self._turns: int | None = None
        self._max = max_waiting
        self._waiting: deque[str] = deque()
        self._dropped = 0
        self._news = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def take_turns(self, descriptor: int) -> None:
        """Write in turns with other processes that have this file open: no line of one then breaks into another's."""
        self._turns = descriptor

    def isatty(self) -> bool:
        """Whether a person reads."""
        return self._target.isatty()

    def write(self, text: str) -> int:
        """Queue ``text``, or drop it when too much waits; from any thread."""
        if self._closed.is_set() or len(self._waiting) >= self._max:
            self._dropped += 1
        else:
            self._waiting.append(text)
            if not self._news.is_set():
                self._news.set()
        return len(text)

    def flush(self) -> None:
        """Do nothing: what is queued is written without being asked."""

    def close(self) -> None:
        """Write what waits, within a bound. Safe to call twice."""
        self._closed.set()
        self._news.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            self._news.wait()
            self._closed.wait(LINGER_SECONDS)
            # Cleared first: what is queued from now on sets it again.
            self._news.clear()
            last = self._closed.is_set()
            self._write_waiting()
            if last:
                return

    def _write_waiting(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(
                f'{{"level":"warning","event":"log lines dropped: the log is read too slowly","lines":{dropped}}}\n'
            )
        # A closed pipe (OSError), a closed or narrow stream (ValueError): there is nobody left to tell.
        with contextlib.suppress(OSError, ValueError), _turn(self._turns):
            self._target.write("".join(lines))
            self._target.flush()


@contextlib.contextmanager
def _turn(descriptor: int | None) -> Iterator[None]:
    if descriptor is None:
        yield
        return
    # At the very end the file may be closed already: the last lines are written all the same.
    with contextlib.suppress(OSError):
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.lockf(descriptor, fcntl.LOCK_UN)
