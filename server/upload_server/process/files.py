"""Decides which files and folders this process takes for its own, where others may put something in their place.

Must not know what is in them.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

# A link is refused, not followed; a FIFO answers at once instead of holding the thread.
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_own(path: Path | str, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> int:
    """Open a regular file that has no other name; raises OSError, which names the file.

    Its other name could be that of a file of somebody else, who would have it written over.
    """
    try:
        descriptor = os.open(path, flags | _PLAIN, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "is a symbolic link, which is not followed", str(path)) from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "is no regular file", str(path))
        if found.st_nlink > 1 and flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EMLINK, "has another name (a hard link), so it may be somebody else's", str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def refuse_strangers_link(path: Path) -> None:
    """Raise OSError where ``path`` is a symbolic link that neither this process's user nor root has made."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode) and found.st_uid not in {0, os.geteuid()}:
        raise OSError(errno.ELOOP, "is a symbolic link of another user", str(path))


def sync_folder(folder: Path) -> None:
    """Have the names in a folder durable; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_to_all(folder: Path) -> bool:
    """Whether everybody may put files into a folder, and take those of others away; raises OSError."""
    mode = folder.stat().st_mode
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def doubts_about(folder: Path) -> list[str]:
    """Return what is odd about who owns a folder or may write to it; raises OSError."""
    found = folder.stat()
    doubts = []
    if found.st_uid != os.geteuid():
        doubts.append(f"it belongs to user {found.st_uid}, and this process runs as {os.geteuid()}")
    if found.st_mode & stat.S_IWGRP:
        doubts.append(f"group {found.st_gid} may write to it")
    if found.st_mode & stat.S_IWOTH:
        doubts.append("everybody may write to it")
    return doubts
