"""Decides how bytes lie on a local disk: one file per id, in folders by the id's first two digits.

Must not know whose bytes they are, nor which of them are wanted: rows decide that.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from upload_server.sink.protocol import Chunk, SinkFile

# Ids are UUIDv4 text of ours. Whatever else comes here could be a path, so it is refused.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SHARD = re.compile(r"[0-9a-f]{2}")
# Of the disk, uploads leave so much to the database, or a sixteenth of a small disk: cancels go on when it is full,
# since they are what makes room.
_RESERVE_BYTES = 64 * 1024 * 1024
_RESERVE_SHARE = 16
# The disk is asked for room once for so many bytes.
_GRANT_BYTES = 1024 * 1024
# The kernel takes at most IOV_MAX (1,024 on Linux) pieces a call.
_MAX_PIECES = 1024


class DiskFile:
    """The bytes of one file, open for appending."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost: OSError | None = None
        # What may still be appended before the disk is asked again.
        self._granted = 0

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write all of ``chunks`` at the end; after an OSError a part of them may have been written.

        ENOSPC comes before the disk is full to its last byte, see ``DiskSink.room``.
        """
        left = [memoryview(chunk) for chunk in chunks if chunk]
        self._claim_room(sum(map(len, left)))
        first = 0
        while first < len(left):
            written = os.writev(self._descriptor, left[first : first + _MAX_PIECES])
            while first < len(left) and written >= len(left[first]):
                written -= len(left[first])
                first += 1
            if written:  # a short write ended inside this piece
                left[first] = left[first][written:]

    def _claim_room(self, size: int) -> None:
        if size > self._granted:
            self._granted = min(_room(os.fstatvfs(self._descriptor)), max(size, _GRANT_BYTES))
        if size > self._granted:
            raise OSError(errno.ENOSPC, "what is left of the disk is kept for the database")
        self._granted -= size

    def sync(self) -> None:
        """Make everything appended survive power loss; after an OSError the file must be given up."""
        if self._lost is not None:
            raise self._lost
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # The kernel may have marked the lost pages clean: a second try would lie.
            self._lost = error
            raise

    def close(self) -> None:
        """Close without syncing. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class DiskSink:
    """Bytes under ``root``; folders are 0700 and files 0600. Methods block and raise OSError."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Folders whose own entry in `root` is known to be durable; at most 256.
        self._durable_shards: set[str] = set()
        self._lock = threading.Lock()

    def open(self, file_id: str, offset: int) -> SinkFile:
        """Open for appending at ``offset``: what lies beyond is cut off; raises OSError when there is less."""
        path = self._path(file_id)
        flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        if offset == 0:
            self._make_shard(path.parent)
            flags |= os.O_CREAT
        descriptor = os.open(path, flags, 0o600)
        try:
            self._cut(descriptor, file_id, offset)
            if offset == 0:
                # Also when the file was there: an earlier opening may have died before this.
                _sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return DiskFile(descriptor)

    def read(self, file_id: str, end: int, chunk_bytes: int, start: int = 0) -> Iterator[bytes]:
        """Read the bytes from ``start`` to ``end`` in pieces; raises OSError when there are fewer."""
        with self._path(file_id).open("rb", buffering=0) as file:
            file.seek(start)
            left = end - start
            while left > 0:
                piece = file.read(min(chunk_bytes, left))
                if not piece:
                    raise OSError(errno.EIO, f"{file_id} ends {left} bytes too early")
                left -= len(piece)
                yield piece

    def delete(self, file_id: str) -> int:
        """Delete and make that survive power loss; returns how many bytes were freed, 0 if there was nothing."""
        outcome = self.delete_all([file_id])[file_id]
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    def delete_all(self, file_ids: Sequence[str]) -> dict[str, int | OSError]:
        """Delete many; one sync per folder touched. Tells of each id what was freed or what went wrong."""
        outcomes: dict[str, int | OSError] = {}
        by_folder: dict[Path, list[str]] = {}
        for file_id in file_ids:
            # No bytes can lie under a name that `open` refuses.
            if _ID.fullmatch(file_id) is None:
                outcomes[file_id] = 0
                continue
            path = self._path(file_id)
            by_folder.setdefault(path.parent, []).append(file_id)
            outcomes[file_id] = _unlink(path)
        for folder, ids in by_folder.items():
            try:
                _sync_folder(folder)
            except FileNotFoundError:
                pass  # never made, so nothing ever lay there
            except OSError as error:
                outcomes.update(dict.fromkeys(ids, error))
        return outcomes

    def file_ids(self) -> Iterator[str]:
        """Ids of everything that lies here; names that are not ours are left alone."""
        for shard in _names(self._root):
            if _SHARD.fullmatch(shard):
                for name in _names(self._root / shard):
                    if _ID.fullmatch(name) and name.startswith(shard):
                        yield name

    def size(self, file_id: str) -> int:
        """Bytes that lie here for this id, 0 if none."""
        if _ID.fullmatch(file_id) is None:
            return 0
        try:
            return self._path(file_id).stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0

    def room(self) -> int:
        """Bytes that may still be appended here: what is free, without what is left to the database."""
        # Nothing may have been stored yet.
        return _room(os.statvfs(self._root if self._root.is_dir() else self._root.parent))

    def _path(self, file_id: str) -> Path:
        if _ID.fullmatch(file_id) is None:
            raise OSError(errno.EINVAL, "not an id of ours")
        return self._root / file_id[:2] / file_id

    def _make_shard(self, shard: Path) -> None:
        """Make the folder and its entry durable, once per process: whether an earlier one got that far is not known."""
        with self._lock:
            if shard.name in self._durable_shards:
                return
            if not self._root.is_dir():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync_folder(self._root.parent)
            shard.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(self._root)
            self._durable_shards.add(shard.name)

    @staticmethod
    def _cut(descriptor: int, file_id: str, offset: int) -> None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, f"{file_id} is no regular file")
        if found.st_size < offset:
            raise OSError(errno.EIO, f"{file_id} has {found.st_size} bytes where {offset} were durable")
        # Need not be synced: after power loss the next opening cuts again, and no row ever counts what lies beyond.
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)


def _room(disk: os.statvfs_result) -> int:
    if not disk.f_blocks:
        # Some network file systems do not tell.
        return sys.maxsize
    reserve = min(_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _RESERVE_SHARE)
    return max(0, disk.f_bavail * disk.f_frsize - reserve)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unlink(path: Path) -> int | OSError:
    try:
        freed = path.stat(follow_symlinks=False).st_size
        path.unlink()
    except FileNotFoundError:
        # Perhaps unlinked by one who died before the sync: the folder is synced all the same.
        return 0
    except OSError as error:
        return error
    return freed


def _names(folder: Path) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
