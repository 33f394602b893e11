"""Decides how many threads move bytes, and how far they stand back: a cancel must find a core.

Must not know what they do.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

# Opening and syncing wait for the disk more than they work.
_WAITERS = 8
# Still a third of an ordinary thread's share: one that stands further back would hold up whoever waits for what it has.
_NICE = 5
_LEAST = 19


class Threads:
    """The threads of one ingest. ``workers`` write and hash, no more than there are cores; ``waiters`` wait."""

    def __init__(self, workers: int | None = None, waiters: int = _WAITERS) -> None:
        cores = max(2, os.cpu_count() or 1)
        self.workers = ThreadPoolExecutor(workers or cores, "ingest", initializer=_stand_back)
        self.waiters = ThreadPoolExecutor(waiters, "ingest-disk", initializer=_stand_back)

    def shutdown(self, *, wait: bool) -> None:
        """Start nothing more; ``wait`` for what runs."""
        for pool in (self.workers, self.waiters):
            pool.shutdown(wait=wait, cancel_futures=True)


def _stand_back() -> None:
    """Have this thread take the core from no other when it wakes, and then a smaller share (Linux).

    With eight uploads at full speed on two cores the event loop waited for its core more than it ran.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, min(_LEAST, os.getpriority(os.PRIO_PROCESS, own) + _NICE))
