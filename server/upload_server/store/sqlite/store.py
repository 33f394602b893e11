"""Decides how the Store protocol is met on SQLite: writes to the one writer, reads beside it.

Must not know SQL. Everything blocking happens on the store's own threads.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from upload_server.domain.chain import Seal
from upload_server.domain.states import (
    AuditEvent,
    Batch,
    CancelledBatch,
    CancelledFile,
    FailureReason,
    File,
    FileSpec,
    FileStatus,
)
from upload_server.store.commands.cancelling import CancelBatch, CancelFile
from upload_server.store.commands.initiating import InitiateBatch, InitiateUpload
from upload_server.store.commands.upkeep import ForgetAnswers, SettleDeletions
from upload_server.store.commands.uploading import (
    ClaimFile,
    CompleteFile,
    ExpireFiles,
    FailFile,
    RecordProgress,
)
from upload_server.store.commands.writer import Writer
from upload_server.store.commands.writes import Ping
from upload_server.store.lock import FileLock, lock_database
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import (
    Changes,
    Claim,
    Command,
    Commit,
    Listener,
    OwedDeletion,
    Page,
    Result,
    Targets,
    Unsealed,
)
from upload_server.store.sqlite import changes, queries, sealing
from upload_server.store.sqlite.committer import Committer
from upload_server.store.sqlite.connection import Connection, Whereabouts, connect
from upload_server.store.sqlite.readers import Readers
from upload_server.store.sqlite.schema import as_unusable, prepare

T = TypeVar("T")


class _Opened:
    """What opening needs to block for: the lock, the schema, the first connection."""

    def __init__(self, path: Path, options: StoreOptions) -> None:
        self.lock: FileLock = lock_database(path)
        try:
            prepare(path)
            writing = functools.partial(connect, path, options, writes=True)
            self.committer = Committer(writing, Whereabouts(path))
            connection = connect(path, options, writes=False)
            try:
                self.store_id = queries.read_store_id(connection)
                self.last_change = queries.read_last_change(connection)
            finally:
                connection.close()
        except BaseException:
            self.lock.release()
            raise


def _open(path: Path, options: StoreOptions) -> _Opened:
    with as_unusable(path):
        return _Opened(path, options)


class SqliteStore:
    """The Store on one SQLite file. ``SqliteStore.open`` makes it; ``close`` it in the same event loop."""

    def __init__(self, path: Path, options: StoreOptions, opened: _Opened) -> None:
        self._options = options
        self._lock = opened.lock
        self._store_id = opened.store_id
        self._last_change = opened.last_change
        self._listener: Listener | None = None
        self._writer = Writer(opened.committer, options, self._on_commit)
        self._readers = Readers(functools.partial(connect, path, options, writes=False), options)

    @classmethod
    async def open(cls, path: Path, options: StoreOptions) -> SqliteStore:
        """Lock, migrate and open the database, creating it when there is none; raises as ``open_store``."""
        return cls(path, options, await asyncio.to_thread(_open, path, options))

    @property
    def store_id(self) -> str:
        """Identity of this store."""
        return self._store_id

    @property
    def last_change(self) -> int:
        """Number of the last change known to be committed."""
        return self._last_change

    def on_commit(self, listener: Listener) -> None:
        """Have ``listener`` called on the event loop after each commit that changed a watched row."""
        self._listener = listener

    def _on_commit(self, last_change: int, commits: Sequence[Commit]) -> None:
        self._last_change = max(self._last_change, last_change)
        if self._listener is not None:
            self._listener(commits)

    async def close(self) -> None:
        """Finish what is queued, checkpoint, close every connection, release the lock. Safe to call twice."""
        # Readers first: the writer's connection is then the last, and takes the log with it.
        await self._readers.close()
        await self._writer.close()
        self._lock.release()

    async def ping(self) -> None:
        """Read, and take the write lock; raises ``DatabaseFailure``."""
        await self._read(queries.read_last_change)
        await self._writer.submit(Ping())

    # Writes ----------------------------------------------------------------------------------------------------------

    async def initiate_upload(self, spec: FileSpec, file_id: str, command: Command) -> Result[File]:
        """Insert a pending file."""
        return await self._writer.submit(InitiateUpload(spec, file_id, command))

    async def initiate_batch(
        self, specs: Sequence[FileSpec], batch_id: str, file_ids: Sequence[str], command: Command
    ) -> Result[tuple[Batch, tuple[str, ...]]]:
        """Insert a pending batch and its files."""
        small = self._options.small_batch_files
        return await self._writer.submit(InitiateBatch(specs, batch_id, file_ids, command, small))

    async def cancel_file(self, file_id: str, command: Command, fence: int | None = None) -> Result[CancelledFile]:
        """Cancel a file that is not final."""
        return await self._writer.submit(CancelFile(file_id, command, fence))

    async def cancel_batch(self, batch_id: str, command: Command) -> Result[CancelledBatch]:
        """Cancel a batch and its files that are not final."""
        return await self._writer.submit(CancelBatch(batch_id, command))

    async def claim(self, file_id: str, offset: int, command: Command) -> Result[Claim]:
        """Raise the fence and make the file uploading."""
        return await self._writer.submit(ClaimFile(file_id, offset, command))

    async def record_progress(self, file_id: str, fence: int, bytes_received: int, at: datetime) -> bool:
        """Record durable bytes."""
        return await self._writer.submit(RecordProgress(file_id, fence, bytes_received, at))

    async def complete(
        self, file_id: str, fence: int, sha256: str, bytes_received: int, command: Command
    ) -> Result[File]:
        """Make an uploading file completed."""
        return await self._writer.submit(CompleteFile(file_id, fence, sha256, bytes_received, command))

    async def fail(self, file_id: str, fence: int, failure: FailureReason, command: Command) -> Result[File]:
        """Make an uploading file failed."""
        return await self._writer.submit(FailFile(file_id, fence, failure, command))

    async def expire(
        self, idle_since: datetime, open_files: Sequence[str], limit: int, command: Command
    ) -> Result[tuple[File, ...]]:
        """Fail files without a byte since ``idle_since``; they are found beside the writer and checked again by it."""
        rows = await self._read(queries.idle_rows, idle_since=idle_since, open_files=open_files, limit=limit)
        if not rows:
            return Result(())
        return await self._writer.submit(ExpireFiles(rows, idle_since, command))

    async def settle_deletions(self, rows: Sequence[int]) -> None:
        """Forget deletions that were carried out."""
        await self._writer.submit(SettleDeletions(rows))

    async def forget_answers(self, before: datetime, limit: int) -> int:
        """Delete stored answers older than ``before``."""
        return await self._writer.submit(ForgetAnswers(before, limit))

    async def seal_events(self, head: Seal | None, seals: Sequence[Seal]) -> bool:
        """Add seals to the audit chain."""
        return await self._writer.submit(sealing.SealEvents(head, seals))

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

    async def list_files(
        self, owner: str, status: FileStatus | None, batch_id: str, cursor: int, limit: int
    ) -> Page[File]:
        """Read files in order of creation."""
        return await self._read(
            queries.list_files,
            owner=owner,
            status=status,
            batch_id=batch_id,
            cursor=cursor,
            limit=limit,
        )

    async def list_audit_events(
        self, owner: str, file_id: str, batch_id: str, cursor: int, limit: int
    ) -> Page[AuditEvent]:
        """Read audit events in order."""
        return await self._read(
            queries.list_audit_events,
            owner=owner,
            file_id=file_id,
            batch_id=batch_id,
            cursor=cursor,
            limit=limit,
        )

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
        self._last_change = max(self._last_change, found.last_change)
        return found

    async def owed_deletions(self, limit: int) -> Sequence[OwedDeletion]:
        """Read the oldest deletions owed."""
        return await self._read(queries.owed_deletions, limit=limit)

    async def status_of(self, file_ids: Sequence[str]) -> dict[str, FileStatus]:
        """Read the status of files."""
        return await self._read(queries.status_of, file_ids=file_ids)

    async def count_files(self) -> dict[FileStatus, int]:
        """Count files by status."""
        return await self._read(queries.count_files)

    async def read_unsealed(self, limit: int) -> Unsealed:
        """Read the newest seal and the events behind it."""
        return await self._read(sealing.read_unsealed, limit=limit)

    async def count_unsealed_events(self, limit: int) -> int:
        """Count the events that are not sealed yet."""
        return await self._read(sealing.count_unsealed, limit=limit)
