"""Decides which changes are kept for all who watch everything, and which of them a newer one has replaced.

Must not know who reads it, nor how far anybody is: a reader that takes nothing costs nothing here.
"""

from __future__ import annotations

from upload_server.watch.events import Changed

# The oldest ones go by so many at once, to move the others seldom.
_FORGOTTEN_AT_ONCE = 256


class History:
    """The changes that were handed out last, by position: the first one ever has 0, the next one 1."""

    def __init__(self, limit: int) -> None:
        """``limit``: at least so many changes are kept; never twice as many, nor a few hundred more."""
        self._limit = limit
        self._full = limit + min(limit, _FORGOTTEN_AT_ONCE)
        self._kept: list[Changed] = []
        self._start = 0
        self._newest: dict[str, int] = {}

    @property
    def start(self) -> int:
        """Position of the oldest change that is kept."""
        return self._start

    @property
    def end(self) -> int:
        """Position that the next change will have."""
        return self._start + len(self._kept)

    def append(self, changed: Changed) -> None:
        """Keep one more."""
        self._newest[changed.key] = self.end
        self._kept.append(changed)
        if len(self._kept) >= self._full:
            self._forget(len(self._kept) - self._limit)

    def clear(self) -> None:
        """Keep none of them; positions go on."""
        self._start = self.end
        self._kept.clear()
        self._newest.clear()

    def at(self, position: int) -> Changed | None:
        """Return the change at a position that is kept; None if there is a newer one of its target."""
        changed = self._kept[position - self._start]
        return changed if self._newest[changed.key] == position else None

    def _forget(self, count: int) -> None:
        for position, changed in enumerate(self._kept[:count], self._start):
            if self._newest[changed.key] == position:
                del self._newest[changed.key]
        del self._kept[:count]
        self._start += count
