"""Decides what the service can ask of its database: the Store protocol.

Must not know which database it is. Each method is one transaction; an answer comes after its commit.
Store methods raise the domain's errors, and ``DatabaseFailure`` or ``OutcomeUnknown`` when the database fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from upload_server.domain.chain import Seal
from upload_server.domain.errors import UploadError
from upload_server.domain.states import (
    AuditEvent,
    Batch,
    CancelledBatch,
    CancelledFile,
    FailureReason,
    File,
    FileSpec,
)
from upload_server.domain.statistics import Buckets, Counts
from upload_server.domain.tokens import Cursor
from upload_server.store.values import (
    Aged,
    AgedTrail,
    Alive,
    Changes,
    Claim,
    Command,
    DueCancel,
    Expired,
    Heard,
    Listener,
    Listing,
    Moment,
    Named,
    News,
    OwedDeletion,
    Page,
    PrunedRows,
    Result,
    StreamStop,
    Targets,
    Trail,
    Unsealed,
    always,
)


class Store(Protocol):
    """Rows of files, batches, audit and stored answers, and the numbers that order their changes."""

    @property
    def store_id(self) -> str:
        """Identity of this store, where its audit chain begins; made once, with the store."""

    @property
    def incarnation(self) -> str:
        """Identity of this store's history, part of every resume token: another one, where a database can tell, after
        it was failed over or restored."""

    @property
    def node_id(self) -> str:
        """Which node this is, fresh at every opening; empty where no other can be on the store."""

    @property
    def alone(self) -> bool:
        """Whether no other node can be on this store."""

    @property
    def lives(self) -> bool:
        """Whether no other node can take this one for dead: it has said within its lease that it lives."""

    def life(self) -> Alive:
        """Return what tells, from any thread, whether no other node could take this one for dead from this call on."""

    @property
    def leads(self) -> bool:
        """Whether it is this node's turn to do what one does for all. That saves work, and guards nothing."""

    @property
    def others(self) -> Sequence[str]:
        """The other nodes that lived at the last ``beat``."""

    @property
    def last_change(self) -> int:
        """Number of the last change known to be committed (may lag behind other nodes)."""

    @property
    def served(self) -> float:
        """Seconds in which a service ran on this store, up to now: grows while it is open, and is kept over restarts.

        A process that dies loses what its last transaction has not kept; none gains.
        """

    def on_commit(self, listener: Listener) -> None:
        """Have ``listener`` called on the event loop after each commit that changed a watched row, never before.

        It hears of a write before the write's caller has the answer, and also when that caller has left; replays and
        refusals are not told. There is one listener: another takes its place. It must not block or raise.
        """

    # Lifecycle ---------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until every write that was asked for is answered."""

    async def close(self) -> None:
        """Finish what is queued, checkpoint, and close every connection."""

    async def ping(self) -> None:
        """Read and write-lock check for readiness; raises ``DatabaseFailure``."""

    def room(self) -> int:
        """Bytes that announcements may still take, with what is kept for the ends of the files they announce.

        Blocks for a moment; raises OSError. Any thread may ask.
        """

    async def beat(self) -> None:
        """Say that this node lives, and hear whose turn it is and who else lives; to be called far more often than a
        lease lasts. Nothing where this node is alone. Raises ``DatabaseFailure``, ``OutcomeUnknown``."""

    # Writes: each goes on to its end when its caller gives up waiting ------------------------------------------------

    async def initiate_upload(self, spec: FileSpec, file_id: str, command: Command) -> Result[File]:
        """Insert a pending file; a replay gives the file of the first call in its current state."""

    async def put_file(
        self,
        spec: FileSpec,
        file_id: str,
        sha256: str,
        command: Command,
        lost: UploadError | None = None,
        alive: Alive = always,
    ) -> Result[File]:
        """Insert a completed file whose bytes are durable, with the events of its way there; a replay gives the file
        of the first call in its current state.

        ``lost``: the bytes could not be stored, so that nothing but a replay is possible; raises it. ``alive``: a
        ``life`` from before they were stored; raises ``CutOff`` where another node may have swept them up.
        """

    async def initiate_batch(
        self, specs: Sequence[FileSpec], batch_id: str, file_ids: Sequence[str], command: Command
    ) -> Result[tuple[Batch, tuple[str, ...]]]:
        """Insert a pending batch and its files; a replay gives the first call's ids with the current state."""

    async def cancel_file(
        self, file_id: str, command: Command, fence: int | None = None, heard: Heard | None = None
    ) -> Result[CancelledFile]:
        """Cancel a file that is not final; raises ``FileNotFound``, ``FileNotCancellable``, ``RequestIdReused``.

        With ``fence``: only while the row still carries it, else ``WriterReplaced``.
        """

    async def cancel_batch(self, batch_id: str, command: Command, heard: Heard | None = None) -> Result[CancelledBatch]:
        """Cancel a batch and its files that are not final; raises ``BatchNotFound``, ``BatchNotCancellable``."""

    async def claim(self, file_id: str, offset: int, command: Command, continues: int | None = None) -> Result[Claim]:
        """Raise the fence and make the file uploading (and its batch processing).

        It begins a new run, unless the newest is the one whose fence is ``continues``: the caller began it, and nobody
        else has ever written to it.
        Raises ``FileNotFound``, ``FileNotWritable``, ``OffsetMismatch`` (nothing changed, no fence raised).
        """

    async def record_progress(
        self, file_id: str, fence: int, bytes_received: int, at: datetime, writer: str = ""
    ) -> bool:
        """Record durable bytes, and through which door they came (a word of ``Source``).

        False when the fence is no longer the row's or the file is no longer uploading.
        """

    async def cancel_later(self, file_id: str, fence: int, due_at: datetime, reason: str) -> bool:
        """Note in an uploading file's row that its page was lost; False when the fence is no longer the row's.

        A claim clears it. No change: nobody is notified.
        """

    async def release(self, file_id: str, fence: int) -> None:
        """Say that the stream with this fence has let go of its file, which is not completed: other nodes may expire it
        then, or delete its bytes. Nothing where this node is alone, whose own streams are asked."""

    async def complete(
        self,
        file_id: str,
        fence: int,
        sha256: str,
        bytes_received: int,
        command: Command,
        *,
        leaves_bytes: bool = False,
    ) -> Result[File]:
        """Make an uploading file completed; raises ``UploadCancelled``, ``WriterReplaced`` or ``FileNotWritable``.

        ``leaves_bytes``: others lie there than those that the file keeps; they are owed deletion.
        """

    async def complete_whole(
        self, file_id: str, sha256: str, size_bytes: int, command: Command, alive: Alive = always
    ) -> Result[File]:
        """Make a pending file completed whose bytes are durable, all in one: it is claimed, and ``uploading`` between.

        ``alive`` as in ``put_file``. Raises ``FileNotFound``; ``FileNotWritable`` unless it is pending, was announced
        with these bytes, and its batch is not final.
        """

    async def fail(self, file_id: str, fence: int, failure: FailureReason, command: Command) -> Result[File]:
        """Make an uploading file failed, its bytes owed deletion; raises as ``complete``."""

    async def delete_content(self, file_id: str, command: Command) -> Result[File]:
        """Let go of the bytes of a completed file, which are owed deletion; raises ``FileNotFound``,
        ``FileNotCompleted``, ``ContentDeleted``, ``RequestIdReused``. A replay gives the file as the first call left
        it."""

    async def prune_content(self, file_ids: Sequence[str], command: Command) -> Result[int]:
        """Let go of the bytes of those of these files that are completed and have them, in one transaction; returns of
        how many."""

    async def prune_trail(self, after: int, upto: int, events: int) -> bool:
        """Have the trail begin behind the event ``upto``, not behind ``after``; False when it begins elsewhere by now.

        Deletes the events between, which are ``events`` and exported, and their seals; the last one is kept as what the
        next event follows. Statistics go on.
        """

    async def delete_rows(self, rows: PrunedRows) -> None:
        """Delete files and batches that ``pruned_rows`` has found, in one transaction. No change: nobody is
        notified."""

    async def expire(
        self, idle_since: Moment, open_files: Sequence[str], limit: int, command: Command
    ) -> Result[Expired]:
        """Fail files without a byte since ``idle_since`` that no stream has open; one call takes at most ``limit``.

        ``open_files`` are those of this node's streams; those of other nodes that live, the rows tell.

        A pending file of a batch is as old as the newest byte of the batch; one that lives on because of that is as
        good as new to the next call. The audit events say both ages.
        """

    async def settle_stops(self, stops: Sequence[StreamStop]) -> None:
        """Forget stops that the streams have heard."""

    async def settle_deletions(self, rows: Sequence[int], left_over: Sequence[int] = ()) -> None:
        """Forget deletions that were carried out: of all bytes of the files in ``rows``, and of those that the
        completed files in ``left_over`` do not keep. What these have let go of meanwhile stays owed."""

    async def forget_answers(self, before: Moment, limit: int) -> int:
        """Delete stored answers older than ``before``, at most ``limit``; returns how many.

        The tickets whose time is over go along.
        """

    async def keep_ticket(self, sha256: str, identity: str, seconds: float) -> None:
        """Keep a ticket by its SHA-256, in hex, for so many seconds: it opens one socket as ``identity``.

        No change: nobody is notified. Raises ``StorageFull``.
        """

    async def take_ticket(self, sha256: str) -> str | None:
        """Take a ticket, which is none any more from then on; returns the identity that was kept with it.

        None, and nothing changed, where there is none, or its time is over.
        """

    async def keep_served(self) -> None:
        """Have ``served`` kept as it is now: a transaction for a time in which there is no other."""

    async def seal_events(self, head: Seal | None, seals: Sequence[Seal]) -> bool:
        """Add seals to the audit chain, if its newest still is ``head``; else False. No change: nobody is notified."""

    # Other nodes -------------------------------------------------------------------------------------------------

    def on_bell(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called on the event loop when another node may have committed something. A bell can be lost
        and can ring for nothing: what there is, ``look`` tells. There is one listener; it must not block or raise."""

    async def look(self) -> News:
        """Read what other nodes have left for this one."""

    async def read_progress(self, targets: Targets) -> Sequence[tuple[str, str, str, int]]:
        """Read how far the uploads are that other nodes have open: id, batch's id (or empty), owner, durable bytes.

        Of named files, of named batches' files, or of all those that got bytes in the last seconds.
        """

    async def held_elsewhere(self, file_ids: Sequence[str]) -> set[str]:
        """Return those of these files that a stream of another node has open, if that node lives."""

    # Reads -------------------------------------------------------------------------------------------------------
    # ``sees`` is that of the caller: the one owner whose rows there are for it, None: everybody's. Others' rows are as
    # unknown as those that never were.

    async def get_file(self, file_id: str, sees: str | None = None) -> File:
        """Read one file; raises ``FileNotFound``."""

    async def get_tus_metadata(self, file_id: str, sees: str | None = None) -> str:
        """Read the text by which a tus client announced a file, empty when none did; raises ``FileNotFound``."""

    async def get_batch(self, batch_id: str, sees: str | None = None) -> Batch:
        """Read one batch; raises ``BatchNotFound``."""

    async def list_files(self, listing: Listing, cursor: Cursor | None, limit: int) -> Page[File]:
        """Read files, from after ``cursor`` on."""

    async def list_batches(self, listing: Listing, cursor: Cursor | None, limit: int) -> Page[Batch]:
        """Read batches, from after ``cursor`` on."""

    async def list_audit_events(self, trail: Trail, cursor: Cursor | None, limit: int) -> Page[AuditEvent]:
        """Read audit events, from after ``cursor`` on."""

    async def count(self, sees: str | None, now: datetime, buckets: Buckets | None = None) -> Counts:
        """Count what there is for ``sees``, exactly, and what happened in ``buckets``, which end at ``now`` or
        before."""

    async def check_targets(self, targets: Targets, sees: str | None) -> Changes:
        """Read the named targets' current rows (not the files of batches), in order; raises NotFound for the first
        unknown id."""

    async def read_changes(
        self, targets: Targets, sees: str | None, after: int, limit: int, skip_final_upto: int = 0
    ) -> Changes:
        """Read the targets' rows that changed after ``after``, oldest change first, from one snapshot.

        Rows that are final and whose last change is at or below ``skip_final_upto`` are left out.
        """

    async def owed_deletions(self, limit: int) -> Sequence[OwedDeletion]:
        """Read the oldest deletions owed, without those of files that another living node has open."""

    async def aged_content(self, before: Moment, after: int, limit: int) -> Aged:
        """Read which files were completed before ``before``, and have their bytes: by the next ``limit`` events of the
        trail after the change ``after``."""

    async def aged_trail(self, before: Moment, limit: int) -> AgedTrail:
        """Read at most ``limit`` events from the beginning of the trail on, up to the first that is not sealed, or
        whose row stays: it, or a file of its batch, is not final since ``before``, has bytes or is owed their
        deletion."""

    async def pruned_rows(self, limit: int) -> PrunedRows:
        """Read at most ``limit`` files whose events were all pruned, and batches that have no files any more; a batch
        and its files count together."""

    async def due_cancels(self, limit: int) -> Sequence[DueCancel]:
        """Read the cancels that lost pages owe, the earliest first."""

    async def names_of(self, file_ids: Sequence[str]) -> dict[str, Named]:
        """Read what rows say of the names of bytes; unknown ids are missing from the answer."""

    async def read_unsealed(self, limit: int) -> Unsealed:
        """Read the newest seal of the audit chain and, in order, at most ``limit`` events behind it."""

    async def read_seal(self, event_id: int) -> Seal | None:
        """Read the seal of one event."""

    async def count_unsealed_events(self, limit: int) -> int:
        """Count the audit events that are not sealed yet, up to ``limit``."""
