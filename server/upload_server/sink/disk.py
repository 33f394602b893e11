"""Decides how bytes lie on a local disk: one file per id, in folders by the id's first two digits.

Must not know whose bytes they are, nor which of them are wanted: rows decide that. Streams of one file share its name
whatever their fence, so only one process may work on a folder, and opening cuts off what an older stream left.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from upload_server.process.files import open_own
from upload_server.process.room import Room, used_up
from upload_server.sink.protocol import BytesMissing, BytesThere, Chunk, NoRoom, SinkError, SinkFile

# Ids are UUIDv4 text of ours. The sink refuses every other name: it could be a path.
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SHARD = re.compile(r"[0-9a-f]{2}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Of a draft: the sticky bit means nothing for a file, and copies of the folder carry it along.
_DRAFT_MODE = 0o600 | stat.S_ISVTX
# The kernel takes at most IOV_MAX (1,024 on Linux) pieces a call.
_MAX_PIECES = 1024


class _AsSinkErrors:
    """Inside the block an OSError becomes an error of the sink."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Raise what the OSError means."""
        if isinstance(error, OSError):
            raise _meaning_of(error) from error


_as_sink_errors = _AsSinkErrors()


def _meaning_of(error: OSError) -> SinkError:
    text = error.strerror or repr(error)
    if error.filename is not None:
        text = f"{text}: {error.filename}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoRoom(text)
    if isinstance(error, FileExistsError):
        return BytesThere(text)
    return BytesMissing(text) if isinstance(error, FileNotFoundError) else SinkError(text)


class DiskFile:
    """The bytes of one file, open for appending."""

    def __init__(self, descriptor: int, offset: int, room: Room) -> None:
        self._descriptor = descriptor
        self._room = room
        self._device = os.fstat(descriptor).st_dev
        # Where what was appended ends.
        self._end = offset
        self._lost: SinkError | None = None

    def append(self, chunks: Sequence[Chunk]) -> None:
        """Write all of ``chunks`` at the end; after a SinkError a part of them may have been written.

        ``NoRoom`` comes before the disk is full to its last byte, see ``DiskSink.room``.
        """
        left = [memoryview(chunk) for chunk in chunks if chunk]
        size = sum(map(len, left))
        with _as_sink_errors:
            if not self._room.claim(self._descriptor, self._device, size):
                raise NoRoom("what is left of the disk is kept for cancels")
            first = 0
            while first < len(left):
                written = os.writev(self._descriptor, left[first : first + _MAX_PIECES])
                while first < len(left) and written >= len(left[first]):
                    written -= len(left[first])
                    first += 1
                if written:  # a short write ended inside this piece
                    left[first] = left[first][written:]
        self._end += size

    def sync(self) -> int:
        """Make everything appended survive power loss; returns where it ends. After an error give the file up."""
        if self._lost is not None:
            raise self._lost
        # Before the call: what another thread appends meanwhile may come too late for it.
        end = self._end
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # The kernel may have marked the lost pages clean: a second sync would succeed without them.
            self._lost = _meaning_of(error)
            raise self._lost from error
        return end

    def close(self) -> None:
        """Close without syncing. Safe to call twice."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError as error:
                raise _meaning_of(error) from error


class DiskSink:
    """Bytes under ``root``; folders are 0700 and files 0600. Methods block and raise SinkError."""

    def __init__(self, root: Path, room: Room | None = None) -> None:
        """``room`` tells what is left of the disk."""
        self._root = root
        self._room = room or Room()
        # Folders whose own entry in `root` is known to be durable; at most 256.
        self._durable_shards: set[str] = set()
        self._lock = threading.Lock()

    def open(self, file_id: str, fence: int, offset: int) -> SinkFile:  # noqa: ARG002 - one name for every fence
        """Open for appending at ``offset``: what lies beyond is cut off; ``BytesMissing`` when there is less."""
        shard = self._shard(file_id)
        with _as_sink_errors:
            if offset == 0:
                descriptor = self._create(shard, file_id)
            else:
                with _opened(shard) as folder:
                    descriptor = open_own(file_id, os.O_WRONLY, dir_fd=folder)
            try:
                self._cut(descriptor, file_id, offset)
            except BaseException:
                os.close(descriptor)
                raise
        return DiskFile(descriptor, offset, self._room)

    def _create(self, shard: Path, file_id: str) -> int:
        """Open a file, made if need be, whose entry is durable."""
        if not self.room():
            raise self._no_room()
        with self._folder(shard) as folder:
            descriptor = open_own(file_id, os.O_WRONLY | os.O_CREAT, dir_fd=folder)
            try:
                # Also when the file was there: an earlier opening may have died before this.
                _sync_folder(folder)
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def _no_room(self) -> NoRoom:
        return NoRoom(used_up(self._place()) or "what is left of the disk is kept for cancels")

    @contextlib.contextmanager
    def _folder(self, shard: Path) -> Iterator[int]:
        """Open a folder, made if need be, for another file."""
        self._make_shard(shard)
        try:
            opened = os.open(shard, _FOLDER | os.O_NOFOLLOW)
        except FileNotFoundError:
            # Somebody has taken the empty folder away.
            with self._lock:
                self._durable_shards.discard(shard.name)
            self._make_shard(shard)
            opened = os.open(shard, _FOLDER | os.O_NOFOLLOW)
        try:
            yield opened
        finally:
            os.close(opened)

    def put(self, file_id: str, data: Chunk) -> None:
        """Store a whole file as a draft."""
        with _as_sink_errors, self._folder(self._shard(file_id)) as folder:
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
                _sync_folder(folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(file_id, dir_fd=folder)
                raise

    def keep(self, file_ids: Sequence[str]) -> None:
        """Take the mark from drafts."""
        with _as_sink_errors:
            for folder, file_id in self._drafts(file_ids):
                descriptor = open_own(file_id, os.O_RDONLY, dir_fd=folder)
                try:
                    os.fchmod(descriptor, 0o600)
                finally:
                    os.close(descriptor)

    def drafts(self, file_ids: Sequence[str]) -> Sequence[str]:
        """Return which of these files are drafts."""
        with _as_sink_errors:
            return [file_id for _, file_id in self._drafts(file_ids)]

    def _drafts(self, file_ids: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Give the drafts among these files, each with its folder."""
        by_shard: dict[Path, list[str]] = {}
        for file_id in file_ids:
            by_shard.setdefault(self._shard(file_id), []).append(file_id)
        for shard, ids in by_shard.items():
            # What cannot be looked at counts as no draft: then nobody deletes it.
            with contextlib.suppress(OSError), _opened(shard) as folder:
                yield from ((folder, file_id) for file_id in ids if _is_draft(file_id, folder))

    def read(self, file_id: str, end: int, chunk_bytes: int, start: int = 0) -> Iterator[bytes]:
        """Read the bytes from ``start`` to ``end`` in pieces; ``BytesMissing`` when there are fewer."""
        with _as_sink_errors, self._reading(file_id) as file:
            file.seek(start)
            left = end - start
            while left > 0:
                piece = file.read(min(chunk_bytes, left))
                if not piece:
                    raise BytesMissing(f"{file_id} ends {left} bytes too early")
                left -= len(piece)
                yield piece

    def delete_all(self, kept_fences: Mapping[str, int | None]) -> dict[str, int | SinkError]:
        """Delete many; one sync per folder touched. Returns for each id what was freed or what went wrong."""
        outcomes: dict[str, int | SinkError] = {}
        by_shard: dict[Path, list[str]] = {}
        for file_id, kept_fence in kept_fences.items():
            # A file that keeps a fence keeps its one name; and a name that `open` refuses holds no bytes.
            if kept_fence is not None or _ID.fullmatch(file_id) is None:
                outcomes[file_id] = 0
                continue
            by_shard.setdefault(self._shard(file_id), []).append(file_id)
        for shard, ids in by_shard.items():
            try:
                with _opened(shard) as folder:
                    outcomes.update({file_id: _unlink(file_id, folder) for file_id in ids})
                    _sync_folder(folder)
            except FileNotFoundError:
                # Never made, so nothing ever lay there.
                outcomes.update(dict.fromkeys(ids, 0))
            except OSError as error:
                outcomes.update(dict.fromkeys(ids, _meaning_of(error)))
        return outcomes

    def file_ids(self, unreadable: Callable[[SinkError], None] | None = None) -> Iterator[str]:
        """Ids of everything that lies here; names that are not ours are left alone, as are linked folders."""
        with _as_sink_errors:
            shards = _names(self._root)
        for shard in shards:
            if not _SHARD.fullmatch(shard):
                continue
            try:
                with _opened(self._root / shard) as folder:
                    names = _names(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                if unreadable is None:
                    raise _meaning_of(error) from error
                unreadable(_meaning_of(error))
                continue
            for name in names:
                if _ID.fullmatch(name) and name.startswith(shard):
                    yield name

    def size(self, file_id: str) -> int:
        """Bytes that lie here for this id, 0 if none."""
        if _ID.fullmatch(file_id) is None:
            return 0
        try:
            with _opened(self._shard(file_id)) as folder:
                return os.stat(file_id, dir_fd=folder, follow_symlinks=False).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise _meaning_of(error) from error

    def room(self) -> int:
        """Bytes that may still be appended here: what is free, without what is kept for cancels."""
        with _as_sink_errors:
            return self._room.left(self._place())

    def _place(self) -> Path:
        """Return the root, or the nearest folder above it that is there: nothing may have been stored yet."""
        return next(folder for folder in (self._root, *self._root.parents) if folder.is_dir())

    @contextlib.contextmanager
    def _reading(self, file_id: str) -> Iterator[io.FileIO]:
        with _opened(self._shard(file_id)) as folder:
            descriptor = open_own(file_id, os.O_RDONLY, dir_fd=folder)
        with io.FileIO(descriptor, "rb") as file:
            yield file

    def _shard(self, file_id: str) -> Path:
        if _ID.fullmatch(file_id) is None:
            raise SinkError("not an id of ours")
        return self._root / file_id[:2]

    def _make_shard(self, shard: Path) -> None:
        """Make the folder and its entry durable, once per process: whether an earlier one got that far is not known."""
        with self._lock:
            if shard.name in self._durable_shards:
                return
            if not self._root.is_dir():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                _sync_path(self._root.parent)
            shard.mkdir(mode=0o700, exist_ok=True)
            _sync_path(self._root)
            self._durable_shards.add(shard.name)

    @staticmethod
    def _cut(descriptor: int, file_id: str, offset: int) -> None:
        found = os.fstat(descriptor)
        if found.st_size < offset:
            raise BytesMissing(f"{file_id} has {found.st_size} bytes where {offset} were durable")
        if found.st_mode & stat.S_ISVTX:
            # A draft that a crash has left: from now on these are a stream's bytes.
            os.fchmod(descriptor, 0o600)
        # Need not be synced: after power loss the next opening cuts again, and no row ever counts what lies beyond.
        os.ftruncate(descriptor, offset)
        os.lseek(descriptor, offset, os.SEEK_SET)


def _is_draft(name: str, folder: int) -> bool:
    try:
        return bool(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode & stat.S_ISVTX)
    except OSError:
        return False


@contextlib.contextmanager
def _opened(folder: Path, flags: int = os.O_NOFOLLOW) -> Iterator[int]:
    """Open a folder, not one elsewhere that a link in its place names."""
    descriptor = os.open(folder, _FOLDER | flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync_folder(folder: int) -> None:
    os.fsync(folder)


def _sync_path(folder: Path) -> None:
    # The root itself may be a link: an operator puts the bytes on another disk so.
    with _opened(folder, 0) as descriptor:
        _sync_folder(descriptor)


def _unlink(name: str, folder: int) -> int | SinkError:
    try:
        freed = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        # Perhaps unlinked by one who died before the sync: the folder is synced all the same.
        return 0
    except OSError as error:
        return _meaning_of(error)
    return freed


def _names(folder: Path | int) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
