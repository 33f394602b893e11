"""Decides how the process keeps its heap: one for all threads, and what lies free in it goes back to the system.

Must not know who allocates. Where the C library is not glibc nothing is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

_ARENA_MAX = -8
_LOOK_SECONDS = 60.0
# What may lie free: it will be used again, and giving it back holds up whoever allocates for some 10 ms.
_MAY_LIE_FREE = 64 * 2**20
# Giving back again is worth it once the process has grown by so much since.
_GROWN = 32 * 2**20


class _Mallinfo2(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "free", "top")
    )


def share_one_heap() -> None:
    """Have all threads allocate from one heap: else what uploads leave free in one is of no use to the others.

    A thousand uploads at once took 750 MiB, a half of it free; with one heap they take less than 500.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_ARENA_MAX, 1)


class Heap:
    """Gives back what a flood has left: a few blocks at its end keep a heap of free ones from shrinking by itself."""

    def __init__(self) -> None:
        self._resident = 0
        try:
            libc = ctypes.CDLL("libc.so.6")
            self._info, self._trim = libc.mallinfo2, libc.malloc_trim
            self._info.restype = _Mallinfo2
            self._known = True
        except (OSError, AttributeError):
            self._known = False

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        while self._known:
            await asyncio.sleep(_LOOK_SECONDS)
            # A flood may have left no descriptor to read the process's size with: the next look will do.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.give_back)

    def give_back(self) -> bool:
        """Give back what lies free if it is much, and more than last time; returns whether. Some 10 ms: in a thread.

        Raises OSError when the system does not tell how large the process is.
        """
        if self._info().free < _MAY_LIE_FREE or _resident() < self._resident + _GROWN:
            return False
        self._trim(0)
        self._resident = _resident()
        return True


def _resident() -> int:
    """Bytes of memory that the process occupies."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
