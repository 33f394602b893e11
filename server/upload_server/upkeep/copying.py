"""Decides how a stopped installation becomes another one: first the bytes, then all rows in one transaction.

Must not know which database or storage either of them is. Until the rows are there the destination is an empty store,
so a copy that was interrupted is begun anew; bytes that it has already brought are not brought twice.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from upload_server.domain.errors import CannotStart
from upload_server.domain.states import FileStatus
from upload_server.sink.protocol import Doomed, Sink
from upload_server.store.inspection import FileFacts, Filling, Inspection

_PAGE = 500
_CHUNK = 1024 * 1024
# Chunks that a storage keeps in memory until it is told to sync.
_BUFFERED = 8
# Files at once: each waits for its own sync.
_AT_ONCE = 8


class CannotCopy(CannotStart):
    """The source cannot be copied, or not to there; the message says why."""


@dataclass(frozen=True, slots=True)
class Storages:
    """Where bytes come from and go to."""

    source: Sink
    destination: Sink


def refuse_unfit(source: Inspection, destination: Inspection) -> None:
    """Raise ``CannotCopy`` unless both schemas are this program's and the destination is empty."""
    for inspection, name in ((source, "--from"), (destination, "--to")):
        faults = inspection.schema_faults()
        if faults:
            first = f"{faults[0].kind} {faults[0].name} is {faults[0].what}"
            raise CannotCopy(f"{name}: the schema is not this program's ({first}); run `upload-server migrate` on it")
    if destination.last_change() or destination.greatest_number():
        raise CannotCopy("--to: the store is not empty; nothing was copied")
    if not source.store_id():
        raise CannotCopy("--from: the store has lost its identity; `upload-server check` tells more")


def copy_bytes(source: Inspection, storages: Storages) -> Counter[str]:
    """Copy the bytes that rows keep, and compare them with their SHA-256; returns how many ``files`` and ``bytes``.

    Raises ``CannotCopy`` or SinkError at the first file that is not whole, ``CannotCopy`` where strange bytes lie.
    """
    _refuse_strange_bytes(source, storages.destination)
    copied = Counter[str]()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for page in pages(source):
            kept = [file for file in page if kept_bytes(file) or is_empty(file)]
            for size in threads.map(lambda file: copy_file(file, storages), kept):
                copied.update(files=1, bytes=size)
    return copied


def copy_rows(source: Inspection, filling: Filling) -> Counter[str]:
    """Copy every table in one transaction; returns how many rows of each."""
    copied = Counter({table: filling.add(table, rows) for table, rows in source.tables()})
    filling.commit()
    return copied


def pages(source: Inspection) -> Iterator[Sequence[FileFacts]]:
    """Yield all files in the order of their rows."""
    last = 0
    while page := source.files_after(last, _PAGE):
        yield page
        last = page[-1].row


def kept_bytes(file: FileFacts) -> int:
    """Bytes that a row keeps; of a file that was completed before bytes were kept there are none."""
    if file.status == FileStatus.COMPLETED:
        return file.size_bytes if file.sha256 and file.has_content else 0
    return file.bytes_received if file.status == FileStatus.UPLOADING else 0


def is_empty(file: FileFacts) -> bool:
    """Whether a file is whole with no byte: something lies there for it too."""
    return file.has_content and bool(file.sha256) and not file.size_bytes


def _refuse_strange_bytes(source: Inspection, destination: Sink) -> None:
    ids = (one.file_id for one in destination.stored())
    while page := list(itertools.islice(ids, _PAGE)):
        known = source.files_named(page)
        for file_id in page:
            if file_id not in known:
                raise CannotCopy(f"--to-storage: it is not empty: no file of --from is {file_id}; nothing was copied")


def copy_file(file: FileFacts, storages: Storages) -> int:
    """Copy the bytes that a row keeps and read them back; returns how many. Raises ``CannotCopy`` and SinkError."""
    size = kept_bytes(file)
    # An earlier copy that was interrupted may have brought it.
    there = size > 0 and bool(file.sha256) and storages.destination.size(file.file_id, file.runs) == size
    if there and _digest(storages.destination, file, size) == file.sha256:
        return size
    digest = hashlib.sha256()
    for number, run in enumerate(file.runs, start=1):
        end = file.runs[number].start if number < len(file.runs) else size
        target = storages.destination.open(file.file_id, file.runs[:number], file.size_bytes, run.start)
        try:
            for count, piece in enumerate(
                storages.source.read(file.file_id, file.runs, end, _CHUNK, run.start), start=1
            ):
                digest.update(piece)
                target.append([piece])
                if storages.destination.buffers and count % _BUFFERED == 0:
                    target.sync()
            target.sync()
        finally:
            target.close()
    if file.status == FileStatus.COMPLETED:
        storages.destination.finish(file.file_id, file.runs, size)
        fences = tuple(run.fence for run in file.runs)
        # What it was put together of.
        storages.destination.delete_all([Doomed(file.file_id, fences, kept=fences[-1])])
    if file.sha256 and digest.hexdigest() != file.sha256:
        raise CannotCopy(f"the bytes of file {file.file_id} are not what was uploaded: their SHA-256 is another one")
    if _digest(storages.destination, file, size) != digest.hexdigest():
        raise CannotCopy(f"the bytes of file {file.file_id} came to --to-storage as others")
    return size


def _digest(sink: Sink, file: FileFacts, size: int) -> str:
    digest = hashlib.sha256()
    for piece in sink.read(file.file_id, file.runs, size, _CHUNK):
        digest.update(piece)
    return digest.hexdigest()
