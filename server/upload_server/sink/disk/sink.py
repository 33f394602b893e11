"""Decides how bytes lie in a folder, of this machine or shared: a file per run, in folders by the id's first digits.

Must not know whose bytes they are, nor which of them are wanted: rows decide that. A run lies in ``ID.FENCE``, each
byte where it lies in the whole file: of a run that begins later the first part is a hole, until ``finish`` fills it
with the runs before. So a file of one run is whole as it lies there, and nothing is ever renamed. What came whole, and
what is from before there were runs, lies in ``ID``.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import sys
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from upload_server.domain.runs import WHOLE, Run, parts_of
from upload_server.process.files import open_own, sync_folder
from upload_server.process.room import Room, used_up
from upload_server.sink.disk.file import DiskFile, as_sink_errors, cut, meaning_of
from upload_server.sink.disk.shards import ID, Shards, names_in, opened
from upload_server.sink.protocol import (
    BytesMissing,
    Chunk,
    Doomed,
    NoRoom,
    SinkError,
    SinkFile,
    Stored,
)

_SHARD = re.compile(r"[0-9a-f]{2}")
_NAME = re.compile(rf"({ID.pattern})(?:\.([1-9][0-9]{{0,18}}))?")
# Whose folder it is, in a file that is no file's.
_IDENTITY, _IDENTITY_BYTES = "sink_id", 64
# Of a draft: the sticky bit means nothing for a file, and copies of the folder carry it along.
_DRAFT_MODE = 0o600 | stat.S_ISVTX
# Joined by one call of the kernel, in which nobody can stop it.
_JOINED_AT_ONCE = 64 * 1024 * 1024
# What a system that cannot copy by itself has read and written by us.
_COPIED_AT_ONCE = 1024 * 1024
# Some file systems, and some kernels, do not copy by themselves.
_CANNOT_COPY = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EINVAL})
# A hole is no smaller than this.
_BLOCK = 4096


class DiskSink:
    """Bytes under ``root``; folders are 0700 and files 0600. Methods block and raise SinkError."""

    # Bytes are the kernel's at once; a run from 0 is the file; nothing that is deleted comes back.
    buffers = assembles = False
    continues = True
    second_look = 0.0

    def __init__(self, root: Path, room: Room | None = None) -> None:
        """``room`` tells what is left of the disk."""
        self._root = root
        self._room = room or Room()
        self._shards = Shards(root)

    def check_usable(self) -> None:
        """Every folder can be tried by its first file alone: it is made with that."""

    def identity(self) -> str:
        """Read it from a file beside the folders."""
        try:
            with as_sink_errors, open(self._root / _IDENTITY, "rb") as file:  # noqa: PTH123 - read a bounded part of it
                return file.read(_IDENTITY_BYTES).decode("ascii", "replace")
        except BytesMissing:
            return ""

    def adopt(self, store_id: str) -> str:
        """Make the file, so that it survives power loss."""
        with as_sink_errors:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = self._root / f"{_IDENTITY}.{uuid.uuid4()}"
            try:
                with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
                    file.write(store_id.encode())
                    file.flush()
                    os.fsync(file.fileno())
                # Who comes second leaves it as it is.
                with contextlib.suppress(FileExistsError):
                    os.link(made, self._root / _IDENTITY)
            finally:
                made.unlink(missing_ok=True)
            sync_folder(self._root)
        return self.identity()

    def uri(self, file_id: str, fence: int) -> str:  # noqa: ARG002 - no file has one
        """Return no address: paths of this machine are told to nobody."""
        return ""

    def open(self, file_id: str, runs: Sequence[Run], size_bytes: int, offset: int) -> SinkFile:  # noqa: ARG002
        """Open the newest run for appending at ``offset``; ``BytesMissing`` when less lies in it or in one before."""
        shard, newest = self._shards.of(file_id), runs[-1]
        name = _name(file_id, newest.fence)
        with as_sink_errors:
            if len(runs) > 1:
                self._expect(file_id, shard, runs)
            if offset == newest.start:
                descriptor = self._create(shard, name)
            else:
                with opened(shard) as folder:
                    descriptor = open_own(name, os.O_WRONLY, dir_fd=folder)
            try:
                cut(descriptor, name, newest.start, offset)
            except BaseException:
                os.close(descriptor)
                raise
        return DiskFile(descriptor, offset, self._room, newest.start, shard / name)

    @staticmethod
    def _expect(file_id: str, shard: Path, runs: Sequence[Run]) -> None:
        """Raise ``BytesMissing`` unless the runs before the newest are as long as they count."""
        with opened(shard) as folder:
            for fence, _, end in parts_of(runs, 0, runs[-1].start):
                found = os.stat(_name(file_id, fence), dir_fd=folder, follow_symlinks=False).st_size
                if found < end:
                    raise BytesMissing(f"{_name(file_id, fence)} ends at {found} where {end} bytes were durable")

    def _create(self, shard: Path, name: str) -> int:
        """Open a file, made if need be, whose entry is durable."""
        if not self.room():
            raise self._no_room()
        with self._shards.folder(shard) as folder:
            descriptor = open_own(name, os.O_WRONLY | os.O_CREAT, dir_fd=folder)
            try:
                # Also when the file was there: an earlier opening may have died before this.
                _sync_entries(folder)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _no_room(self) -> NoRoom:
        return NoRoom(used_up(self._place()) or "what is left of the disk is kept for cancels")

    def put(self, file_id: str, data: Chunk) -> None:
        """Store a whole file as a draft."""
        with as_sink_errors, self._shards.folder(self._shards.of(file_id)) as folder:
            # A file of no bytes takes an inode.
            if not self._room.claim(folder, os.fstat(folder).st_dev, 1):
                raise self._no_room()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = open_own(file_id, flags, _DRAFT_MODE, dir_fd=folder)
            try:
                file = DiskFile(descriptor, 0, self._room)
                try:
                    file.append([data])
                    file.sync()
                finally:
                    file.close()
                _sync_entries(folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(file_id, dir_fd=folder)
                raise

    def keep(self, file_ids: Sequence[str]) -> None:
        """Take the mark from drafts."""
        with as_sink_errors:
            for folder, file_id in self._drafts(file_ids):
                descriptor = open_own(file_id, os.O_RDONLY, dir_fd=folder)
                try:
                    os.fchmod(descriptor, 0o600)
                finally:
                    os.close(descriptor)

    def drafts(self, file_ids: Sequence[str]) -> Sequence[str]:
        """Return which of these files are drafts."""
        with as_sink_errors:
            return [file_id for _, file_id in self._drafts(file_ids)]

    def _drafts(self, file_ids: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Give the drafts among these files, each with its folder."""
        by_shard: dict[Path, list[str]] = {}
        for file_id in file_ids:
            by_shard.setdefault(self._shards.of(file_id), []).append(file_id)
        for shard, ids in by_shard.items():
            # What cannot be looked at counts as no draft: then nobody deletes it.
            with contextlib.suppress(OSError), opened(shard) as folder:
                yield from ((folder, file_id) for file_id in ids if _is_draft(file_id, folder))

    def read(
        self, file_id: str, runs: Sequence[Run], end: int, chunk_bytes: int, start: int = 0
    ) -> Generator[bytes, None, None]:
        """Read the bytes from ``start`` to ``end`` in blocks, run by run; ``BytesMissing`` when there are fewer."""
        with as_sink_errors:
            # Also of a file without bytes: it has to be there.
            for fence, first, last in list(parts_of(runs, start, end)) or [(runs[-1].fence, end, end)]:
                with self._reading(file_id, fence) as file:
                    file.seek(first)
                    left = last - first
                    while left > 0:
                        piece = file.read(min(chunk_bytes, left))
                        if not piece:
                            raise BytesMissing(f"{_name(file_id, fence)} ends {left} bytes too early")
                        left -= len(piece)
                        yield piece

    def descriptor(self, file_id: str, fence: int) -> int:
        """Open the file that a completed one is."""
        with as_sink_errors, opened(self._shards.of(file_id)) as folder:
            return open_own(_name(file_id, fence), os.O_RDONLY, dir_fd=folder)

    def finish(
        self, file_id: str, runs: Sequence[Run], size_bytes: int, stopped: Callable[[], bool] | None = None
    ) -> None:
        """Fill the hole that the newest run begins with; its own bytes stay as they are, so it may be done again."""
        newest = runs[-1]
        if newest.start == 0:
            return
        with as_sink_errors, opened(self._shards.of(file_id)) as folder:
            target = open_own(_name(file_id, newest.fence), os.O_WRONLY, dir_fd=folder)
            try:
                if os.fstat(target).st_size < size_bytes:
                    raise BytesMissing(f"{_name(file_id, newest.fence)} ends before {size_bytes}")
                for fence, first, last in parts_of(runs, 0, newest.start):
                    self._join(_name(file_id, fence), folder, target, range(first, last), stopped)
            finally:
                os.close(target)

    def _join(self, name: str, folder: int, target: int, where: range, stopped: Callable[[], bool] | None) -> None:
        """Copy a part of another run to the same place in ``target``, and sync it."""
        device = os.fstat(target).st_dev
        source = open_own(name, os.O_RDONLY, dir_fd=folder)
        try:
            for first in range(where.start, where.stop, _JOINED_AT_ONCE):
                if stopped is not None and stopped():
                    raise SinkError("nobody wants it whole any more")
                left = min(_JOINED_AT_ONCE, where.stop - first)
                if not self._room.claim(target, device, left):
                    raise self._no_room()
                while left:
                    copied = _copy(source, target, min(first + _JOINED_AT_ONCE, where.stop) - left, left)
                    if not copied:
                        raise BytesMissing(f"{name} ends before {where.stop}")
                    left -= copied
                os.fdatasync(target)
        finally:
            os.close(source)

    def delete_all(self, doomed: Sequence[Doomed]) -> dict[str, int | SinkError]:
        """Delete many; one sync per folder touched. Returns for each id what was freed or what went wrong."""
        outcomes: dict[str, int | SinkError] = {}
        by_shard: dict[Path, list[Doomed]] = {}
        for one in doomed:
            # A name that `open` refuses holds no bytes.
            if ID.fullmatch(one.file_id) is None:
                outcomes[one.file_id] = 0
            else:
                by_shard.setdefault(self._shards.of(one.file_id), []).append(one)
        for shard, some in by_shard.items():
            try:
                with opened(shard) as folder:
                    outcomes.update({one.file_id: _unlink_all(one, folder) for one in some})
                    _sync_entries(folder)
            except FileNotFoundError:
                # Never made, so nothing ever lay there.
                outcomes.update({one.file_id: 0 for one in some})
            except OSError as error:
                outcomes.update({one.file_id: meaning_of(error) for one in some})
        return outcomes

    def stored(
        self,
        unreadable: Callable[[SinkError], None] | None = None,
        *,
        unfinished: bool = False,  # noqa: ARG002 - no name tells
    ) -> Iterator[Stored]:
        """Everything that lies here; names that are not ours are left alone, as are linked folders."""
        with as_sink_errors:
            shards = names_in(self._root)
        for shard in shards:
            if not _SHARD.fullmatch(shard):
                continue
            try:
                with opened(self._root / shard) as folder:
                    names = names_in(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if unreadable is None:
                    raise meaning_of(error) from error
                unreadable(meaning_of(error))
                continue
            found: dict[str, tuple[int, ...]] = {}
            for name in names:
                if (match := _NAME.fullmatch(name)) is not None and name.startswith(shard):
                    found[match[1]] = (*found.get(match[1], ()), int(match[2] or WHOLE))
            yield from (Stored(file_id, fences) for file_id, fences in found.items())

    def size(self, file_id: str, runs: Sequence[Run]) -> int:
        """Bytes that can be read from the start of the file on."""
        readable = 0
        for fence, first, last in parts_of(runs, 0, sys.maxsize):
            # A run that ends before it begins has nothing but its hole.
            found = min(last, self._measure(file_id, fence, lambda status: status.st_size))
            readable = max(readable, found) if found > first else readable
            if readable < last:
                break
        return readable

    def size_under(self, file_id: str, fences: Sequence[int]) -> int:
        """Bytes that lie here under these fences."""
        return sum(self._measure(file_id, fence, _weight) for fence in fences)

    def _measure(self, file_id: str, fence: int, measure: Callable[[os.stat_result], int]) -> int:
        """Return a measure of a run's file, 0 if there is none."""
        if ID.fullmatch(file_id) is None:
            return 0
        try:
            with opened(self._shards.of(file_id)) as folder:
                return measure(os.stat(_name(file_id, fence), dir_fd=folder, follow_symlinks=False))
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise meaning_of(error) from error

    def room(self) -> int:
        """Bytes that may still be appended here: what is free, without what is kept for cancels."""
        with as_sink_errors:
            return self._room.left(self._place())

    def _place(self) -> Path:
        """Return the root, or the nearest folder above it that is there: nothing may have been stored yet."""
        return next(folder for folder in (self._root, *self._root.parents) if folder.is_dir())

    @contextlib.contextmanager
    def _reading(self, file_id: str, fence: int) -> Iterator[io.FileIO]:
        with io.FileIO(self.descriptor(file_id, fence), "rb") as file:
            yield file


def _name(file_id: str, fence: int) -> str:
    return f"{file_id}.{fence}" if fence != WHOLE else file_id


def _copy(source: int, target: int, offset: int, size: int) -> int:
    """Copy bytes to the same place in another file, by the kernel where it can; returns how many, 0 at the end."""
    try:
        return os.copy_file_range(source, target, size, offset, offset)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _CANNOT_COPY:
            raise
        return os.pwrite(target, os.pread(source, min(size, _COPIED_AT_ONCE), offset), offset)


def _sync_entries(folder: int) -> None:
    os.fsync(folder)


def _is_draft(name: str, folder: int) -> bool:
    try:
        return bool(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode & stat.S_ISVTX)
    except OSError:
        return False


def _weight(found: os.stat_result) -> int:
    """Return the bytes that a run's file takes: of a hole none."""
    return found.st_size if found.st_size <= _BLOCK else min(found.st_size, found.st_blocks * 512)


def _unlink_all(doomed: Doomed, folder: int) -> int | SinkError:
    freed = 0
    for fence in doomed.fences:
        if fence != doomed.kept:
            outcome = _unlink(_name(doomed.file_id, fence), folder)
            if isinstance(outcome, SinkError):
                return outcome
            freed += outcome
    return freed


def _unlink(name: str, folder: int) -> int | SinkError:
    try:
        freed = _weight(os.stat(name, dir_fd=folder, follow_symlinks=False))
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        # Perhaps unlinked by one who died before the sync: the folder is synced all the same.
        return 0
    except OSError as error:
        return meaning_of(error)
    return freed
