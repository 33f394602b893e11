"""Decides who may use a directory or a database file: one server at a time.

Must not know what is kept there. The kernel drops the lock with the process, however it ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from upload_server.domain.errors import CannotStart
from upload_server.process.files import open_own

# `holder_of` holds a shared lock for microseconds: a server that starts just then must not take it for another server.
_ASKING_SECONDS = 0.25


class AlreadyInUse(CannotStart):
    """Another server holds the lock; the message names what is in use and the other process."""

    def __init__(self, what: object, holder: str) -> None:
        super().__init__(f"{what} is in use by another upload-server (pid {holder or 'unknown'})")
        self.what = what
        self.holder = holder


class FileLock:
    """An exclusive lock, held from construction to ``release``; the lock file names the holder's pid."""

    def __init__(self, what: Path, lock_file: Path) -> None:
        """Take the lock for ``what`` on ``lock_file``; raises ``AlreadyInUse`` or OSError."""
        # Never unlinked: a second server could otherwise lock a file of the same name that is another file.
        self._descriptor = open_own(lock_file, os.O_RDWR | os.O_CREAT)
        try:
            _lock_soon(self._descriptor)
        except BlockingIOError:
            holder = _pid_in(self._descriptor)
            os.close(self._descriptor)
            raise AlreadyInUse(what, holder) from None
        except OSError:
            os.close(self._descriptor)
            raise
        pid = f"{os.getpid()}\n".encode("ascii")
        # A disk that is full to its last byte may not even have room for that, and needs this server all the more.
        with contextlib.suppress(OSError):
            os.pwrite(self._descriptor, pid, 0)
            os.ftruncate(self._descriptor, len(pid))

    def fileno(self) -> int:
        """The descriptor: a process that inherits it holds the lock too."""
        return self._descriptor

    def release(self) -> None:
        """Let the next one in. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def lock_directory(directory: Path) -> FileLock:
    """Take a directory for this process; raises ``AlreadyInUse`` naming the directory and the holder's pid."""
    return FileLock(directory, directory / "server.lock")


def lock_database(path: Path) -> FileLock:
    """Take a database file for this process; raises ``AlreadyInUse`` naming its directory and the holder's pid."""
    return FileLock(path.parent, lock_file_of(path))


def lock_file_of(path: Path) -> Path:
    """Return the file by which a database file is locked: it is there once that has been locked."""
    return path.with_name(path.name + ".lock")


def holder_of(path: Path) -> str:
    """Return the pid of the server that runs on a database file, empty when none does; changes nothing.

    Asks the lock alone: the pid may be one of another container, or of a machine that shares the folder.
    """
    try:
        descriptor = open_own(lock_file_of(path), os.O_RDONLY)
    except FileNotFoundError:
        return ""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor) or "unknown"
    finally:
        os.close(descriptor)
    return ""


def _lock_soon(descriptor: int) -> None:
    """Take the exclusive lock; raises BlockingIOError when another process keeps it for longer than asking takes."""
    deadline = time.monotonic() + _ASKING_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_ASKING_SECONDS / 50)
        else:
            return


def _pid_in(descriptor: int) -> str:
    return os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
