"""Decides which files an ``uploadctl upload`` means and what they are called on the server.

Reads folders, sends nothing.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_BATCH_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Item:
    """One local file and its name on the server."""

    path: Path
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be sent; ``batch``: as files that belong together."""

    items: tuple[Item, ...]
    batch: bool

    @property
    def size_bytes(self) -> int:
        """Bytes in all."""
        return sum(item.size_bytes for item in self.items)


class PlanError(OSError):
    """The paths name nothing that could be sent."""


def plan(paths: Sequence[Path], name: str = "") -> Plan:
    """Return the files to send: one file alone, or a batch of several files and of what lies in folders.

    A file in a folder is called by its path within the folder, with the folder's name before it when several paths were
    given. Raises ``OSError`` when a path cannot be read.
    """
    if len(paths) == 1 and not paths[0].is_dir():
        return Plan((_item(paths[0], name or paths[0].name),), batch=False)
    items: list[Item] = []
    for path in paths:
        if path.is_dir():
            prefix = Path(path.resolve().name) if len(paths) > 1 else Path()
            items += [_item(file, (prefix / file.relative_to(path)).as_posix()) for file in _files_in(path)]
        else:
            items.append(_item(path, path.name))
        if len(items) > MAX_BATCH_FILES:
            raise PlanError(f"More than {MAX_BATCH_FILES} files: send them as several batches")
    if not items:
        raise PlanError(f"No files in {paths[0]}: there is nothing to upload")
    return Plan(tuple(items), batch=True)


def _item(path: Path, name: str) -> Item:
    facts = path.stat()
    if not path.is_file():
        raise PlanError(f"{path} is not a file: only files and folders can be uploaded")
    return Item(path, unicodedata.normalize("NFC", name), facts.st_size)


def _files_in(folder: Path) -> Iterator[Path]:
    """Return the regular files below a folder in a stable order; links to folders are not followed."""
    for where, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(where, name)).is_file())


def _raise(error: OSError) -> None:
    raise error
