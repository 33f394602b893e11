"""Decides how files lie in an object store: pieces while they are sent, one object each once they are whole.

Must not know rows. Nothing here points at anything: which pieces count the runs say, and which object is a file's the
fence that its row names. A store's answer to a deletion or an abort is no evidence, so it is asked again what is there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from upload_server.domain.runs import WHOLE, Run
from upload_server.sink.protocol import BytesMissing, BytesThere, Chunk, Doomed, SinkError, SinkFile, Stored
from upload_server.sink.s3.address import parse_address
from upload_server.sink.s3.assembly import Assembly
from upload_server.sink.s3.client import REQUEST_SECONDS, Bucket, Found
from upload_server.sink.s3.file import S3File
from upload_server.sink.s3.names import (
    DONE,
    DRAFT,
    IDENTITY,
    OPEN,
    Piece,
    Stretch,
    draft_key,
    fence_of,
    id_in,
    is_id,
    piece_of,
    reach,
    stretches,
    whole_key,
)
from upload_server.sink.s3.usable import refuse_unusable

# Files that are looked at, or deleted, at once.
_AT_ONCE: Final = 8
# What a server that goes on listing what it has deleted is asked for again.
_ROUNDS: Final = 5
# Nothing tells how much an object store takes.
_ROOM: Final = 2**62


class S3Sink:
    """Bytes in a bucket. Methods block and raise SinkError; any thread may call them."""

    buffers: Final = True
    assembles: Final = True
    # A stream that was replaced may still be putting pieces, from whichever node.
    continues: Final = False
    # A PUT that was sent before the first look may land until it is given up, and one that was on its way to be sent.
    second_look: Final = 2 * REQUEST_SECONDS

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._assembly = Assembly(bucket)
        self._threads = ThreadPoolExecutor(_AT_ONCE, "s3")

    def check_usable(self) -> None:
        """Raise ``CannotStart`` unless objects can be put into the bucket, and are gone once they are deleted."""
        refuse_unusable(self._bucket)

    def identity(self) -> str:
        """Read it from an object beside the folders."""
        try:
            return self._bucket.read_all(IDENTITY).decode("ascii", "replace")
        except BytesMissing:
            return ""

    def adopt(self, store_id: str) -> str:
        """Put the object unless there is one."""
        self._bucket.put_new(IDENTITY, store_id.encode())
        return self.identity()

    def uri(self, file_id: str, fence: int) -> str:
        """Return the address of a whole file."""
        address = self._bucket.address
        return f"s3://{address.bucket}/{address.key(whole_key(file_id, fence))}"

    # Writing -------------------------------------------------------------------------------------------------------

    def open(self, file_id: str, runs: Sequence[Run], size_bytes: int, offset: int) -> SinkFile:
        """Open the newest of ``runs``; nothing is made until its first sync. ``BytesMissing`` when less lies there."""
        _check(file_id)
        # At 0 nothing has to lie there: the first look is saved.
        if offset and (there := reach(self._stretches(file_id, runs, offset))) < offset:
            raise BytesMissing(f"{file_id} has {there} bytes where {offset} were durable")
        return S3File(self._bucket, file_id, runs[-1].fence, size_bytes, offset)

    def put(self, file_id: str, data: Chunk) -> None:
        """Store a whole file, after the mark that its row may be missing."""
        _check(file_id)
        self._bucket.put_new(draft_key(file_id), b"")
        if not self._bucket.put_new(whole_key(file_id, WHOLE), data):
            raise BytesThere(f"{file_id} was put before")

    def keep(self, file_ids: Sequence[str]) -> None:
        """Delete the marks of these files."""
        self._bucket.delete([draft_key(file_id) for file_id in file_ids if is_id(file_id)])

    def drafts(self, file_ids: Sequence[str]) -> Sequence[str]:
        """Return which of these files have a mark."""
        marked = self._marked()
        return [file_id for file_id in file_ids if file_id in marked]

    # Reading -------------------------------------------------------------------------------------------------------

    def read(
        self, file_id: str, runs: Sequence[Run], end: int, chunk_bytes: int, start: int = 0
    ) -> Generator[bytes, None, None]:
        """Read from the whole file where there is one, else from its pieces."""
        _check(file_id)
        position = start
        for key, begins, upto in self._readable(file_id, runs, end, start):
            for block in self._bucket.stream(key, position - begins, upto - begins, chunk_bytes):
                position += len(block)
                yield block
        if position < end:
            raise BytesMissing(f"{file_id} ends {end - position} bytes too early")

    def _readable(self, file_id: str, runs: Sequence[Run], end: int, start: int) -> list[tuple[str, int, int]]:
        """Return the objects to read, each with where it begins in the file, and how far it is read."""
        if start >= end:
            return []
        if len(runs) == 1 and (size := self._whole_size(file_id, runs[0].fence)) is not None:
            return [(whole_key(file_id, runs[0].fence), 0, min(size, end))]
        found = self._stretches(file_id, runs, end, start)
        return [(each.piece.key, each.piece.start, each.end) for each in found]

    def _whole_size(self, file_id: str, fence: int) -> int | None:
        return self._bucket.size(whole_key(file_id, fence))

    def _stretches(self, file_id: str, runs: Sequence[Run], end: int, start: int = 0) -> list[Stretch]:
        return stretches(self._pieces(file_id), runs, end, start)

    def _pieces(self, file_id: str) -> list[Piece]:
        found = self._bucket.find(f"{OPEN}/{file_id}")
        return [piece for each in found if (piece := piece_of(each.key)) is not None]

    # The end -------------------------------------------------------------------------------------------------------

    def descriptor(self, file_id: str, fence: int) -> None:
        """Return none: the bytes are elsewhere."""

    def finish(
        self, file_id: str, runs: Sequence[Run], size_bytes: int, stopped: Callable[[], bool] | None = None
    ) -> None:
        """Put the file together under the newest run's fence; again, or after a crash in between, is no error."""
        _check(file_id)
        target = whole_key(file_id, runs[-1].fence)
        found = self._stretches(file_id, runs, size_bytes)
        self._assembly.make(target, found, size_bytes, stopped or _never)

    def delete_all(self, doomed: Sequence[Doomed]) -> dict[str, int | SinkError]:
        """Delete what lies there of each file under its fences, and abort what is being put together under them."""
        ours = {each.file_id for each in doomed if is_id(each.file_id)}
        try:
            # One listing for all: there are few, and only those of this moment.
            uploads = [upload for upload in self._bucket.open_uploads(DONE) if id_in(upload[0]) in ours]
        except SinkError as error:
            return dict.fromkeys((each.file_id for each in doomed), error)
        work = [self._threads.submit(self._delete, each, uploads) for each in doomed]
        return {each.file_id: done.result() for each, done in zip(doomed, work, strict=True)}

    def _delete(self, doomed: Doomed, uploads: Sequence[tuple[str, str]]) -> int | SinkError:
        if not is_id(doomed.file_id):
            return 0
        try:
            for key, upload_id in uploads:
                # To abort what was left of the object that is kept has cost some servers the object itself.
                if id_in(key) == doomed.file_id and fence_of(key) in doomed.fences and fence_of(key) != doomed.kept:
                    self._bucket.abort(key, upload_id)
            return self._delete_objects(doomed)
        except SinkError as error:
            return error

    def _delete_objects(self, doomed: Doomed) -> int:
        freed: dict[str, int] = {}
        for _ in range(_ROUNDS):
            going = self._going(doomed)
            if freed:
                # By now it may be another's: whoever puts the same file again.
                going.pop(whole_key(doomed.file_id, WHOLE), None)
            if not going:
                return sum(freed.values())
            self._bucket.delete([*going, *([draft_key(doomed.file_id)] if WHOLE in doomed.fences else ())])
            freed |= going
        raise SinkError(f"the object store still lists objects of {doomed.file_id} that it has deleted")

    def _going(self, doomed: Doomed) -> dict[str, int]:
        """Return the objects that are to go, with their bytes; under the fence that is kept all but the whole file."""
        there = {each.key: each.size for each in self._objects(doomed.file_id)}
        if doomed.kept is None:
            return {key: size for key, size in there.items() if fence_of(key) in doomed.fences}
        kept = whole_key(doomed.file_id, doomed.kept)
        if kept not in there:
            # The pieces may be all that is left of it.
            raise BytesMissing(f"{kept} is not there")
        fences = {*doomed.fences, doomed.kept}
        return {key: size for key, size in there.items() if fence_of(key) in fences and key != kept}

    def _objects(self, file_id: str) -> list[Found]:
        return [*self._bucket.find(f"{OPEN}/{file_id}"), *self._bucket.find(f"{DONE}/{file_id}")]

    # What lies here ------------------------------------------------------------------------------------------------

    def stored(
        self, unreadable: Callable[[SinkError], None] | None = None, *, unfinished: bool = False
    ) -> Iterator[Stored]:
        """Every file of which something lies here, or is being put together; keys that are not ours are left alone.

        ``unfinished`` leaves out what lies only in whole files: what it costs follows what is open, not the archive.
        """
        try:
            open_files = self._unfinished()
            if unfinished:
                for file_id in self._marked():
                    open_files.setdefault(file_id, set()).add(WHOLE)
            for file_id, objects in self._whole_files(wanted=not unfinished):
                fences = {fence for found in objects if (fence := fence_of(found.key)) is not None}
                if file_id:
                    yield Stored(file_id, tuple(fences | open_files.pop(file_id, set())))
            for file_id, fences in open_files.items():
                yield Stored(file_id, tuple(fences))
        except SinkError as error:
            if unreadable is None:
                raise
            unreadable(error)

    def _whole_files(self, *, wanted: bool) -> Iterator[tuple[str, Iterator[Found]]]:
        if wanted:
            yield from itertools.groupby(self._bucket.walk(DONE), lambda found: id_in(found.key))

    def _marked(self) -> set[str]:
        """Files with a mark: it lives for a moment, so there are few."""
        return {file_id for found in self._bucket.find(DRAFT) if (file_id := id_in(found.key))}

    def _unfinished(self) -> dict[str, set[int]]:
        """Fences of the pieces that lie here, and of what is being put together, by file: as much as is open."""
        found: dict[str, set[int]] = {}
        uploads = (key for key, _ in self._bucket.open_uploads(DONE))
        for key in itertools.chain((each.key for each in self._bucket.walk(OPEN)), uploads):
            if (fence := fence_of(key)) is not None:
                found.setdefault(id_in(key), set()).add(fence)
        return found

    def size(self, file_id: str, runs: Sequence[Run]) -> int:
        """How many bytes can be read: of the whole file where there is one, else of what lies in pieces."""
        if not is_id(file_id):
            return 0
        if len(runs) == 1 and (size := self._whole_size(file_id, runs[0].fence)) is not None:
            return size
        return reach(self._stretches(file_id, runs, _ROOM))

    def size_under(self, file_id: str, fences: Sequence[int]) -> int:
        """Bytes of all objects of these fences."""
        if not is_id(file_id):
            return 0
        return sum(each.size for each in self._objects(file_id) if fence_of(each.key) in fences)

    def room(self) -> int:
        """More than anybody sends: an object store tells of no bound before it is reached."""
        return _ROOM


def sink_at(url: str) -> S3Sink:
    """Return the sink at a storage URL; asks nothing of it. Raises ValueError, ``CannotStart``."""
    return S3Sink(Bucket(parse_address(url)))


def _check(file_id: str) -> None:
    if not is_id(file_id):
        raise SinkError("not an id of ours")


def _never() -> bool:
    return False
