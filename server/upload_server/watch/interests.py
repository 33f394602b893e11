"""Decides whom a change concerns: who watches a file or batch by its id, who a batch's files, who everything.

Must not know what becomes of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager

from upload_server.domain.states import Batch, File
from upload_server.store.protocol import Targets
from upload_server.watch.named import Named
from upload_server.watch.watcher import Watcher


class Interests:
    """The watchers that are open on this node, by what they watch."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        self._of_everything: set[Watcher] = set()
        self._by_id: defaultdict[str, set[Named]] = defaultdict(set)
        self._by_batch_files: defaultdict[str, set[Named]] = defaultdict(set)

    @contextmanager
    def everything(self, watcher: Watcher) -> Iterator[None]:
        """Count ``watcher`` among those who watch everything."""
        self.watchers.add(watcher)
        self._of_everything.add(watcher)
        try:
            yield
        finally:
            self.watchers.discard(watcher)
            self._of_everything.discard(watcher)

    @contextmanager
    def named(self, watcher: Named, targets: Targets) -> Iterator[None]:
        """Count ``watcher`` among those who watch what ``targets`` names."""
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
                if not group and index.get(key) is group:
                    del index[key]

    def by_name(self, record: File | Batch) -> AbstractSet[Named]:
        """Return who has named what ``record`` is, or its batch with its files."""
        if isinstance(record, Batch):
            return self._by_id.get(record.batch_id, frozenset())
        return self._file_by_name(record.file_id, record.batch_id)

    def of_file(self, file_id: str, batch_id: str) -> AbstractSet[Watcher]:
        """Return whom a file concerns; ``batch_id`` is empty when it is alone."""
        return self._of_everything | self._file_by_name(file_id, batch_id)

    def _file_by_name(self, file_id: str, batch_id: str) -> AbstractSet[Named]:
        nobody: AbstractSet[Named] = frozenset()
        of_file, of_batch = self._by_id.get(file_id, nobody), self._by_batch_files.get(batch_id, nobody)
        return of_file | of_batch if of_file and of_batch else of_file or of_batch

    def _places(self, targets: Targets) -> list[tuple[defaultdict[str, set[Named]], str, set[Named]]]:
        places = [(self._by_id, key) for key in targets.file_ids | targets.batch_ids]
        if targets.include_batch_files:
            places += [(self._by_batch_files, key) for key in targets.batch_ids]
        return [(index, key, index[key]) for index, key in places]
