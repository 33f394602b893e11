"""Decides whom a change concerns: who watches a file or batch by its id, who a batch's files, who everything.

Must not know what becomes of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from upload_server.domain import Batch, File
from upload_server.store import Targets
from upload_server.watch.watcher import Watcher


class Interests:
    """The watchers that are open on this node, by what they watch."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self._by_id: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._by_batch_files: defaultdict[str, set[Watcher]] = defaultdict(set)
        self._all: set[Watcher] = set()

    @contextmanager
    def joined(self, watcher: Watcher, targets: Targets) -> Iterator[None]:
        """Count ``watcher`` among those who watch ``targets``."""
        places = self._places(targets)
        self.watchers.add(watcher)
        for _, _, group in places:
            group.add(watcher)
        try:
            yield
        finally:
            self.watchers.discard(watcher)
            for index, key, group in places:
                group.discard(watcher)
                if index is not None and not group and index.get(key) is group:
                    del index[key]

    def of(self, record: File | Batch) -> set[Watcher]:
        """Return whom a change of ``record`` concerns."""
        if isinstance(record, File):
            return self.of_file(record.file_id, record.batch_id)
        return self._all | self._by_id.get(record.batch_id, set())

    def of_file(self, file_id: str, batch_id: str) -> set[Watcher]:
        """Return whom a file concerns; ``batch_id`` is empty when it is alone."""
        return self._all.union(self._by_id.get(file_id, ()), self._by_batch_files.get(batch_id, ()))

    def _places(self, targets: Targets) -> list[tuple[defaultdict[str, set[Watcher]] | None, str, set[Watcher]]]:
        if targets.all:
            return [(None, "", self._all)]
        places = [(self._by_id, key) for key in targets.file_ids | targets.batch_ids]
        if targets.include_batch_files:
            places += [(self._by_batch_files, key) for key in targets.batch_ids]
        return [(index, key, index[key]) for index, key in places]
