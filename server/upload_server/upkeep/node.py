"""Decides what this node says to the others on its store and hears of them, and when it must not go on.

Must not know what the others do. A node that is alone on its store does nothing here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from upload_server.domain.errors import CutOff, UploadError
from upload_server.ingest import Ingest
from upload_server.store.protocol import Store

log = structlog.get_logger(__name__)


_BEAT_SECONDS = 2.0
# While streams or watches are open here and other nodes live.
_LOOK_SECONDS = 0.04
_IDLE_LOOK_SECONDS = 1.0


class Node:
    """This process among others; ``run`` it until cancelled.

    A node that cannot say in time that it lives, is dead to the others: they may take its files over. It ends its own
    streams then, whose bytes would be refused, and opens none, until it has said so again.
    """

    def __init__(
        self,
        store: Store,
        ingest: Ingest,
        *,
        busy: Callable[[], bool],
        on_change: Callable[[], None],
        on_stop: Callable[[], None],
        on_cut_off: Callable[[], None],
        on_back: Callable[[], None],
    ) -> None:
        """``busy``: whether somebody here waits for what others do. ``on_change`` hears that something was committed,
        ``on_stop`` that a stream of this node was ended, ``on_cut_off`` and ``on_back`` that others may take this node
        for dead, and that it lives again. None may block or raise."""
        self._store = store
        self._ingest = ingest
        self._busy = busy
        self._on_change = on_change
        self._on_stop = on_stop
        self._on_cut_off = on_cut_off
        self._on_back = on_back
        self._rung = asyncio.Event()
        store.on_bell(self._rung.set)

    async def run(self) -> None:
        """Say every few seconds that this node lives, and look at what others did far more often."""
        if self._store.alone:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beats())
            group.create_task(self._look_after_lease())
            group.create_task(self._looks())

    async def _looks(self) -> None:
        """The bell only makes a look come sooner."""
        while True:
            busy = bool(self._store.others) and self._busy()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS if busy else _IDLE_LOOK_SECONDS):
                    await self._rung.wait()
            try:
                if self._rung.is_set() and not self._store.others:
                    # Somebody is there.
                    await self._store.beat()
                self._rung.clear()
                await self._look()
            except UploadError as error:
                log.warning("node.cannot_look", reason=error.reason)
                await asyncio.sleep(_IDLE_LOOK_SECONDS)

    async def _look(self) -> None:
        news = await self._store.look()
        heard = [stop for stop in news.stops if self._ingest.end_stream(stop.file, stop.fence)]
        if news.changed:
            self._on_change()
        if heard:
            self._on_stop()
            await self._store.settle_stops(heard)

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            led = self._store.leads
            try:
                await self._store.beat()
                await self._ingest.release_left()
                if self._store.leads and not led:
                    # What the node before it has left undone.
                    self._on_change()
                    self._on_stop()
            except UploadError as error:
                log.warning("node.not_heard", reason=error.reason)

    async def _look_after_lease(self) -> None:
        """A beat may hang for longer than the lease: this looks at the clock beside it."""
        lived = True
        while True:
            await asyncio.sleep(_BEAT_SECONDS / 4)
            lives = self._store.lives
            if lived and not lives:
                log.error("node.cut_off", uploads=self._ingest.open_count)
                self._ingest.stop_all(CutOff())
                self._on_cut_off()
            elif lives and not lived:
                log.info("node.back")
                self._on_back()
            lived = lives
