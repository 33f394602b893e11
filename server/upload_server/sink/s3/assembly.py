"""Decides how pieces become one object: copied inside the store, part by part, and looked at before it counts.

Must not know rows or streams. What fails half-way leaves parts that no name leads to: whoever deletes the file aborts
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import BoundedSemaphore

from upload_server.sink.protocol import BytesMissing, SinkError
from upload_server.sink.s3.client import Bucket, Refused
from upload_server.sink.s3.names import MIB, Part, Stretch, parts, reach

# Parts that the store is asked to copy at once, of all files together.
_COPIES = 8
# What parts of several pieces may take of the memory, together.
_READ_BYTES = 64 * MIB
# How often it is asked meanwhile whether anybody still wants the file.
_LOOK_SECONDS = 0.1


class Assembly:
    """Puts files together, for one sink; ``close`` when nothing more is to be."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._threads = ThreadPoolExecutor(_COPIES, "s3-assembly")
        self._reading = BoundedSemaphore(_READ_BYTES // (8 * MIB))

    def close(self) -> None:
        """Start no more copies."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def make(self, target: str, found: Sequence[Stretch], size_bytes: int, stopped: Callable[[], bool]) -> None:
        """Make the object ``target`` of what lies in pieces; again is no error. Its size is looked at, not believed.

        Gives up soon after ``stopped`` says so.
        """
        if self._bucket.size(target) == size_bytes:
            return
        if reach(found) != size_bytes:
            raise BytesMissing(f"of {target} only {reach(found)} bytes of {size_bytes} lie in pieces")
        if not found:
            self._bucket.put_new(target, b"")
        elif len(found) == 1 and found[0].is_all:
            self._bucket.copy(found[0].piece.key, target)
        else:
            self._join(target, list(parts(found, size_bytes)), stopped)
        if (made := self._bucket.size(target)) != size_bytes:
            raise SinkError(f"{target} was put together and has {made} bytes where {size_bytes} were meant")

    def _join(self, target: str, wanted: Sequence[Part], stopped: Callable[[], bool]) -> None:
        upload_id = self._bucket.begin(target)
        copies: list[Future[tuple[int, str]]] = []
        try:
            copies += [self._threads.submit(self._part, target, upload_id, part) for part in wanted]
            while wait(copies, _LOOK_SECONDS, FIRST_EXCEPTION).not_done and not any(map(_has_failed, copies)):
                _heed(stopped, target)
            _heed(stopped, target)
            tags = dict(copy.result() for copy in copies)
            self._complete(target, upload_id, tags, sum(part.size for part in wanted))
        except BaseException:
            for copy in copies:
                copy.cancel()
            # What is under way may still land after it: the file's deletion, or the next sweep, looks again.
            with contextlib.suppress(SinkError):
                self._bucket.abort(target, upload_id)
            raise

    def _complete(self, target: str, upload_id: str, tags: dict[int, str], size_bytes: int) -> None:
        try:
            self._bucket.complete(target, upload_id, tags)
        except Refused as error:
            # An earlier try may have been carried out, and its answer lost.
            if error.code != "NoSuchUpload" or self._bucket.size(target) != size_bytes:
                raise

    def _part(self, target: str, upload_id: str, part: Part) -> tuple[int, str]:
        first = part.stretches[0]
        if len(part.stretches) == 1 and first.is_all:
            return part.number, self._bucket.copy_part(target, upload_id, part.number, first.piece.key)
        with self._reading:
            data = b"".join(self._read(stretch) for stretch in part.stretches)
            return part.number, self._bucket.put_part(target, upload_id, part.number, data)

    def _read(self, stretch: Stretch) -> bytes:
        begins = stretch.piece.start
        return self._bucket.read(stretch.piece.key, stretch.start - begins, stretch.end - begins)


def _heed(stopped: Callable[[], bool], target: str) -> None:
    if stopped():
        raise SinkError(f"nobody wants {target} any more")


def _has_failed(copy: Future[tuple[int, str]]) -> bool:
    return copy.done() and copy.exception() is not None
