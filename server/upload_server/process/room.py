"""Decides how much of a disk announcements and uploads may still take: both can wait. The rest is kept for cancels.

Must not know what lies on the disk, nor who asks. Safe to call from any thread.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
# Of each disk so much is kept, or a sixteenth of a small one: cancels, expiry and completions go on when it is full,
# and the first two are what makes room.
_RESERVE_BYTES: Final = 64 * MIB
_RESERVE_INODES: Final = 256
_SHARE: Final = 16
# What a disk has told of its room counts for so long, or until that is not enough.
_FRESH_SECONDS: Final = 0.02


class Room:
    """What is left of the disks that this process writes to. The store keeps more of its disk for the files that are
    open; whoever takes bytes asks first."""

    def __init__(self) -> None:
        # By device: who tells what is kept besides the reserve; and what was left when the disk was last asked, less
        # what was claimed since, with the time of that.
        self._kept: dict[int, Callable[[], int]] = {}
        self._left: dict[int, tuple[int, float]] = {}
        # By device, too: a disk that does not answer holds up only those who ask for it.
        self._locks: dict[int, threading.Lock] = {}

    def keep(self, device: int, kept: Callable[[], int]) -> None:
        """Keep so many bytes of a device besides its reserve as ``kept`` tells, whenever the disk is asked."""
        self._kept[device] = kept

    def claim(self, place: int | Path, device: int, count: int) -> bool:
        """Take ``count`` bytes of ``device``, where ``place`` lies; False when so many are not left. Raises OSError.

        The disk is asked only now and then, so what others have claimed and not written yet counts as taken.
        """
        with self._locks.setdefault(device, threading.Lock()):
            left, asked_at = self._left.get(device, (0, 0.0))
            now = time.monotonic()
            if left < count or now - asked_at >= _FRESH_SECONDS:
                left, asked_at = self.left(place), now
            enough = left >= count
            self._left[device] = left - count if enough else left, asked_at
        return enough

    def kept(self, place: int | Path) -> int:
        """Bytes that are kept of the disk of a descriptor or path; raises OSError."""
        return _reserve_of(os.statvfs(place)) + self._kept.get(_device_of(place), int)()

    def left(self, place: int | Path) -> int:
        """Bytes that may still be taken of the disk of a descriptor or path; raises OSError.

        0 also when hardly an inode is free: a file of no bytes cannot be made then either.
        """
        disk = os.statvfs(place)
        if disk.f_files and disk.f_favail <= min(_RESERVE_INODES, disk.f_files // _SHARE):
            return 0
        if not disk.f_blocks:
            # Some network file systems do not tell.
            return sys.maxsize
        kept = _reserve_of(disk) + self._kept.get(_device_of(place), int)()
        return max(0, disk.f_bavail * disk.f_frsize - kept)


def used_up(place: Path) -> str:
    """Tell what a disk has no more of, in words; empty when it has, or does not tell."""
    try:
        disk = os.statvfs(place)
    except OSError:
        return ""
    if disk.f_blocks and not disk.f_bavail:
        return "no space is left on its disk"
    return "no inodes are left on its disk" if disk.f_files and not disk.f_favail else ""


def _device_of(place: int | Path) -> int:
    return (os.fstat(place) if isinstance(place, int) else place.stat()).st_dev


def _reserve_of(disk: os.statvfs_result) -> int:
    return min(_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _SHARE)
