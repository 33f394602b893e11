"""Decides how a backup is made beside a running server: the rows in one snapshot, then the bytes that they keep.

Must not know which database or storage either of them is. Bytes that a cancel takes meanwhile are no loss: the rows are
taken anew, until rows and bytes belong together. A backup is a data directory, to be checked and restored as one; under
its name lies a whole one or none, and what an interrupted one has brought is not brought again.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from upload_server.domain.errors import CannotStart
from upload_server.domain.states import FileStatus
from upload_server.process.files import sync_folder
from upload_server.sink.protocol import BytesMissing, Doomed, Sink
from upload_server.store.inspection import FileFacts, Inspection
from upload_server.upkeep.check.findings import Report
from upload_server.upkeep.check.run import CheckOptions, check
from upload_server.upkeep.copying import CannotCopy, Storages, copy_file, is_empty, kept_bytes, pages

_PAGE: Final = 500
# Times that rows are taken anew because bytes have gone since; each time there is less left to bring.
_TRIES: Final = 10


# Copies all rows, as they are at one moment, into a file, and opens that.
TakeRows = Callable[[Path], Inspection]
# Gives where bytes lie, and a storage in a folder, where they go.
StoragesFor = Callable[[Path], Storages]


class CannotBackUp(CannotStart):
    """No backup was made; the message says why."""


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup has in it. ``report`` is what `check` says of it: what was wrong at its source is wrong in it."""

    report: Report
    damaged: tuple[str, ...]
    files: int
    size_bytes: int


def back_up(take_rows: TakeRows, storages_for: StoragesFor, folder: Path, database: str, version: str) -> Backup:
    """Make a backup named ``folder``, with the rows in a file named ``database``, by the program of ``version``.

    Raises ``CannotBackUp``, and what the store and the sinks raise.
    """
    if os.path.lexists(folder):
        raise CannotBackUp(f"--to: {folder} is there already; give each backup a folder of its own")
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    with contextlib.suppress(FileExistsError):
        unfinished.mkdir(mode=0o700, parents=True)
    with _alone(unfinished):
        copy = _Copy(take_rows, storages_for(unfinished / "bytes"), unfinished / database)
        made = copy.bring_all()
        _write_manifest(unfinished / "manifest.json", made, {"version": version, "store_id": copy.store_id})
        if os.path.lexists(folder):
            raise CannotBackUp(f"--to: {folder} was made meanwhile")
        unfinished.rename(folder)
        sync_folder(folder)
        sync_folder(folder.absolute().parent)
    return made


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second backup of the same name: each would give the other's rows its own bytes.

    And a folder that somebody else has put there, or a link: what lies in it would be deleted, or theirs to read.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:
        raise CannotBackUp(f"--to: {folder} is no folder, or a link: take it away") from None
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise CannotBackUp(f"--to: {folder} belongs to another user: take it away")
        os.fchmod(descriptor, 0o700)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotBackUp(f"--to: another backup is at work in {folder}") from None
        yield
    finally:
        os.close(descriptor)


class _Copy:
    """A backup that is being made."""

    def __init__(self, take_rows: TakeRows, storages: Storages, database: Path) -> None:
        self._take_rows = take_rows
        self._storages = storages
        self._database = database
        self._damaged: dict[str, str] = {}
        # Rows of completed files that were copied and read back.
        self._whole: set[int] = set()
        self.store_id = ""

    def bring_all(self) -> Backup:
        """Bring rows and bytes until they belong together, and check them."""
        missing: frozenset[str] = frozenset()
        for _ in range(_TRIES):
            with contextlib.closing(self._take_rows(self._database)) as rows:
                before, (missing, counts) = missing, self._bring_bytes(rows)
                # What is missing twice is lost at the source, and no new rows would know better.
                if missing == before:
                    return self._finished(rows, counts)
        raise CannotBackUp("uploads are cancelled or completed faster than their bytes are copied; nothing was made")

    def _bring_bytes(self, rows: Inspection) -> tuple[frozenset[str], Counter[str]]:
        """Bring the bytes that rows keep; returns the ids of files whose bytes are not there, and what was counted."""
        missing: set[str] = set()
        counts = Counter[str]()
        # Of a file that was cancelled since nothing is damaged.
        self._damaged.clear()
        for file in itertools.chain.from_iterable(pages(rows)):
            size = kept_bytes(file)
            if not size and not is_empty(file):
                continue
            try:
                self._bring(file)
            except BytesMissing:
                missing.add(file.file_id)
                continue
            except CannotCopy as error:
                self._damaged[file.file_id] = str(error)
            counts.update(files=1, bytes=size)
        return frozenset(missing), counts

    def _bring(self, file: FileFacts) -> None:
        """Copy a file unless an earlier round has brought all of it.

        What an open file had copied is not taken for the completed one's: by then its bytes may lie in other runs, and
        the copy would keep the holes of the old ones.
        """
        if file.row not in self._whole:
            copy_file(file, self._storages)
            if file.status == FileStatus.COMPLETED:
                self._whole.add(file.row)

    def _finished(self, rows: Inspection, counts: Counter[str]) -> Backup:
        self._delete_left_over(rows, self._storages.destination)
        self.store_id = rows.store_id()
        report = check(rows, self._storages.destination, CheckOptions(running=False))
        return Backup(report, tuple(self._damaged.values()), counts["files"], counts["bytes"])

    @staticmethod
    def _delete_left_over(rows: Inspection, destination: Sink) -> None:
        """Delete what earlier rows kept and these do not."""
        stored = destination.stored()
        while page := list(itertools.islice(stored, _PAGE)):
            known = rows.files_named([one.file_id for one in page])
            left = ((one, known.get(one.file_id)) for one in page)
            destination.delete_all(
                [
                    Doomed(one.file_id, fences)
                    for one, file in left
                    if (fences := one.fences if file is None else file.left_over(one.fences))
                ]
            )


def _write_manifest(path: Path, made: Backup, of_store: Mapping[str, str]) -> None:
    manifest = {
        "made_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        **of_store,
        "audit_anchor": made.report.anchor,
        "files": made.files,
        "bytes": made.size_bytes,
        "wrong": made.report.open_findings + len(made.damaged),
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps(manifest, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
