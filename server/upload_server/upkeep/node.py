"""Decides what this node says to the others on its store and hears of them, and when it must not go on.

Must not know what the others do. A node that is alone on its store does nothing here.
"""

from __future__ import annotations

import asyncio

import structlog

from upload_server.domain.errors import CutOff, UploadError
from upload_server.ingest import Ingest
from upload_server.store.protocol import Store

log = structlog.get_logger(__name__)


class Node:
    """This process among others; ``run`` it until cancelled. Times are seconds.

    A node that cannot say in time that it lives, is dead to the others: they may take its files over. It ends its own
    streams then, whose bytes would be refused, and opens none, until it has said so again.
    """

    def __init__(self, store: Store, ingest: Ingest, beat_seconds: float = 2.0) -> None:
        self._store = store
        self._ingest = ingest
        self._beat_seconds = beat_seconds

    async def run(self) -> None:
        """Say every few seconds that this node lives."""
        if self._store.alone:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beats())
            group.create_task(self._look_after_lease())

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            try:
                await self._store.beat()
            except UploadError as error:
                log.warning("node.not_heard", reason=error.reason)

    async def _look_after_lease(self) -> None:
        """A beat may hang for longer than the lease: this looks at the clock beside it."""
        lived = True
        while True:
            await asyncio.sleep(self._beat_seconds / 4)
            lives = self._store.lives
            if lived and not lives:
                log.error("node.cut_off", uploads=self._ingest.open_count)
                self._ingest.stop_all(CutOff())
            elif lives and not lived:
                log.info("node.back")
            lived = lives
