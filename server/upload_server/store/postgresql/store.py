"""Decides how a store opens on PostgreSQL, and how it reads: beside the one writer, on threads of their own.

Must not know SQL. Everything blocking happens on the store's own threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
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
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql import changes, lists, lock, queries, tally
from upload_server.store.postgresql.committer import PostgresqlCommitter
from upload_server.store.postgresql.connection import DATABASE_ERRORS, Address, AnotherHistory, Connection, connect
from upload_server.store.postgresql.requirements import check_server
from upload_server.store.postgresql.row_room import RowRoom
from upload_server.store.postgresql.schema import as_unusable, check_schema
from upload_server.store.postgresql.trail import list_audit_events
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

T = TypeVar("T")
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class _Opened:
    """What opening needs to block for: the checks, the lock, the first connection."""

    def __init__(self, address: Address, options: StoreOptions, node_id: str) -> None:
        self._address = address
        self._options = options
        self.identity = ""
        connection = self._connect_writing(0)
        try:
            self.identity = queries.read_identity(connection)
            self.store_id = queries.read_store_id(connection)
            self.last_change = queries.read_last_change(connection)
            self.clock = ServedClock(queries.read_served(connection))
            self.room = RowRoom(options.max_database_bytes)
            self.committer = PostgresqlCommitter(
                connection, self._connect_writing, self.clock, self.room, options, node_id
            )
        except BaseException:
            connection.close()
            raise

    def _connect_writing(self, ended: int) -> Connection:
        """Open the connection that writes, and with it share the lock: at the start, and again when it was lost."""
        with _closed_on_error(connect(self._address, self._options, writes=True)) as connection:
            check_server(connection, self._address, self._options)
            check_schema(connection, self._address)
            lock.take(connection, self._address, shared=True)
            lock.end(connection, ended)
            self._recognize(connection)
        return connection

    def connect_reading(self) -> Connection:
        """Open a connection that reads."""
        with _closed_on_error(connect(self._address, self._options, writes=False)) as connection:
            self._recognize(connection)
        return connection

    def _recognize(self, connection: Connection) -> None:
        """Refuse to go on with another history than the one that was opened: what was answered may not be in it."""
        if self.identity and queries.read_identity(connection) != self.identity:
            raise AnotherHistory


@contextlib.contextmanager
def _closed_on_error(connection: Connection) -> Iterator[Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _open(address: Address, options: StoreOptions, node_id: str) -> _Opened:
    with as_unusable(address):
        return _Opened(address, options, node_id)


class PostgresqlStore(WritingStore):
    """The Store on one PostgreSQL database. ``PostgresqlStore.open`` makes it; ``close`` it in the same event loop."""

    def __init__(self, options: StoreOptions, opened: _Opened, node_id: str) -> None:
        super().__init__(opened.committer, options, opened.last_change, opened.clock, node_id)
        self._store_id = opened.store_id
        self._incarnation = str(uuid.uuid5(uuid.UUID(opened.store_id), opened.identity))
        self._room = opened.room
        self._readers = Readers(opened.connect_reading, options, DATABASE_ERRORS, _BEGIN)
        self._counting = asyncio.Lock()
        self._tally: tally.Tally | None = None

    @classmethod
    async def open(cls, address: Address, options: StoreOptions) -> PostgresqlStore:
        """Check and open the database, and become one of its nodes; raises as ``open_store``."""
        node_id = str(uuid.uuid4())
        store = cls(options, await asyncio.to_thread(_open, address, options, node_id), node_id)
        await store.join()
        return store

    @property
    def store_id(self) -> str:
        """Identity of this store."""
        return self._store_id

    @property
    def incarnation(self) -> str:
        """Identity of this store's history on its server."""
        return self._incarnation

    async def close(self) -> None:
        """Finish what is queued, close every connection, and with them release the lock. Safe to call twice."""
        await self._readers.close()
        # Refused when it was closed before, or when the database is away: then the last transaction's count holds.
        with contextlib.suppress(UploadError):
            await self.keep_served()
        await self.leave()
        await self._writer.close()

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
