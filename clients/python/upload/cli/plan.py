"""Decides which files an ``uploadctl upload`` means, and their names on the server.

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
    """The files to send; ``batch``: as one batch."""

    items: tuple[Item, ...]
    batch: bool

    @property
    def size_bytes(self) -> int:
        """Bytes in all."""
        return sum(item.size_bytes for item in self.items)


class PlanError(OSError):
    """The paths name no file."""


def plan(paths: Sequence[Path], name: str = "") -> Plan:
    """Return the files to send: one file alone, or a batch of several files and of the files in folders.

    The name of a file in a folder is its path within the folder, after the folder's name if there are several paths.
    Files with equal names get more of their paths, until the names differ: resuming a batch could not tell two files of
    one name apart. Raises ``OSError`` when a path fails.
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
    return Plan(_with_distinct_names(items), batch=True)


def _with_distinct_names(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the items with names that differ, longer ones where they did not; raises ``PlanError`` for twins."""
    named = list(items)
    while twins := _twins(named):
        for places in twins:
            for place in places:
                item = named[place]
                longer = _name_with(item.path, item.name.count("/") + 2)
                if longer == item.name:
                    paths = " and ".join(str(named[twin].path) for twin in places[:2])
                    raise PlanError(f"{paths} would have one name on the server: send them one by one")
                named[place] = Item(item.path, longer, item.size_bytes)
    return tuple(named)


def _twins(items: Sequence[Item]) -> list[list[int]]:
    """Return the places of the items that share their name with others, by name."""
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.name, []).append(place)
    return [shared for shared in places.values() if len(shared) > 1]


def _name_with(path: Path, segments: int) -> str:
    """Return the last segments of a path; all of them when there are fewer."""
    # Not `resolve`: it would follow links, and call a file by another name than it was given.
    absolute = Path(os.path.abspath(path))  # noqa: PTH100
    return unicodedata.normalize("NFC", "/".join(absolute.parts[1:][-segments:]))


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
