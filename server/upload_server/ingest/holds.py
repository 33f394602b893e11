"""Decides whose bytes wait: those of files and batches whose cancel is being decided.

Must not know how it is decided. Because of it no byte is written after a cancel's commit but the piece that was under
way when the cancel was asked for: the news of a commit takes its time to reach a busy thread.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator

from upload_server.domain.states import File


class Holds:
    """What is held now, by id of the file or the batch. Lives on the event loop; threads may ask ``apply``."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._waiting: set[Callable[[], None]] = set()

    @contextlib.contextmanager
    def hold(self, identifier: str) -> Iterator[None]:
        """Hold a file, or the files of a batch; often at once."""
        self._held[identifier] += 1
        try:
            yield
        finally:
            self._held[identifier] -= 1
            if not self._held[identifier]:
                del self._held[identifier]
            waiting, self._waiting = self._waiting, set()
            for listener in waiting:
                listener()

    def apply(self, file: File) -> bool:
        """Whether the bytes of ``file`` have to wait."""
        return file.file_id in self._held or file.batch_id in self._held

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called once, when something is let go of; it then asks again."""
        self._waiting.add(listener)
