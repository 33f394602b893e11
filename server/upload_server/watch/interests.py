"""Decides which watchers a change concerns, and how much is kept for a watcher that names its files and batches.

Must not know what a stream makes of a change.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import chain

from upload_server.store.values import Targets
from upload_server.watch.events import Changed
from upload_server.watch.history import AllWatcher
from upload_server.watch.turns import LoopTurns
from upload_server.watch.watcher import Watcher


class NamedWatcher(Watcher):
    """A watcher of files and batches by their ids. It keeps, within a bound, the changes that it has not sent."""

    __slots__ = ("_behind", "_limit", "_pending", "targets")

    def __init__(self, targets: Targets, limit: int, turns: LoopTurns, *, wants_progress: bool) -> None:
        super().__init__(turns, wants_progress=wants_progress)
        self.targets = targets
        self._behind = True
        # Oldest first. (A dict does not give up its first one in constant time.)
        self._pending: OrderedDict[str, Changed] = OrderedDict()
        self._limit = limit

    @property
    def behind(self) -> bool:
        """Whether it was offered more than it has room for."""
        return self._behind

    def begin_to_catch_up(self) -> None:
        """Keep again what it is offered."""
        self._behind = False

    @property
    def has_more(self) -> bool:
        """Whether it keeps something."""
        return bool(self._pending)

    def offer(self, changed: Changed) -> None:
        """Take a change, in place of an older one of the same target. Never waits."""
        pending, key = self._pending, changed.key
        if self._behind:
            # The page that it reads next holds this change too; kept here, it would be sent before older ones.
            return
        pending[key] = changed
        if len(pending) > 1:
            # The order stays that of the change numbers.
            pending.move_to_end(key)
        if len(pending) > self._limit:
            pending.clear()
            self._behind = True
        self.wake()

    def take(self) -> Changed | None:
        """Take the oldest change that is kept."""
        return self._pending.popitem(last=False)[1] if self._pending else None


class Interests:
    """The watchers that are open on this node, by their targets."""

    def __init__(self) -> None:
        self.watchers: set[Watcher] = set()
        # Watchers of all that they see, by that.
        self._of_all: defaultdict[str | None, set[AllWatcher]] = defaultdict(set)
        self._by_id: defaultdict[str, set[NamedWatcher]] = defaultdict(set)
        self._by_batch_files: defaultdict[str, set[NamedWatcher]] = defaultdict(set)

    def add(self, watcher: NamedWatcher | AllWatcher) -> None:
        """Count a watcher in."""
        self.watchers.add(watcher)
        if isinstance(watcher, NamedWatcher):
            for index, key in self._places(watcher.targets):
                index[key].add(watcher)
        else:
            self._of_all[watcher.sees].add(watcher)

    def with_progress(self) -> Targets | None:
        """Return the targets of those that want progress, None when nobody does."""
        wanting = [watcher for watcher in self.watchers if watcher.wants_progress]
        named = [watcher.targets for watcher in wanting if isinstance(watcher, NamedWatcher)]
        if not wanting:
            return None
        return Targets(
            frozenset().union(*(targets.file_ids for targets in named)),
            frozenset().union(*(targets.batch_ids for targets in named if targets.include_batch_files)),
            all=len(named) < len(wanting),
        )

    def remove(self, watcher: NamedWatcher | AllWatcher) -> None:
        """Count a watcher out."""
        self.watchers.discard(watcher)
        if isinstance(watcher, NamedWatcher):
            for index, key in self._places(watcher.targets):
                index[key].discard(watcher)
                if not index[key]:
                    del index[key]
        else:
            self._of_all[watcher.sees].discard(watcher)
            if not self._of_all[watcher.sees]:
                del self._of_all[watcher.sees]

    def of_all(self, owner: str) -> Iterable[Watcher]:
        """Return the watchers of all who see the owner's rows."""
        nobody: AbstractSet[AllWatcher] = frozenset()
        return chain(self._of_all.get(None, nobody), self._of_all.get(owner, nobody))

    def by_name(self, key: str, batch_id: str) -> AbstractSet[NamedWatcher]:
        """Return the watchers that named a file or batch by its id, or a file's batch with its files.

        ``batch_id`` is empty for a batch, and for a file alone.
        """
        nobody: AbstractSet[NamedWatcher] = frozenset()
        of_key, of_batch = self._by_id.get(key, nobody), self._by_batch_files.get(batch_id, nobody)
        return of_key | of_batch if of_key and of_batch else of_key or of_batch

    def _places(self, targets: Targets) -> list[tuple[defaultdict[str, set[NamedWatcher]], str]]:
        places = [(self._by_id, key) for key in targets.file_ids | targets.batch_ids]
        if targets.include_batch_files:
            places += [(self._by_batch_files, key) for key in targets.batch_ids]
        return places
