"""Decides in which folder a file's runs lie, by the id's first digits, and that a folder's own entry is durable.

Must not know what lies in a folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from upload_server.process.files import sync_folder
from upload_server.sink.protocol import SinkError

# Ids are UUIDv4 text of ours. The sink refuses every other name: it could be a path.
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Shards:
    """The folders below ``root``, made when a first file needs them; 0700. Methods raise OSError."""

    def __init__(self, root: Path) -> None:
        self._root = root
        # Folders whose own entry in `root` is known to be durable; at most 256.
        self._durable: set[str] = set()
        self._lock = threading.Lock()

    def of(self, file_id: str) -> Path:
        """Return the folder of a file; raises ``SinkError`` for an id that is none of ours."""
        if ID.fullmatch(file_id) is None:
            raise SinkError("not an id of ours")
        return self._root / file_id[:2]

    @contextlib.contextmanager
    def folder(self, shard: Path) -> Iterator[int]:
        """Open a folder, made if need be, for another file."""
        self._make(shard)
        try:
            descriptor = os.open(shard, _FOLDER)
        except FileNotFoundError:
            # Somebody has taken the empty folder away.
            with self._lock:
                self._durable.discard(shard.name)
            self._make(shard)
            descriptor = os.open(shard, _FOLDER)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _make(self, shard: Path) -> None:
        """Make the folder and its entry durable, once per process: whether an earlier one got that far is not known."""
        with self._lock:
            if shard.name in self._durable:
                return
            if not self._root.is_dir():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                sync_folder(self._root.parent)
            shard.mkdir(mode=0o700, exist_ok=True)
            # The root itself may be a link: an operator puts the bytes on another disk so.
            sync_folder(self._root)
            self._durable.add(shard.name)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[int]:
    """Open a folder, not one elsewhere that a link in its place names."""
    descriptor = os.open(folder, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def names_in(folder: Path | int) -> Iterable[str]:
    """Return what lies in a folder; nothing where there is none."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
