"""Decides which files some paths mean, their names on the server, and which of them cannot be sent.

Reads folders, sends nothing.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_BATCH_FILES = 10_000
MAX_SEGMENT_CHARACTERS = 255
MAX_NAME_BYTES = 4096
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Item:
    """One local file and its name on the server."""

    path: Path
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a folder that is left out; ``is_file``: it has bytes, which then are missing on the server."""

    path: Path
    why: str
    is_file: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The files to send; ``batch``: as one batch, or several when there are more than one takes."""

    items: tuple[Item, ...]
    batch: bool
    skipped: tuple[Skipped, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Bytes in all."""
        return sum(item.size_bytes for item in self.items)


class PlanError(OSError):
    """The paths name no file, or one that cannot be sent."""


def plan(paths: Sequence[Path], name: str = "") -> Plan:
    """Return the files to send: one file alone, or a batch of several files and of the files in folders.

    The name of a file in a folder is its path within the folder, after the folder's name if there are several paths.
    Files with equal names get more of their paths, until the names differ: resuming a batch could not tell two files of
    one name apart. What cannot be sent of a folder is ``skipped``; of what is named itself it raises ``OSError``.
    """
    if len(paths) == 1 and not paths[0].is_dir():
        return Plan((_named(paths[0], name or paths[0].name),), batch=False)
    items: list[Item] = []
    skipped: list[Skipped] = []
    for path in paths:
        if path.is_dir():
            prefix = Path(path.resolve().name) if len(paths) > 1 else Path()
            for found in _found_in(path, prefix):
                (items if isinstance(found, Item) else skipped).append(found)  # type: ignore[arg-type]
        else:
            items.append(_named(path, path.name))
    if not items:
        reason = f"; {skipped[0].path} {skipped[0].why}" if skipped else ""
        raise PlanError(f"No files in {paths[0]}: there is nothing to upload{reason}")
    return Plan(_with_distinct_names(items), batch=True, skipped=tuple(skipped))


def name_problem(name: str) -> str:
    """Return the rule of the service that a name breaks, or nothing."""
    rules = (
        (any("\ud800" <= char <= "\udfff" for char in name), "has a name that is not UTF-8"),
        (_CONTROL.search(name) is not None, "has control characters in its name"),
        ("\\" in name, "has a backslash in its name"),
        (
            any(len(segment) > MAX_SEGMENT_CHARACTERS for segment in name.split("/")),
            f"has more than {MAX_SEGMENT_CHARACTERS} characters in one segment of its name",
        ),
    )
    problem = next((rule for broken, rule in rules if broken), "")
    if not problem and len(name.encode()) > MAX_NAME_BYTES:
        return f"has a name of more than {MAX_NAME_BYTES} bytes, its folders included"
    return problem


def _with_distinct_names(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return the items with names that differ, longer ones where they did not; raises ``PlanError`` for twins."""
    named = list(items)
    while twins := _twins(named):
        for places in twins:
            for place in places:
                item = named[place]
                longer = _name_with(item.path, item.name.count("/") + 2)
                if problem := name_problem(longer):
                    raise PlanError(f"{item.path} {problem}")
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


def _named(path: Path, name: str) -> Item:
    """Return a file that was named itself."""
    if not path.is_file():
        path.stat()
        raise PlanError(f"{path} is not a file: only files and folders can be uploaded")
    if problem := name_problem(name):
        raise PlanError(f"{path} {problem}; --name gives it another one")
    return Item(path, unicodedata.normalize("NFC", name), path.stat().st_size)


def _found_in(folder: Path, prefix: Path) -> Iterator[Item | Skipped]:
    """Return what is below a folder in a stable order; links to folders are not followed."""
    unread: list[OSError] = []
    for where, folders, names in os.walk(folder, onerror=unread.append):
        folders.sort()
        yield from (_unreadable(error) for error in unread)
        unread.clear()
        for name in (name for name in folders if Path(where, name).is_symlink()):
            yield Skipped(Path(where, name), "is a link to a folder, which is not followed", is_file=False)
        for name in sorted(names):
            path = Path(where, name)
            yield _in_folder(path, (prefix / path.relative_to(folder)).as_posix())
    for error in unread:
        if Path(error.filename) == folder:
            raise error
        yield _unreadable(error)


def _unreadable(error: OSError) -> Skipped:
    return Skipped(Path(error.filename), f"cannot be read: {error.strerror}", is_file=True)


def _in_folder(path: Path, name: str) -> Item | Skipped:
    try:
        if not path.is_file():
            leads_nowhere = path.is_symlink() and not path.exists()
            why = "is a link that leads nowhere" if leads_nowhere else "is no regular file"
            return Skipped(path, why, is_file=False)
        size = path.stat().st_size
    except OSError as error:
        return _unreadable(error)
    if not os.access(path, os.R_OK):
        return Skipped(path, "cannot be read: Permission denied", is_file=True)
    if problem := name_problem(name):
        return Skipped(path, problem, is_file=True)
    return Item(path, unicodedata.normalize("NFC", name), size)
