"""Decides when the wall clock was stepped, and says so: what waits for a time then waits longer or shorter.

Must not know what goes by it. Expiry and forgetting go by the time served as well, so that a step ends nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime

import structlog

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
# Clocks that are slewed differ by less, and so does a leap second; what is stepped by less ends nothing.
_LEAST_STEP = 2.0


class ClockWatch:
    """Compares the wall clock with one that nobody sets, and logs each step once, forward or back."""

    def __init__(self, clock: Callable[[], datetime], steady: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._steady = steady
        self._seen = self._ahead()

    def _ahead(self) -> float:
        # The steady clock stops while the machine sleeps: a sleep looks like a step.
        return self._clock().timestamp() - self._steady()

    def look(self) -> float:
        """Return by how many seconds the wall clock was stepped since the last look, 0 for none; logs it."""
        ahead = self._ahead()
        step, self._seen = ahead - self._seen, ahead
        if abs(step) < _LEAST_STEP:
            return 0.0
        log.warning("the wall clock was set, or the machine slept", seconds=round(step, 3))
        return step

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()
