"""Decides how much lies in the storage that no upload may keep: counted now and then, a bounded piece at a time.

Must not delete anything: the janitor does. Bytes that stay in the count are those that the janitor cannot or must not
delete: the disk refuses, or no row knows them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

import structlog

from upload_server.domain.errors import UploadError
from upload_server.domain.observer import Observer
from upload_server.ingest import Ingest
from upload_server.sink.protocol import Sink, SinkError, Stored
from upload_server.store.protocol import Store

log = structlog.get_logger(__name__)

_PAGE = 500


class OrphanCount:
    """Walks through the storage in rounds, and reports to the observer after each. Times are seconds."""

    def __init__(self, store: Store, sink: Sink, ingest: Ingest, observer: Observer, interval: float = 30.0) -> None:
        self._store = store
        self._sink = sink
        self._ingest = ingest
        self._observer = observer
        self._interval = interval
        # A round through a large storage is spread out: 500 files, then a moment for others.
        self._breath = interval / 300

    async def run(self) -> None:
        """Count until cancelled; an error is logged, and the next round tries again."""
        while True:
            try:
                if self._store.leads:
                    self._observer.orphans_counted(await self.count())
            except (UploadError, SinkError) as error:
                log.warning("metrics.orphans_not_counted", error=repr(error))
            await asyncio.sleep(self._interval)

    async def count(self) -> int:
        """Go through the storage once; returns the bytes of cancelled and failed files, of none, and of runs that no
        file keeps."""
        found = 0
        everything = self._sink.stored(_say_unreadable, unfinished=True)
        while page := await asyncio.to_thread(_take, everything):
            # Asked before the rows are read: the row of a file that comes whole follows its bytes.
            closed = [one for one in page if not self._ingest.is_open(one.file_id)]
            names = await self._store.names_of([one.file_id for one in closed])
            orphans = []
            for file_id, fences in closed:
                named = names.get(file_id)
                if left := fences if named is None else named.left_over(fences):
                    orphans.append(Stored(file_id, left))
            found += await asyncio.to_thread(self._sizes, orphans)
            await asyncio.sleep(self._breath)
        return found

    def _sizes(self, orphans: Sequence[Stored]) -> int:
        return sum(self._sink.size_under(file_id, fences) for file_id, fences in orphans)


def _say_unreadable(error: SinkError) -> None:
    log.warning("metrics.orphans_not_counted", error=repr(error))


def _take(everything: Iterator[Stored]) -> list[Stored]:
    return list(islice(everything, _PAGE))
