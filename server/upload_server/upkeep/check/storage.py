"""Decides what is wrong with the bytes that lie in the storage, by the rows: missing, short, left over.

Must not know what a disk is. While a service runs everything moves: suspicious bytes are re-checked before they are
reported, and rows are read before the bytes they speak of.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from upload_server.sink.protocol import Sink, SinkError, Stored
from upload_server.store.inspection import FileFacts, Inspection
from upload_server.upkeep.check.findings import Finding, Mend, Report

T = TypeVar("T")

_PAGE = 500
_CHUNK = 1024 * 1024
# Suspicious bytes that are re-checked; beyond that many the check reports them at once.
_MAX_SUSPECTS = 10_000
_RECHECKS = 3

OWED = "files whose bytes are owed deletion: the service is at it, or does it after its next start"
DRAFTS = "bytes that came whole and whose rows were never written: the next start, or their next sender, sees to them"
NEVER_KEPT = "files completed before bytes were kept here: they have no SHA-256"

_LOST = "the bytes are lost here: restore them from a backup, or tell the owner"
_UNKNOWN = (
    "is this the right database, or an older backup of it? They may be the only copy of something; if not, delete them"
    " by `--repair --delete-unknown`"
)

# Looks at a file's row and at what lies there of it.
Judge = Callable[[FileFacts | None, Stored], Finding | None]


class Storage:
    """Compares bytes with rows."""

    def __init__(self, inspection: Inspection, sink: Sink, report: Report, pause: float) -> None:
        """``pause``: seconds before suspicious bytes are re-checked, while a service runs."""
        self._inspection = inspection
        self._sink = sink
        self._report = report
        self._pause = pause
        self._suspects: list[tuple[Stored, Judge]] = []

    def check(self, *, hashes: bool) -> None:
        """Look at every file's bytes, and at everything that lies in the storage."""
        for page in self._files():
            for file in page:
                self._judge(file, Stored(file.file_id, ()), self._of_row)
                if hashes:
                    self._hash(file)
        for found in _pages(self._sink.stored(self._add_unreadable)):
            self._report.counted["stored"] += len(found)
            self._inspection.refresh()
            rows = self._inspection.files_named([one.file_id for one in found])
            for one in found:
                self._judge(rows.get(one.file_id), one, self._of_bytes)
        self._recheck()

    def _add_unreadable(self, error: SinkError) -> None:
        text = f"a folder of the storage cannot be read: {error}"
        self._report.add(Finding("bytes.unreadable", text, "see who owns it, and who runs this command"))

    def _files(self) -> Iterator[Sequence[FileFacts]]:
        last = 0
        while True:
            self._inspection.refresh()
            page = self._inspection.files_after(last, _PAGE)
            if not page:
                return
            yield page
            last = page[-1].row

    def _judge(self, file: FileFacts | None, found: Stored, judge: Judge) -> None:
        finding = judge(file, found)
        if finding is None:
            return
        if self._report.running and len(self._suspects) < _MAX_SUSPECTS:
            self._suspects.append((found, judge))
        else:
            self._report.add(finding)

    def _recheck(self) -> None:
        """Report the suspicions that hold in a new snapshot each time: a service that runs moves bytes meanwhile."""
        left, found = self._suspects, list[Finding]()
        for _ in range(_RECHECKS):
            if not left:
                return
            time.sleep(self._pause)
            again = list(self._rejudged(left))
            left = [(suspect, judge) for suspect, judge, _ in again]
            found = [finding for _, _, finding in again]
        self._report.add_all(found)

    def _rejudged(self, suspects: Sequence[tuple[Stored, Judge]]) -> Iterator[tuple[Stored, Judge, Finding]]:
        for page in _pages(iter(suspects)):
            self._inspection.refresh()
            rows = self._inspection.files_named([found.file_id for found, _ in page])
            for found, judge in page:
                finding = judge(rows.get(found.file_id), found)
                if finding is not None:
                    yield found, judge, finding

    def _is_draft(self, file_id: str) -> bool:
        try:
            return bool(self._sink.drafts([file_id]))
        except SinkError:
            return False

    def _size(self, file: FileFacts) -> int | SinkError:
        try:
            return self._sink.size(file.file_id, file.runs)
        except SinkError as error:
            return error

    def _of_row(self, file: FileFacts | None, found: Stored) -> Finding | None:
        """Whether the bytes that a row speaks of are there."""
        if file is None or not (file.has_content or file.status == "uploading"):
            return None
        wanted = file.size_bytes if file.status == "completed" else file.bytes_received
        stored, file_id = self._size(file), found.file_id
        ids = {"file_id": file_id}
        if isinstance(stored, SinkError):
            text = f"the bytes of file {file_id} cannot be looked at: {stored}"
            return Finding("bytes.unreadable", text, "look at the storage", ids)
        if stored == 0 and wanted > 0:
            if file.status == "completed" and not file.sha256:
                self._report.notes[NEVER_KEPT] += 1
                return None
            text = f"the {wanted} bytes of file {file_id} ({file.status}) are missing"
            return Finding("bytes.missing", text, _LOST, ids)
        if stored < wanted:
            text = f"file {file_id} ({file.status}) has {stored} bytes of the {wanted} that are recorded"
            return Finding("bytes.short", text, _LOST, ids)
        if file.status == "completed" and stored > wanted:
            text = f"file {file_id} is completed with {wanted} bytes, but {stored} lie there"
            return Finding("bytes.long", text, "somebody wrote to it: compare by --hash", ids)
        return None

    def _of_bytes(self, file: FileFacts | None, found: Stored) -> Finding | None:
        """Whether bytes that lie there may lie there."""
        file_id, fences = found
        ids = {"file_id": file_id}
        if (file is None or file.status == "pending") and self._is_draft(file_id):
            self._report.notes[DRAFTS] += 1
            return None
        if file is None:
            text = f"{self._words(found)} lie in the storage under {file_id}, and no row knows them"
            return Finding("bytes.unknown", text, _UNKNOWN, ids, Mend.DELETE_UNKNOWN, fences=fences)
        if file.status == "pending":
            text = f"{self._words(found)} lie there for file {file_id}, to which nobody has sent"
            return Finding("bytes.early", text, "none of this service's doing; no sender is kept from sending", ids)
        left = file.left_over(fences)
        if not left or file.owed:
            return None
        text = f"{self._words(Stored(file_id, left))} of file {file_id} are left over: it is {file.status}"
        if file.has_content:
            text += " and keeps others"
        elif file.status == "completed":
            text += ", and its bytes were let go"
        return Finding("bytes.orphan", text, "`--repair` deletes them", ids, Mend.DELETE_BYTES, fences=fences)

    def _words(self, found: Stored) -> str:
        try:
            return f"{self._sink.size_under(*found)} bytes"
        except SinkError:
            return "bytes"

    def _hash(self, file: FileFacts) -> None:
        """Hash what a completed file keeps; it does not change any more."""
        if not file.has_content or not file.sha256 or self._size(file) != file.size_bytes:
            return
        digest = hashlib.sha256()
        ids = {"file_id": file.file_id}
        try:
            if file.size_bytes:
                for piece in self._sink.read(file.file_id, file.runs, file.size_bytes, _CHUNK):
                    digest.update(piece)
        except SinkError as error:
            text = f"the bytes of file {file.file_id} cannot be read: {error}"
            self._report.add(Finding("bytes.unreadable", text, "look at the storage", ids))
            return
        self._report.counted["hashed"] += 1
        if digest.hexdigest() != file.sha256:
            text = f"the bytes of file {file.file_id} are not what was uploaded: their SHA-256 is another one"
            self._report.add(Finding("bytes.hash", text, _LOST, ids))


def _pages(things: Iterator[T]) -> Iterator[list[T]]:
    while page := list(itertools.islice(things, _PAGE)):
        yield page
