"""Decides how files that belong together are sent: which, how many at once, and what becomes of each.

Must not know on what loop it runs.
"""

from __future__ import annotations

import mimetypes
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from upload.plan import Skipped, plan
from upload.records import Batch, File
from upload.v1 import upload_pb2 as pb

Sendable = str | os.PathLike[str] | bytes | bytearray | memoryview
"""What can be sent in a batch: a path, or bytes."""
BatchFiles = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Mapping[str, Sendable]
"""Files that belong together: a folder, several paths, or names with what is sent under each."""

# Files sent at once, unless told otherwise; and of files that the service takes with one write.
_JOBS, _SMALL_JOBS = 4, 32
_SMALL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class UploadedBatch:
    """What became of a batch: its completed ``files``, and by name the error of each other one.

    ``skipped`` is what was left out of folders, and why.
    """

    batch: Batch
    files: tuple[File, ...]
    errors: Mapping[str, Exception]
    skipped: tuple[Skipped, ...] = ()


@dataclass(slots=True)
class Sendables:
    """What is sent under which name, in order."""

    names: list[str] = field(default_factory=list)
    contents: list[Sendable] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    skipped: tuple[Skipped, ...] = ()

    @property
    def specs(self) -> list[pb.FileSpec]:
        """What is announced."""
        return [
            pb.FileSpec(filename=name, size_bytes=size, content_type=mimetypes.guess_type(name)[0] or "")
            for name, size in zip(self.names, self.sizes, strict=True)
        ]


def sendables(files: BatchFiles) -> Sendables:
    """Return what to send; raises OSError for a path that fails."""
    found = Sendables()
    if isinstance(files, Mapping):
        for name, content in files.items():
            found.names.append(unicodedata.normalize("NFC", name))
            found.contents.append(content)
            found.sizes.append(_size(content))
        return found
    planned = plan([Path(files)] if isinstance(files, str | os.PathLike) else [Path(path) for path in files])
    found.skipped = planned.skipped
    for item in planned.items:
        found.names.append(item.name)
        found.contents.append(item.path)
        found.sizes.append(item.size_bytes)
    return found


def _size(content: Sendable) -> int:
    if isinstance(content, str | os.PathLike):
        return Path(content).stat().st_size
    if isinstance(content, bytes | bytearray | memoryview):
        return memoryview(content).nbytes
    raise TypeError(f"Cannot send a {type(content).__name__} in a batch: give a path or bytes")


def helpful_jobs(sizes: Iterable[int]) -> int:
    """Return how many files sent at once help: small ones wait for the server more than they take."""
    return _JOBS if any(size > _SMALL_BYTES for size in sizes) else _SMALL_JOBS
