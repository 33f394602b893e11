"""Decides how the writing half of the Store protocol is met: each call is one write, which the writer commits.

Must not know which database it is, nor how anything is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime

from upload_server.domain.chain import Seal
from upload_server.domain.errors import CannotStart, UploadError
from upload_server.domain.states import Batch, CancelledBatch, CancelledFile, FailureReason, File, FileSpec
from upload_server.store.commands.cancelling import CancelBatch, CancelFile
from upload_server.store.commands.deleting import DeleteContent, PruneContent
from upload_server.store.commands.initiating import InitiateBatch, InitiateUpload
from upload_server.store.commands.nodes import Beat, Leave, Membership, SettleStops
from upload_server.store.commands.pruning import DeleteRows, PruneTrail
from upload_server.store.commands.putting import CompleteWhole, PutFile
from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.tickets import KeepTicket, TakeTicket
from upload_server.store.commands.upkeep import ForgetAnswers, KeepServed, SealEvents, SettleDeletions
from upload_server.store.commands.uploading import (
    CancelLater,
    ClaimFile,
    CompleteFile,
    FailFile,
    RecordProgress,
    ReleaseFile,
)
from upload_server.store.commands.writer import Committer, Writer
from upload_server.store.options import StoreOptions
from upload_server.store.values import (
    Alive,
    Claim,
    Command,
    Commit,
    Heard,
    Listener,
    Moment,
    PrunedRows,
    Result,
    StreamStop,
    always,
)


class WritingStore:
    """The writes of a store, and who listens to them. A dialect adds the committer and the reads."""

    def __init__(
        self, committer: Committer, options: StoreOptions, last_change: int, clock: ServedClock, node_id: str
    ) -> None:
        """``node_id``: empty where no other node can be."""
        self.node_id = node_id
        self._member = Membership(options.lease_seconds)
        self._rung: Callable[[], None] | None = None
        self._options = options
        self._clock = clock
        self._writer = Writer(committer, options, last_change)

    @property
    def last_change(self) -> int:
        """Number of the last change known to be committed."""
        return self._writer.last_change

    @property
    def served(self) -> float:
        """Seconds in which a service ran on this store."""
        return self._clock.read()

    @property
    def alone(self) -> bool:
        """Whether no other node can be on this store."""
        return not self.node_id

    @property
    def lives(self) -> bool:
        """Whether no other node can take this one for dead."""
        return self.alone or self._member.lives

    def life(self) -> Alive:
        """Return what tells whether no other node could take this one for dead at any time from now on."""
        if self.alone:
            return always
        since = self._member.now()
        return lambda: self._member.lived_since(since)

    @property
    def leads(self) -> bool:
        """Whether it is this node's turn to do what one does for all."""
        return self.alone or self._member.leads

    @property
    def others(self) -> tuple[str, ...]:
        """The other nodes that lived when this one last said that it lives."""
        return self._member.others

    async def beat(self) -> None:
        """Say that this node lives."""
        if not self.alone:
            asked_at, options = self._member.now(), self._options
            beat = Beat(options.version, options.address, options.lease_seconds)
            self._member.beaten(asked_at, await self._writer.submit(beat))

    async def join(self) -> None:
        """Become one of the store's nodes; closes the store where that fails, and raises ``CannotStart``."""
        try:
            await self.beat()
        except UploadError as error:
            await self.close()
            raise CannotStart("the database does not take this node among its own") from error

    async def leave(self) -> None:
        """Cease to be one; a database that is away finds out by itself."""
        if not self.alone:
            with contextlib.suppress(UploadError):
                await self._writer.submit(Leave())

    def on_bell(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called when another node may have committed something."""
        self._rung = listener

    async def close(self) -> None:
        """Finish what is queued, and close every connection."""
        raise NotImplementedError

    async def drain(self) -> None:
        """Wait until every write is answered."""
        await self._writer.drain()

    def on_commit(self, listener: Listener) -> None:
        """Have ``listener`` called on the event loop after each commit that changed a watched row."""

        def committed(commits: Sequence[Commit]) -> None:
            self._ring()
            listener(commits)

        self._writer.listener = committed

    def _ring(self) -> None:
        """Ring at the other nodes; a dialect knows how."""

    def _hear_bell(self) -> None:
        if self._rung is not None:
            self._rung()

    async def initiate_upload(self, spec: FileSpec, file_id: str, command: Command) -> Result[File]:
        """Insert a pending file."""
        return await self._writer.submit(InitiateUpload(spec, file_id, command))

    async def put_file(
        self,
        spec: FileSpec,
        file_id: str,
        sha256: str,
        command: Command,
        lost: UploadError | None = None,
        alive: Alive = always,
    ) -> Result[File]:
        """Insert a completed file."""
        return await self._writer.submit(PutFile(spec, file_id, sha256, command, lost, alive))

    async def initiate_batch(
        self, specs: Sequence[FileSpec], batch_id: str, file_ids: Sequence[str], command: Command
    ) -> Result[tuple[Batch, tuple[str, ...]]]:
        """Insert a pending batch and its files."""
        write = InitiateBatch(specs, batch_id, file_ids, command)
        return await self._writer.submit(write, alone=len(specs) > self._options.small_batch_files)

    async def cancel_file(
        self, file_id: str, command: Command, fence: int | None = None, heard: Heard | None = None
    ) -> Result[CancelledFile]:
        """Cancel a file that is not final."""
        return await self._writer.submit(CancelFile(file_id, command, fence), heard=heard)

    async def cancel_batch(self, batch_id: str, command: Command, heard: Heard | None = None) -> Result[CancelledBatch]:
        """Cancel a batch and its files that are not final."""
        # How many files it has is not known before it runs.
        return await self._writer.submit(CancelBatch(batch_id, command), alone=True, heard=heard)

    async def claim(self, file_id: str, offset: int, command: Command, continues: int | None = None) -> Result[Claim]:
        """Raise the fence and make the file uploading."""
        result = await self._writer.submit(ClaimFile(file_id, offset, command, continues))
        if not result.audited.events:
            # Perhaps from another node; a take-over is no change.
            self._ring()
        return result

    async def record_progress(
        self, file_id: str, fence: int, bytes_received: int, at: datetime, writer: str = ""
    ) -> bool:
        """Record durable bytes, and through which door they came."""
        return await self._writer.submit(RecordProgress(file_id, fence, bytes_received, at, writer))

    async def cancel_later(self, file_id: str, fence: int, due_at: datetime, reason: str) -> bool:
        """Note when a file is to be cancelled whose page was lost."""
        return await self._writer.submit(CancelLater(file_id, fence, due_at, reason))

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
        """Make an uploading file completed."""
        write = CompleteFile(file_id, fence, sha256, bytes_received, command, leaves_bytes)
        return await self._writer.submit(write)

    async def complete_whole(
        self, file_id: str, sha256: str, size_bytes: int, command: Command, alive: Alive = always
    ) -> Result[File]:
        """Make a pending file completed whose bytes are durable."""
        return await self._writer.submit(CompleteWhole(file_id, sha256, size_bytes, command, alive))

    async def fail(self, file_id: str, fence: int, failure: FailureReason, command: Command) -> Result[File]:
        """Make an uploading file failed."""
        return await self._writer.submit(FailFile(file_id, fence, failure, command))

    async def delete_content(self, file_id: str, command: Command) -> Result[File]:
        """Let go of a completed file's bytes."""
        return await self._writer.submit(DeleteContent(file_id, command))

    async def prune_content(self, file_ids: Sequence[str], command: Command) -> Result[int]:
        """Let go of the bytes of completed files."""
        return await self._writer.submit(PruneContent(file_ids, command), alone=True)

    async def prune_trail(self, after: int, upto: int, events: int) -> bool:
        """Have the trail begin behind the event ``upto``."""
        return await self._writer.submit(PruneTrail(after, upto, events), alone=True)

    async def delete_rows(self, rows: PrunedRows) -> None:
        """Delete files and batches whose events were pruned."""
        await self._writer.submit(DeleteRows(rows), alone=True)

    async def release(self, file_id: str, fence: int) -> None:
        """Say that a stream of this node has let go of its file."""
        if not self.alone:
            await self._writer.submit(ReleaseFile(file_id, fence))

    async def settle_stops(self, stops: Sequence[StreamStop]) -> None:
        """Forget stops that the streams have heard."""
        await self._writer.submit(SettleStops(stops))

    async def settle_deletions(self, rows: Sequence[int], left_over: Sequence[int] = ()) -> None:
        """Forget deletions that were carried out."""
        await self._writer.submit(SettleDeletions(rows, left_over))

    async def forget_answers(self, before: Moment, limit: int) -> int:
        """Delete stored answers older than ``before``, and the tickets whose time is over."""
        return await self._writer.submit(ForgetAnswers(before, limit))

    async def keep_ticket(self, sha256: str, identity: str, seconds: float) -> None:
        """Keep a ticket."""
        await self._writer.submit(KeepTicket(sha256, identity, seconds))

    async def take_ticket(self, sha256: str) -> str | None:
        """Take a ticket."""
        return await self._writer.submit(TakeTicket(sha256))

    async def keep_served(self) -> None:
        """Keep the seconds served."""
        await self._writer.submit(KeepServed())

    async def seal_events(self, head: Seal | None, seals: Sequence[Seal]) -> bool:
        """Add seals to the audit chain."""
        return await self._writer.submit(SealEvents(head, seals))
