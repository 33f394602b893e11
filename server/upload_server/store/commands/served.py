"""Decides how the seconds are counted in which a service runs on a store.

Must not know where they are kept between two runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Of a longer while without a look at the clock no more counts: the process was frozen, nobody was served. The janitor
# looks twice as often at least.
_LONGEST_WHILE = 60.0


class ServedClock:
    """Goes on from the seconds that a store has kept. Never ahead of the time that passed while it was looked at.

    ``steady`` is a clock that nobody sets and that stops while the machine sleeps. Used by the writer's thread and by
    the event loop.
    """

    def __init__(self, kept: float, steady: Callable[[], float] = time.monotonic) -> None:
        self._seconds = kept
        self._steady = steady
        self._looked_at = steady()
        self._lock = threading.Lock()

    def read(self) -> float:
        """Return the seconds until now."""
        with self._lock:
            now = self._steady()
            self._seconds += min(now - self._looked_at, _LONGEST_WHILE)
            self._looked_at = now
            return self._seconds
