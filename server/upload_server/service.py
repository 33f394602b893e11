"""Decides what callers can do: the use cases, each checked and carried out once.

Must not know protobuf, gRPC, HTTP or SQL. A change goes on when its caller has left: it belongs to the service.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from upload_server.domain.caller import Caller
from upload_server.domain.errors import ContentDeleted, FileNotCompleted, NotFound, NotInState, WriterReplaced
from upload_server.domain.fields import (
    MAX_WATCH_TARGETS,
    MIN_PROGRESS_SECONDS,
    Rules,
    check_cancel,
)
from upload_server.domain.observer import Observer
from upload_server.domain.slices import in_slices
from upload_server.domain.states import (
    AuditEvent,
    Batch,
    BatchStatus,
    CancelledBatch,
    CancelledFile,
    File,
    FileSpec,
    FileStatus,
    Source,
)
from upload_server.domain.statistics import Buckets, Counts, LateCancels
from upload_server.domain.tokens import Cursor, ResumeToken, decode_page_token, encode_page_token
from upload_server.ingest import Content, Draft, Ingest
from upload_server.store.protocol import Store
from upload_server.store.values import Command, DueCancel, Heard, Listing, Page, Result, Targets, Trail
from upload_server.watch import Outlet, WatchEvent, WatchHub, WatchRequest

A = TypeVar("A")
T = TypeVar("T")
L = TypeVar("L", bound=Listing | Trail)
# The fields of a request, as JSON holds them.
Fields: TypeAlias = "str | int | Sequence[Fields]"


@dataclass(frozen=True, slots=True)
class ListPage(Generic[T]):
    """Rows of one page; ``next_page_token`` is empty on the last one."""

    rows: Sequence[T]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """What there is, what happened in ``buckets``, and the cancels that were refused as too late, ``since`` when."""

    counts: Counts
    # A watch of everything with it hears what changed after ``counts``.
    resume_token: str
    late: int
    since: datetime
    buckets: Buckets | None
    late_in_buckets: Sequence[int]


def fingerprint(fields: Fields) -> bytes:
    """Digest of a request's fields, by which an equal request is known again."""
    return hashlib.sha256(json.dumps(fields, ensure_ascii=False).encode()).digest()


class ListDigest:
    """The ``fingerprint`` of a list, whose elements come some at a time."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"[")
        self._between = b""

    def add(self, fields: Sequence[Fields]) -> None:
        """Take the next elements, at least one."""
        self._hash.update(self._between + json.dumps(fields, ensure_ascii=False)[1:-1].encode())
        self._between = b", "

    def fingerprint(self) -> bytes:
        """Return the digest of the whole list."""
        self._hash.update(b"]")
        return self._hash.digest()


class Announce(Protocol):
    """What is asked of a principal's quotas before it announces files; raises ``QuotaExceeded``."""

    async def __call__(self, principal: str, files: int, size_bytes: int, *, whole: bool = False) -> None:
        """Count files and bytes; ``whole``: the files come with all their bytes."""


class Uploads:
    """The use cases of upload.v1, for every door."""

    def __init__(
        self,
        store: Store,
        ingest: Ingest,
        hub: WatchHub,
        *,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        max_file_bytes: int,
        observer: Observer,
        announce: Announce | None = None,
    ) -> None:
        """``announce`` is asked before files are announced, where callers have quotas."""
        self._announce = announce
        self._store = store
        self._ingest = ingest
        self._hub = hub
        self._clock = clock
        self._new_id = new_id
        self._max_file_bytes = max_file_bytes
        self._observer = observer
        self._late = LateCancels(clock())

    # Changes -------------------------------------------------------------------------------------------------------

    async def initiate_upload(self, spec: FileSpec, request_id: str, caller: Caller) -> File:
        """Announce one file."""
        rules = Rules()
        rules.spec(spec, self._max_file_bytes)
        rules.request_id(request_id)
        rules.check()
        if self._announce is not None:
            await self._announce(caller.principal, 1, spec.size_bytes)
        command = self._command(caller, "InitiateUpload", request_id, _spec_fields(spec))
        return (await self._store.initiate_upload(_normal(spec), self._new_id(), command)).answer

    async def initiate_batch(
        self, announced: Sequence[A], spec_of: Callable[[A], FileSpec], request_id: str, caller: Caller
    ) -> tuple[Batch, tuple[str, ...]]:
        """Announce files that belong together; returns the batch and the files' ids in the order given.

        ``spec_of`` says what is announced of one; it is asked in slices, with turns for other calls between.
        """
        rules = Rules()
        rules.batch("files", len(announced))
        rules.request_id(request_id)
        rules.check()
        specs: list[FileSpec] = []
        file_ids: list[str] = []
        digest = ListDigest()
        async for some in in_slices(announced):
            for spec in map(spec_of, some):
                rules.spec(spec, self._max_file_bytes, f"files[{len(specs)}].")
                specs.append(_normal(spec))
                file_ids.append(self._new_id())
            if rules.are_full():
                break
            if request_id:
                digest.add([_spec_fields(spec) for spec in specs[-len(some) :]])
        rules.check()
        if self._announce is not None:
            await self._announce(caller.principal, len(specs), sum(spec.size_bytes for spec in specs))
        print_of = digest.fingerprint() if request_id else b""
        command = Command(caller, "InitiateBatch", self._clock(), "", request_id, print_of)
        return (await self._store.initiate_batch(specs, self._new_id(), file_ids, command)).answer

    async def put_file(self, spec: FileSpec, data: bytes, request_id: str, caller: Caller) -> File:
        """Take a file that comes whole: its bytes first, then its row, completed, in one write."""
        rules = Rules()
        rules.spec(spec, self._max_file_bytes)
        rules.data("data", data, spec.size_bytes)
        rules.request_id(request_id)
        rules.check()
        if self._announce is not None:
            await self._announce(caller.principal, 1, spec.size_bytes, whole=True)
        spec, file_id = _normal(spec), self._new_id()

        async def write(draft: Draft) -> Result[File]:
            command = self._command(caller, "PutFile", request_id, [*_spec_fields(spec), draft.sha256])
            return await self._store.put_file(spec, file_id, draft.sha256, command, draft.lost, draft.alive)

        return await self._ingest.put(file_id, data, spec.sha256, write)

    async def cancel_file(
        self, file_id: str, reason: str, request_id: str, caller: Caller, fence: int | None = None
    ) -> CancelledFile:
        """Cancel a file; with ``fence`` only while the stream that holds it is still the file's writer."""
        check_cancel("file_id", file_id, reason, request_id)
        command = self._command(caller, "CancelFile", request_id, [file_id, reason], reason)
        return (await self._store.cancel_file(file_id, command, fence, self._hold(file_id, caller))).answer

    async def cancel_later(self, file: File, due_at: datetime, reason: str) -> bool:
        """Note that a file's page was lost; False when its stream is no longer the file's writer."""
        return await self._store.cancel_later(file.file_id, file.fence, due_at, reason)

    async def cancel_batch(self, batch_id: str, reason: str, request_id: str, caller: Caller) -> CancelledBatch:
        """Cancel a batch and its files that are not yet final, in one transaction."""
        check_cancel("batch_id", batch_id, reason, request_id)
        command = self._command(caller, "CancelBatch", request_id, [batch_id, reason], reason)
        return (await self._store.cancel_batch(batch_id, command, self._hold(batch_id, caller))).answer

    async def delete_content(self, file_id: str, reason: str, request_id: str, caller: Caller) -> File:
        """Let go of the bytes of a completed file, which stays."""
        check_cancel("file_id", file_id, reason, request_id)
        command = self._command(caller, "DeleteContent", request_id, [file_id, reason], reason)
        return (await self._store.delete_content(file_id, command)).answer

    def _hold(self, identifier: str, caller: Caller) -> Heard:
        """Hold what ``identifier`` names until the store has decided its cancel, and its streams are stopped."""
        self._ingest.holds.hold(identifier, caller.sees)

        def decided(outcome: object) -> None:
            word = "unknown" if isinstance(outcome, NotFound) else "error"
            if isinstance(outcome, Result):
                word = "cancelled"
                if not outcome.replayed:
                    self._ingest.stop(outcome.audited.events[0])
            elif isinstance(outcome, NotInState | WriterReplaced):
                word = "too_late"
                self._late.add(caller.principal, self._clock())
            self._ingest.holds.release(identifier, caller.sees)
            self._observer.cancel_finished(caller.source.value, word)

        return decided

    def _command(self, caller: Caller, method: str, request_id: str, fields: Fields, reason: str = "") -> Command:
        digest = fingerprint(fields) if request_id else b""
        return Command(caller, method, self._clock(), reason, request_id, digest)

    # Reads ---------------------------------------------------------------------------------------------------------

    async def get_file(self, file_id: str, caller: Caller) -> File:
        """Read one file."""
        rules = Rules()
        rules.identifier("file_id", file_id)
        rules.check()
        return await self._store.get_file(file_id, caller.sees)

    async def get_tus_metadata(self, file_id: str, caller: Caller) -> str:
        """Read the text by which a tus client announced a file; empty when none did."""
        return await self._store.get_tus_metadata(file_id, caller.sees)

    async def get_content(self, file_id: str, caller: Caller) -> Content:
        """Return the bytes of a completed file, to be read; raises ``FileNotCompleted``, ``ContentDeleted``."""
        file = await self.get_file(file_id, caller)
        if file.status is not FileStatus.COMPLETED:
            raise FileNotCompleted(file)
        if not file.has_content:
            raise ContentDeleted(file)
        return self._ingest.content(file, partial(self._store.get_file, file_id, caller.sees))

    async def due_cancels(self, limit: int) -> Sequence[DueCancel]:
        """Read the cancels that lost pages owe, the earliest first."""
        return await self._store.due_cancels(limit)

    async def get_batch(self, batch_id: str, caller: Caller) -> Batch:
        """Read one batch."""
        rules = Rules()
        rules.identifier("batch_id", batch_id)
        rules.check()
        return await self._store.get_batch(batch_id, caller.sees)

    async def list_files(
        self, wanted: Listing, order_by: str, page_size: int, page_token: str, caller: Caller
    ) -> ListPage[File]:
        """Read a page of files."""
        return await self._list("files", self._store.list_files, wanted, order_by, page_size, page_token, caller)

    async def list_batches(
        self, wanted: Listing, order_by: str, page_size: int, page_token: str, caller: Caller
    ) -> ListPage[Batch]:
        """Read a page of batches."""
        return await self._list("batches", self._store.list_batches, wanted, order_by, page_size, page_token, caller)

    async def _list(
        self,
        name: str,
        read: Callable[[L, Cursor | None, int], Awaitable[Page[T]]],
        wanted: L,
        order_by: str,
        page_size: int,
        page_token: str,
        caller: Caller,
    ) -> ListPage[T]:
        """Read a page of a list; ``wanted`` is as given, its owner included, whom the caller may not see."""
        rules = Rules()
        _CHECKS[type(wanted)](rules, wanted)
        newest_first = rules.order_by(order_by, _ORDERS[type(wanted)])
        limit = rules.page_size(page_size)
        rules.check()
        owner = caller.sees if wanted.owner is None else wanted.owner
        listing = replace(wanted, owner=owner, newest_first=newest_first)
        # A page token belongs to one list with its filters and order.
        query = json.dumps([name, *astuple(listing)], default=str)
        cursor = decode_page_token(page_token, query)
        if owner is not None and not caller.does_see(owner):
            return ListPage((), "")
        page = await read(listing, cursor, limit)
        return ListPage(page.rows, encode_page_token(page.next_cursor, query))

    async def get_statistics(self, window: float, step: float, caller: Caller) -> Statistics:
        """Count files and batches, and what happened in the last ``window`` seconds, for each ``step`` of it."""
        rules = Rules()
        rules.buckets(window, step)
        rules.check()
        now, sees = self._clock(), caller.sees
        buckets = Buckets.until(now, int(step), int(window / step)) if window else None
        counts = await self._store.count(sees, now, buckets)
        late = [self._late.in_bucket(sees, buckets, index) for index in range(buckets.count)] if buckets else []
        token = ResumeToken(self._store.incarnation, counts.no).encode()
        return Statistics(counts, token, self._late.total(sees), self._late.since, buckets, late)

    async def list_audit_events(
        self, wanted: Trail, order_by: str, page_size: int, page_token: str, caller: Caller
    ) -> ListPage[AuditEvent]:
        """Read a page of the audit trail."""
        return await self._list("audit", self._store.list_audit_events, wanted, order_by, page_size, page_token, caller)

    def watch(
        self,
        targets: Targets,
        resume_token: str,
        progress_interval: float,
        caller: Caller,
        *,
        until_final: bool,
        owner: str = "",
        outlet: Outlet | None = None,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Watch targets, of ``all`` only those of ``owner``, unless it is empty; raises ``InvalidField`` at once, what
        the hub raises when it is iterated."""
        _check_targets(targets, owner, until_final=until_final)
        if progress_interval and progress_interval < MIN_PROGRESS_SECONDS:
            rules = Rules()
            rules.refuse("progress_interval", f"must be 0 or at least {MIN_PROGRESS_SECONDS:g} s")
            rules.check()
        resume = ResumeToken.decode(resume_token) if resume_token else None
        sees = caller.sees
        if owner and caller.does_see(owner):
            sees = owner
        elif owner:
            # Nothing at all: what there is of others nobody learns, nor whether anybody is called so.
            targets = Targets()
        return self._hub.watch(WatchRequest(targets, resume, until_final, progress_interval, caller), sees, outlet)


def _check_targets(targets: Targets, owner: str, *, until_final: bool) -> None:
    rules = Rules()
    rules.principal("owner", owner)
    if owner and not targets.all:
        rules.refuse("owner", "must be combined with all")
    named = len(targets.file_ids) + len(targets.batch_ids)
    if targets.all and named:
        rules.refuse("all", "must not be combined with file_ids or batch_ids")
    if targets.all and until_final:
        rules.refuse("until_final", "must not be combined with all: that never ends")
    if not targets.all and not named:
        rules.refuse("file_ids", "must name a file, or batch_ids a batch, or all must be set")
    if named > MAX_WATCH_TARGETS:
        field = "file_ids" if targets.file_ids else "batch_ids"
        rules.refuse(field, f"must be at most {MAX_WATCH_TARGETS} files and batches together", MAX_WATCH_TARGETS)
        rules.check()
    for field, ids in (("file_ids", targets.file_ids), ("batch_ids", targets.batch_ids)):
        for identifier in sorted(ids):
            rules.identifier(field, identifier)
    rules.check()


def _check_listing(rules: Rules, wanted: Listing) -> None:
    rules.identifier("batch_id", wanted.batch_id, optional=True)
    rules.principal("owner", wanted.owner or "")
    rules.filename_prefix(wanted.filename_prefix)
    rules.actor("cancelled_by", wanted.cancelled_by)
    rules.times("created", wanted.created_after, wanted.created_before)
    if wanted.without_batch and wanted.batch_id:
        rules.refuse("without_batch", "must not be combined with batch_id")
    if wanted.cancelled_by and wanted.statuses and FileStatus.CANCELLED not in wanted.statuses:
        rules.refuse("cancelled_by", "must not be combined with states that are not cancelled")


def _check_trail(rules: Rules, wanted: Trail) -> None:
    rules.principal("owner", wanted.owner or "")
    rules.identifier("file_id", wanted.file_id, optional=True)
    rules.identifier("batch_id", wanted.batch_id, optional=True)
    rules.actor("actor", wanted.actor)
    rules.word("source", wanted.source, Source)
    rules.word("to_status", wanted.to_status, {*FileStatus, *BatchStatus})
    rules.times("occurred", wanted.occurred_after, wanted.occurred_before)


_CHECKS: Mapping[type[Any], Callable[[Rules, Any], None]] = {Listing: _check_listing, Trail: _check_trail}
# What lists can be ordered by. Commits number events: that is the order of their times too, but for what waited.
_ORDERS: Mapping[type[Any], Sequence[str]] = {Listing: ("created_at",), Trail: ("event_id", "occurred_at")}


def _spec_fields(spec: FileSpec) -> list[Fields]:
    return [spec.filename, spec.size_bytes, spec.content_type, spec.sha256.lower()]


def _normal(spec: FileSpec) -> FileSpec:
    lower = spec.sha256.lower()
    return spec if lower == spec.sha256 else replace(spec, sha256=lower)
