"""Decides how a store opens on SQLite, and how it reads: beside the one writer, on threads of their own.

Must not know SQL. Everything blocking happens on the store's own threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from upload_server.domain.errors import UploadError
from upload_server.domain.states import (
    AuditEvent,
    Batch,
    File,
    FileStatus,
)
from upload_server.domain.statistics import Buckets, Counts
from upload_server.domain.tokens import Cursor
from upload_server.store.commands.expiring import ExpireFiles
from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.store import WritingStore
from upload_server.store.commands.writes import Ping
from upload_server.store.lock import FileLock, lock_database
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import (
    Changes,
    Command,
    DueCancel,
    Expired,
    Listing,
    Moment,
    OwedDeletion,
    Page,
    Result,
    Targets,
    Trail,
    Unsealed,
)
from upload_server.store.readers import Readers
from upload_server.store.sqlite import changes, lists, queries, tally
from upload_server.store.sqlite.ballast import Ballast
from upload_server.store.sqlite.committer import SqliteCommitter
from upload_server.store.sqlite.connection import DATABASE_ERRORS, Connection, Whereabouts, connect
from upload_server.store.sqlite.row_room import RowRoom
from upload_server.store.sqlite.schema import as_unusable, prepare
from upload_server.store.sqlite.sharing import forget_nodes
from upload_server.store.sqlite.trail import list_audit_events

T = TypeVar("T")


class _Opened:
    """What opening needs to block for: the lock, the schema, the first connection."""

    def __init__(self, path: Path, options: StoreOptions, node_id: str) -> None:
        # Of a file that is shared somebody else holds the lock, and the ballast.
        self.lock: FileLock | None = None if options.shared else lock_database(path)
        self.ballast = Ballast(path, 0 if options.shared else options.ballast_bytes)
        try:
            if not options.shared:
                self.ballast.drop_if_full()
                prepare(path)
                forget_nodes(path)
            connection = connect(path, options, writes=False)
            try:
                self.store_id = queries.read_store_id(connection)
                self.last_change = queries.read_last_change(connection)
                self.clock = ServedClock(queries.read_served(connection))
            finally:
                connection.close()
            writing = functools.partial(connect, path, options, writes=True)
            self.room = RowRoom(path, options.room, options.max_database_bytes)
            self.committer = SqliteCommitter(writing, Whereabouts(path), self.clock, self.room, node_id)
            self.ballast.take(options.room)
        except BaseException:
            if self.lock is not None:
                self.lock.release()
            raise


def _open(path: Path, options: StoreOptions, node_id: str) -> _Opened:
    with as_unusable(path):
        return _Opened(path, options, node_id)


class SqliteStore(WritingStore):
    """The Store on one SQLite file. ``SqliteStore.open`` makes it; ``close`` it in the same event loop."""

    def __init__(self, path: Path, options: StoreOptions, opened: _Opened, node_id: str) -> None:
        super().__init__(opened.committer, options, opened.last_change, opened.clock, node_id)
        self._lock = opened.lock
        self._store_id = opened.store_id
        self._room = opened.room
        self._ballast = opened.ballast
        self._readers = Readers(
            functools.partial(connect, path, options, writes=False), options, DATABASE_ERRORS, "BEGIN"
        )
        self._counting = asyncio.Lock()
        self._tally: tally.Tally | None = None

    @classmethod
    async def open(cls, path: Path, options: StoreOptions) -> SqliteStore:
        """Lock, migrate and open the database, creating it when there is none; raises as ``open_store``."""
        # Nobody asks for the name of one that is alone.
        node_id = str(uuid.uuid4()) if options.shared else ""
        store = cls(path, options, await asyncio.to_thread(_open, path, options, node_id), node_id)
        await store.join()
        return store

    @property
    def store_id(self) -> str:
        """Identity of this store."""
        return self._store_id

    @property
    def incarnation(self) -> str:
        """The store's identity: a file does not tell that it was restored."""
        return self._store_id

    async def close(self) -> None:
        """Finish what is queued, checkpoint, close every connection, release the lock. Safe to call twice."""
        # Readers first: the writer's connection is then the last, and takes the log with it.
        await self._readers.close()
        # Refused when it was closed before, or when the disk takes nothing: then the last transaction's count holds.
        with contextlib.suppress(UploadError):
            await self.keep_served()
        await self.leave()
        await self._writer.close()
        # Perhaps the last start had to give it up.
        await asyncio.to_thread(self._ballast.take, self._options.room)
        if self._lock is not None:
            self._lock.release()

    def room(self) -> int:
        """Bytes that announcements may still take."""
        return self._room.left()

    async def ping(self) -> None:
        """Read, and take the write lock; raises ``DatabaseFailure``."""
        await self._read(queries.read_last_change)
        await self._writer.submit(Ping())

    async def expire(
        self, idle_since: Moment, open_files: Sequence[str], limit: int, command: Command
    ) -> Result[Expired]:
        """Fail files without a byte since ``idle_since``; they are found beside the writer and checked again by it."""
        rows = await self._read(queries.idle_rows, idle_since=idle_since, open_files=open_files, limit=limit)
        if not rows:
            return Result(Expired())
        return await self._writer.submit(ExpireFiles(rows, idle_since, open_files, command))

    # Reads -----------------------------------------------------------------------------------------------------------

    async def _read(self, query: Callable[..., T], **parameters: object) -> T:
        def read(connection: Connection) -> T:
            return query(connection, **parameters)

        return await self._readers.run(read)

    async def get_file(self, file_id: str, owner: str) -> File:
        """Read one file."""
        return await self._read(queries.read_file, file_id=file_id, owner=owner)

    async def get_batch(self, batch_id: str, owner: str) -> Batch:
        """Read one batch."""
        return await self._read(queries.read_batch, batch_id=batch_id, owner=owner)

    async def list_files(self, listing: Listing, cursor: Cursor | None, limit: int) -> Page[File]:
        """Read files in order of creation."""
        return await self._read(lists.list_files, listing=listing, cursor=cursor, limit=limit)

    async def list_batches(self, listing: Listing, cursor: Cursor | None, limit: int) -> Page[Batch]:
        """Read batches in order of creation."""
        return await self._read(lists.list_batches, listing=listing, cursor=cursor, limit=limit)

    async def list_audit_events(self, trail: Trail, cursor: Cursor | None, limit: int) -> Page[AuditEvent]:
        """Read audit events in the order of their commits."""
        return await self._read(list_audit_events, trail=trail, cursor=cursor, limit=limit)

    async def count(self, owner: str, now: datetime, buckets: Buckets | None = None) -> Counts:
        """Count what ``owner`` may see."""
        # One at a time, so that the first count of a large store takes one reader, not all.
        async with self._counting:
            before = self._tally
            self._tally, counts = await self._read(tally.count, before=before, owner=owner, now=now, buckets=buckets)
        return counts

    async def check_targets(self, targets: Targets, owner: str) -> Changes:
        """Read the named targets' current rows."""
        return await self._read(changes.check_targets, targets=targets, owner=owner)

    async def read_changes(
        self, targets: Targets, owner: str, after: int, limit: int, skip_final_upto: int = 0
    ) -> Changes:
        """Read the targets' rows that changed after ``after``."""
        found = await self._read(
            changes.read_changes,
            targets=targets,
            owner=owner,
            after=after,
            limit=limit,
            skip_final_upto=skip_final_upto,
        )
        # Changes that did not come through this process become known here.
        self._writer.last_change = max(self._writer.last_change, found.last_change)
        return found

    async def owed_deletions(self, limit: int) -> Sequence[OwedDeletion]:
        """Read the oldest deletions owed."""
        return await self._read(queries.owed_deletions, limit=limit)

    async def due_cancels(self, limit: int) -> Sequence[DueCancel]:
        """Read the cancels that lost pages owe."""
        return await self._read(queries.due_cancels, limit=limit)

    async def status_of(self, file_ids: Sequence[str]) -> dict[str, FileStatus]:
        """Read the status of files."""
        return await self._read(queries.status_of, file_ids=file_ids)

    async def read_unsealed(self, limit: int) -> Unsealed:
        """Read the newest seal and the events behind it."""
        return await self._read(queries.read_unsealed, limit=limit)

    async def count_unsealed_events(self, limit: int) -> int:
        """Count the events that are not sealed yet."""
        return await self._read(queries.count_unsealed, limit=limit)
