"""The real store in process, as a System. Each call is one tick of one second."""

from __future__ import annotations

import asyncio
import math
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from robustness.prove.model import Refused
from robustness.prove.systems import Views, digest
from robustness.prove.views import BatchView, EventView, FileView, micros, of_domain
from upload_server.domain.caller import Caller
from upload_server.domain.errors import UploadError
from upload_server.domain.states import Batch, FailureReason, File, FileSpec, Source
from upload_server.service import Fields, fingerprint
from upload_server.store.open import open_store
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store
from upload_server.store.values import Command, Listing, Moment, Targets, Trail


def _refused(error: UploadError) -> Refused:
    return Refused(error.reason, **{str(k): v for k, v in error.metadata.items()})


@dataclass
class StoreStream:
    """A writer on the store alone: claim, progress, complete as the ingest would."""

    file_id: str
    fence: int
    size: int
    sent: int


class StoreSystem:
    """A real store in process. Each call is one tick of one second."""

    can_expire = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: Store | None = None
        self._ticks = 0
        self._crashes = 0

    @property
    def _path(self) -> Path:
        return self._folder / f"upload{self._crashes}.sqlite3"

    async def _opened(self) -> Store:
        if self._store is None:
            self._store = await open_store(f"sqlite:///{self._path}", StoreOptions(linger_seconds=0))
        return self._store

    def _at(self, tick: int) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=tick)

    def _command(self, method: str, reason: str = "", request_id: str = "", fields: Fields = ()) -> Command:
        self._ticks += 1
        digest_of = fingerprint(fields) if request_id else b""
        return Command(Caller(Source.GRPC), method, self._at(self._ticks), reason, request_id, digest_of)

    async def initiate(self, size: int, request_id: str) -> FileView:
        store, command = await self._opened(), self._command("InitiateUpload", "", request_id, size)
        try:
            result = await store.initiate_upload(FileSpec("a", size), str(uuid.uuid4()), command)
        except UploadError as error:
            raise _refused(error) from None
        return of_domain(FileView, result.answer)

    async def initiate_batch(self, sizes: Sequence[int], request_id: str) -> tuple[BatchView, list[str]]:
        store, command = await self._opened(), self._command("InitiateBatch", "", request_id, list(sizes))
        specs, ids = [FileSpec("a", size) for size in sizes], [str(uuid.uuid4()) for _ in sizes]
        try:
            batch, made = (await store.initiate_batch(specs, str(uuid.uuid4()), ids, command)).answer
        except UploadError as error:
            raise _refused(error) from None
        return of_domain(BatchView, batch), list(made)

    async def open(self, file: FileView, offset: int) -> StoreStream:
        store, command = await self._opened(), self._command("UploadFile")
        try:
            claim = (await store.claim(file.file_id, offset, command)).answer
        except UploadError as error:
            raise _refused(error) from None
        return StoreStream(file.file_id, claim.file.fence, file.size_bytes, offset)

    async def send(self, stream: StoreStream, count: int) -> None:
        stream.sent += count

    async def leave(self, stream: StoreStream) -> None:
        store = await self._opened()
        self._ticks += 1
        if not await store.record_progress(stream.file_id, stream.fence, stream.sent, self._at(self._ticks)):
            found = await store.get_file(stream.file_id)
            raise Refused("UPLOAD_CANCELLED" if found.status.value == "cancelled" else "WRITER_REPLACED")

    async def commit(self, stream: StoreStream, *, matches: bool) -> FileView:
        store, command = await self._opened(), self._command("UploadFile")
        try:
            if matches or stream.sent < stream.size:
                done = await store.complete(
                    stream.file_id, stream.fence, digest(stream.size) if matches else "", stream.sent, command
                )
                return of_domain(FileView, done.answer)
            await store.fail(stream.file_id, stream.fence, FailureReason.CHECKSUM_MISMATCH, command)
        except UploadError as error:
            raise _refused(error) from None
        raise Refused("CHECKSUM_MISMATCH")

    async def cancel(self, file_id: str, reason: str, request_id: str) -> tuple[str, int]:
        store, command = await self._opened(), self._command("CancelFile", reason, request_id, [file_id, reason])
        try:
            answer = (await store.cancel_file(file_id, command)).answer
        except UploadError as error:
            raise _refused(error) from None
        return answer.filename, micros(answer.cancelled_at)

    async def cancel_batch(self, batch_id: str, reason: str, request_id: str) -> tuple[int, int, int]:
        store, command = await self._opened(), self._command("CancelBatch", reason, request_id, [batch_id, reason])
        try:
            answer = (await store.cancel_batch(batch_id, command)).answer
        except UploadError as error:
            raise _refused(error) from None
        return answer.cancelled_files_count, answer.total_files_in_batch, micros(answer.cancelled_at)

    async def expire(self, before: int, open_files: frozenset[str]) -> set[str]:
        store = await self._opened()
        command = Command(Caller(Source.EXPIRY), "Expire", self._at(self._ticks + 1), "expired")
        self._ticks += 1
        result = await store.expire(Moment(self._at(before), math.inf), sorted(open_files), 1000, command)
        return {file.file_id for file in result.answer.files}

    async def file(self, file_id: str) -> FileView:
        try:
            return of_domain(FileView, await (await self._opened()).get_file(file_id))
        except UploadError as error:
            raise _refused(error) from None

    async def batch(self, batch_id: str) -> BatchView:
        return of_domain(BatchView, await (await self._opened()).get_batch(batch_id))

    async def files_of(self, batch_id: str) -> list[FileView]:
        page = await (await self._opened()).list_files(Listing("", batch_id=batch_id), None, 1000)
        return [of_domain(FileView, file) for file in page.rows]

    async def listed(self, status: str) -> list[str]:
        """Ids of the files in a state, by pages of two."""
        found: list[str] = []
        cursor = None
        while True:
            page = await (await self._opened()).list_files(Listing("", [status]), cursor, 2)
            found += [file.file_id for file in page.rows]
            cursor = page.next_cursor
            if not cursor:
                return found

    async def audit(self) -> list[EventView]:
        page = await (await self._opened()).list_audit_events(Trail(), None, 100_000)
        return [of_domain(EventView, event) for event in page.rows]

    async def changes(self, token: str) -> tuple[Views, str]:
        found: Views = {}
        after = last = int(token or 0)
        while True:
            page = await (await self._opened()).read_changes(Targets(all=True), None, after, 7)
            for change in page.changes:
                assert change.no > last, "change numbers must grow"
                after = last = change.no
                view, key = _view(change.record)
                assert key not in found, "a target comes once"
                found[key] = view
            if page.complete:
                return found, str(page.last_change)

    async def restart(self, *, kill: bool) -> None:
        """Close; after ``kill`` the next opening finds a copy of database and log as they are at this moment."""
        if self._store is None:
            return
        store, self._store = self._store, None
        old = self._path
        if kill:
            self._crashes += 1
            await asyncio.to_thread(_copy, old, self._path)
        await store.close()

    async def stop(self) -> None:
        if self._store is not None:
            await self._store.close()


def _copy(database: Path, to: Path) -> None:
    for suffix in ("", "-wal"):
        source = Path(f"{database}{suffix}")
        if source.exists():
            shutil.copyfile(source, f"{to}{suffix}")


def _view(record: File | Batch) -> tuple[FileView | BatchView, str]:
    if isinstance(record, File):
        return of_domain(FileView, record), record.file_id
    return of_domain(BatchView, record), record.batch_id
