"""Decides how a store on an SQL database reads: beside the one writer, on threads of their own.

Must not know SQL. Everything blocking happens on the store's own threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Protocol, TypeVar

from upload_server.domain.chain import Seal
from upload_server.domain.errors import UploadError
from upload_server.domain.states import AuditEvent, Batch, File
from upload_server.domain.statistics import Buckets, Counts
from upload_server.domain.tokens import Cursor
from upload_server.store.commands.expiring import ExpireFiles
from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.store import WritingStore
from upload_server.store.commands.writer import Committer
from upload_server.store.commands.writes import Ping
from upload_server.store.options import StoreOptions
from upload_server.store.readers import Readers
from upload_server.store.sql import changes, lists, pruning, queries, tally
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.trail import list_audit_events
from upload_server.store.values import (
    Aged,
    AgedTrail,
    Changes,
    Command,
    DueCancel,
    Expired,
    Listing,
    Moment,
    Named,
    News,
    OwedDeletion,
    Page,
    PrunedRows,
    Result,
    Targets,
    Trail,
    Unsealed,
)

T = TypeVar("T")
# Who watches all is told of what got bytes since; the nodes' counts of the time served differ by less.
_RECENT_SECONDS = 5.0
# How long, and how often, changes are read again that are there but not yet in order.
_PATIENCE_SECONDS = 2.0
_AGAIN_SECONDS = 0.01
# Stops of streams that one look takes.
_STOPS_AT_ONCE = 1000


class Bell(Protocol):
    """Rings at other nodes, and is rung by them; rings can be lost."""

    def ring(self, node_ids: Sequence[str]) -> None:
        """Ring at these nodes; never waits or raises."""

    def close(self) -> None:
        """Fall silent. Safe to call twice."""


class Opened(Protocol):
    """A database that a dialect has opened, and what was found in it."""

    store_id: str
    incarnation: str
    last_change: int
    clock: ServedClock
    # Empty where no other node can be.
    node_id: str

    @property
    def committer(self) -> Committer:
        """What writes."""

    def bell(self, rung: Callable[[], None]) -> Bell | None:
        """Return the node's bell, None where it is alone; called once, in the event loop, where it calls ``rung``."""

    def readers(self) -> Readers[Any]:
        """Return what reads; called once, in the event loop."""

    def room(self) -> int:
        """Bytes that announcements may still take; raises OSError."""

    def release(self) -> None:
        """Let others have the database, now that every connection is closed. Safe to call twice."""


class SqlStore(WritingStore):
    """The Store on one database. A dialect opens it; ``close`` it in the same event loop."""

    def __init__(self, options: StoreOptions, opened: Opened) -> None:
        super().__init__(opened.committer, options, opened.last_change, opened.clock, opened.node_id)
        self._opened = opened
        self._readers = opened.readers()
        self._bell: Bell | None = None
        self._counting = asyncio.Lock()
        # The last change that `look` has told of.
        self._looked_at = opened.last_change
        self._tally: tally.Tally | None = None

    async def join(self) -> None:
        """Become one of the store's nodes, and have the others hear of it."""
        await super().join()
        self._bell = self._opened.bell(self._hear_bell)
        self._ring()

    def _ring(self) -> None:
        if self._bell is not None and self.others:
            self._bell.ring(self.others)

    @property
    def store_id(self) -> str:
        """Identity of this store."""
        return self._opened.store_id

    @property
    def incarnation(self) -> str:
        """Identity of this store's history."""
        return self._opened.incarnation

    async def close(self) -> None:
        """Finish what is queued, close every connection, let others in. Safe to call twice."""
        # Readers first: on SQLite the writer's connection is then the last, and takes the log with it.
        await self._readers.close()
        # Refused when it was closed before, or when the database is away: then the last transaction's count holds.
        with contextlib.suppress(UploadError):
            await self.keep_served()
        await self.leave()
        if self._bell is not None:
            self._bell.close()
        await self._writer.close()
        await asyncio.to_thread(self._opened.release)

    def room(self) -> int:
        """Bytes that announcements may still take."""
        return self._opened.room()

    async def ping(self) -> None:
        """Read, and take the write lock; raises ``DatabaseFailure``."""
        await self._read(queries.read_last_change)
        await self._writer.submit(Ping())

    async def expire(
        self, idle_since: Moment, open_files: Sequence[str], limit: int, command: Command
    ) -> Result[Expired]:
        """Fail files without a byte since ``idle_since``; they are found beside the writer and checked again by it."""
        rows = await self._read(
            queries.idle_rows, idle_since=idle_since, open_files=open_files, limit=limit, node=self.node_id
        )
        if not rows:
            return Result(Expired())
        # Alone: what else a group of small writes may change it would have to look at again.
        return await self._writer.submit(ExpireFiles(rows, idle_since, open_files, command), alone=True)

    # Reads -----------------------------------------------------------------------------------------------------------

    async def _read(self, query: Callable[..., T], **parameters: object) -> T:
        def read(connection: Connection) -> T:
            return query(connection, **parameters)

        return await self._readers.run(read)

    async def get_file(self, file_id: str, sees: str | None = None) -> File:
        """Read one file."""
        return await self._read(queries.read_file, file_id=file_id, sees=sees)

    async def get_tus_metadata(self, file_id: str, sees: str | None = None) -> str:
        """Read what one file's tus client said of it."""
        return await self._read(queries.read_tus_metadata, file_id=file_id, sees=sees)

    async def get_batch(self, batch_id: str, sees: str | None = None) -> Batch:
        """Read one batch."""
        return await self._read(queries.read_batch, batch_id=batch_id, sees=sees)

    async def list_files(self, listing: Listing, cursor: Cursor | None, limit: int) -> Page[File]:
        """Read files in order of creation."""
        return await self._read(lists.list_files, listing=listing, cursor=cursor, limit=limit)

    async def list_batches(self, listing: Listing, cursor: Cursor | None, limit: int) -> Page[Batch]:
        """Read batches in order of creation."""
        return await self._read(lists.list_batches, listing=listing, cursor=cursor, limit=limit)

    async def list_audit_events(self, trail: Trail, cursor: Cursor | None, limit: int) -> Page[AuditEvent]:
        """Read audit events in the order of their commits."""
        return await self._read(list_audit_events, trail=trail, cursor=cursor, limit=limit)

    async def count(self, sees: str | None, now: datetime, buckets: Buckets | None = None) -> Counts:
        """Count what there is for ``sees``."""
        # One at a time, so that the first count of a large store takes one reader, not all.
        async with self._counting:
            before = self._tally
            self._tally, counts = await self._read(tally.count, before=before, sees=sees, now=now, buckets=buckets)
        return counts

    async def check_targets(self, targets: Targets, sees: str | None) -> Changes:
        """Read the named targets' current rows."""
        return await self._read(changes.check_targets, targets=targets, sees=sees)

    async def read_changes(
        self, targets: Targets, sees: str | None, after: int, limit: int, skip_final_upto: int = 0
    ) -> Changes:
        """Read the targets' rows that changed after ``after``."""
        patience = time.monotonic() + _PATIENCE_SECONDS
        while True:
            found = await self._read(
                changes.read_changes,
                targets=targets,
                sees=sees,
                after=after,
                limit=limit,
                skip_final_upto=skip_final_upto,
            )
            if found.complete or found.changes:
                break
            # What has changed waits for a long call at another node to end.
            if time.monotonic() > patience:
                found = replace(found, complete=True)
                break
            await asyncio.sleep(_AGAIN_SECONDS)
        # Changes that did not come through this process become known here.
        self._writer.last_change = max(self._writer.last_change, found.last_change)
        return found

    async def owed_deletions(self, limit: int) -> Sequence[OwedDeletion]:
        """Read the oldest deletions owed."""
        return await self._read(queries.owed_deletions, limit=limit, node=self.node_id)

    async def due_cancels(self, limit: int) -> Sequence[DueCancel]:
        """Read the cancels that lost pages owe."""
        return await self._read(queries.due_cancels, limit=limit)

    async def look(self) -> News:
        """Read what other nodes have left for this one."""
        last_change, stops = await self._read(queries.look, node=self.node_id, limit=_STOPS_AT_ONCE)
        self._writer.last_change = max(self._writer.last_change, last_change)
        changed, self._looked_at = last_change > self._looked_at, last_change
        return News(changed, stops)

    async def read_progress(self, targets: Targets) -> Sequence[tuple[str, str, str, int]]:
        """Read how far the uploads are that other nodes have open."""
        since = self.served - _RECENT_SECONDS
        return await self._read(queries.read_progress, targets=targets, since=since, node=self.node_id)

    async def held_elsewhere(self, file_ids: Sequence[str]) -> set[str]:
        """Return those of these files that a stream of another living node has open."""
        return await self._read(queries.held_elsewhere, file_ids=file_ids, node=self.node_id)

    async def aged_content(self, before: Moment, after: int, limit: int) -> Aged:
        """Read which files were completed before ``before``, and have their bytes."""
        return await self._read(queries.aged_content, before=before, after=after, limit=limit)

    async def aged_trail(self, before: Moment, limit: int) -> AgedTrail:
        """Read what of the trail may go."""
        return await self._read(pruning.aged_trail, before=before, limit=limit)

    async def pruned_rows(self, limit: int) -> PrunedRows:
        """Read rows whose events were all pruned."""
        return await self._read(pruning.pruned_rows, limit=limit)

    async def names_of(self, file_ids: Sequence[str]) -> dict[str, Named]:
        """Read what rows say of the names of bytes."""
        return await self._read(queries.names_of, file_ids=file_ids)

    async def read_unsealed(self, limit: int) -> Unsealed:
        """Read the newest seal and the events behind it."""
        return await self._read(queries.read_unsealed, limit=limit)

    async def read_seal(self, event_id: int) -> Seal | None:
        """Read the seal of one event."""
        return await self._read(queries.read_seal, event_id=event_id)

    async def count_unsealed_events(self, limit: int) -> int:
        """Count the events that are not sealed yet."""
        return await self._read(queries.count_unsealed, limit=limit)
