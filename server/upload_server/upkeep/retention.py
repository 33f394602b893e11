"""Decides how long the bytes of completed files are kept, and the rows of what is final with their audit events.

Must not know where bytes lie: with the end of a file's content the store owes their deletion, which the janitor pays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import structlog

from upload_server.domain.caller import Caller
from upload_server.domain.states import Source
from upload_server.store.protocol import Store
from upload_server.store.values import AgedTrail, Command, Moment, PrunedRows
from upload_server.upkeep.audit.pruned import write_pruned
from upload_server.upkeep.janitor import take_step

log = structlog.get_logger(__name__)

_ROUND_SECONDS = 30.0
# What of the trail is old enough is taken that often, so that there are few files of it, and by each node that has
# begun to keep house for all.
_ROWS_SECONDS = 3600.0
# Files read at once.
_PAGE = 500
# Files whose bytes are let go, or events that go, in one transaction.
_PRUNED_AT_ONCE = 200
# Events that one file of an export takes, and rows that are looked for at once.
_EXPORTED_AT_ONCE = 10_000
# Files, and batches, whose rows go in one transaction.
_DELETED_AT_ONCE = 100
_BREATH_SECONDS = 0.1


class Retention:
    """Lets go of bytes, and then of rows. ``run`` it until it is cancelled.

    ``keep_content`` and ``keep_rows`` are seconds; ``keep_rows`` 0: for ever. What goes of the trail with the rows is
    kept in ``pruned_dir``.
    """

    def __init__(
        self, store: Store, *, clock: Callable[[], datetime], keep_content: float, keep_rows: float, pruned_dir: Path
    ) -> None:
        self._store = store
        self._clock = clock
        self._keep_content = keep_content
        self._keep_rows = keep_rows
        self._pruned_dir = pruned_dir
        # Up to which change all are old whose bytes were let go.
        self._pruned_upto = 0

    async def run(self) -> None:
        """Look every half a minute, on the node that leads. After a start it reads the whole trail."""
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            if self._store.leads:
                await take_step("retention", self.prune_content())
                if self._keep_rows and now() >= due:
                    due = now() + _ROWS_SECONDS
                    await take_step("retention of rows", self.prune_rows())
            await asyncio.sleep(_ROUND_SECONDS)

    async def prune_content(self) -> int:
        """Let go of the bytes of files that were completed ``keep_content`` ago by both clocks; returns of how many."""
        pruned, more = 0, True
        while more:
            now = self._now()
            aged = await self._store.aged_content(now.earlier(self._keep_content), self._pruned_upto, _PAGE)
            command = Command(Caller(Source.RETENTION), "Prune", now.at, f"kept for {self._keep_content:.12g} s")
            for first in range(0, len(aged.file_ids), _PRUNED_AT_ONCE):
                some = aged.file_ids[first : first + _PRUNED_AT_ONCE]
                pruned += (await self._store.prune_content(some, command)).answer
            self._pruned_upto = aged.upto
            more = aged.more
            if more:
                await asyncio.sleep(_BREATH_SECONDS)
        return pruned

    async def prune_rows(self) -> int:
        """Let go of the old end of the trail, as far as it is of files and batches that were final ``keep_rows`` ago by
        both clocks and have no bytes any more, and then of these; returns how many events went.

        They are exported first, durably. Whatever ends this in between, the next round goes on from what is there.
        """
        pruned, more = 0, True
        while more and self._store.leads:
            aged = await self._store.aged_trail(self._now().earlier(self._keep_rows), _EXPORTED_AT_ONCE)
            if aged.events:
                path = await asyncio.to_thread(write_pruned, self._pruned_dir, aged)
                gone = await self._prune_trail(aged)
                log.info("audit events pruned", events=gone, export=str(path))
                pruned += gone
            await self._delete_rows()
            more = aged.more
            if more:
                await asyncio.sleep(_BREATH_SECONDS)
        return pruned

    async def _prune_trail(self, aged: AgedTrail) -> int:
        """Delete events that were exported, as long as nobody else does; returns how many."""
        pruned, origin = 0, aged.origin.event_id
        for first in range(0, len(aged.events), _PRUNED_AT_ONCE):
            some = aged.events[first : first + _PRUNED_AT_ONCE]
            upto = some[-1].event.event_id
            if not await self._store.prune_trail(origin, upto, len(some)):
                break
            pruned, origin = pruned + len(some), upto
        return pruned

    async def _delete_rows(self) -> None:
        """Delete the rows that no event is about any more; of a batch first its files."""
        while True:
            files, batches = await self._store.pruned_rows(_EXPORTED_AT_ONCE)
            if not files and not batches:
                break
            for first in range(0, max(len(files), len(batches)), _DELETED_AT_ONCE):
                some = slice(first, first + _DELETED_AT_ONCE)
                await self._store.delete_rows(PrunedRows(files[some], batches[some]))
            log.info("rows deleted", files=len(files), batches=len(batches))

    def _now(self) -> Moment:
        return Moment(self._clock(), self._store.served)
