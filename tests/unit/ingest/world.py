"""A real store, a real disk and an ingest on them, with hands to initiate, cancel and look."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.stores import StoreAround, url_in
from upload_server.domain.caller import Caller
from upload_server.domain.errors import Stopped
from upload_server.domain.observer import Observer
from upload_server.domain.runs import Run
from upload_server.domain.states import CancelledFile, File, FileSpec, Source
from upload_server.ingest import Ingest, Limits, Upload
from upload_server.ingest.parts import Threads
from upload_server.sink.disk.sink import DiskSink
from upload_server.sink.protocol import Chunk, Doomed, SinkError, SinkFile
from upload_server.store.values import Audited, Claim, Command, Commit, Heard, OwedDeletion, Result
from upload_server.upkeep.janitor import Janitor

CALLER = Caller(Source.GRPC)
HOUR = 3600.0
DAY = 24 * HOUR
KIB = 1024
MIB = 1024 * KIB


class Gate:
    """A place on a thread's way that a test can close; open at first."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._waiting = threading.Semaphore(0)

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def pass_through(self) -> None:
        if not self._open.is_set():
            self._waiting.release()
            if not self._open.wait(30):
                raise RuntimeError("the test forgot to open this gate")

    async def somebody_waits(self) -> None:
        await asyncio.to_thread(self._waiting.acquire)


class GatedFile:
    """A file on the real disk; each of its calls first passes a gate."""

    def __init__(self, file: SinkFile, sink: GatedSink) -> None:
        self._file = file
        self._sink = sink

    def append(self, chunks: Sequence[Chunk]) -> None:
        self._sink.appending.pass_through()
        if self._sink.append_error is not None:
            raise self._sink.append_error
        self._file.append(chunks)
        self._sink.appended.pass_through()

    def sync(self, upto: int | None = None) -> int:
        self._sink.syncing.pass_through()
        self._sink.syncs += 1
        if self._sink.sync_error is not None:
            raise self._sink.sync_error
        return self._file.sync(upto) - self._sink.left_out

    def discard(self, end: int) -> None:
        self._sink.discarded.append(end)
        self._file.discard(end)

    def close(self) -> None:
        self._file.close()


class GatedSink(DiskSink):
    """The real disk, with gates before its slow calls and a sync that can be made to fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.opening, self.appending, self.appended, self.syncing, self.reading = (Gate() for _ in range(5))
        self.putting = Gate()
        self.put_error: SinkError | None = None
        self.append_error: SinkError | None = None
        self.sync_error: SinkError | None = None
        # How many of the bytes that were appended a sync leaves out.
        self.left_out = 0
        self.bytes_read = 0
        self.syncs = 0
        # Where files were cut by streams whose bytes were refused.
        self.discarded: list[int] = []

    def open(self, file_id: str, runs: Sequence[Run], size_bytes: int, offset: int) -> SinkFile:
        self.opening.pass_through()
        return GatedFile(super().open(file_id, runs, size_bytes, offset), self)

    def put(self, file_id: str, data: Chunk) -> None:
        self.putting.pass_through()
        if self.put_error is not None:
            raise self.put_error
        super().put(file_id, data)

    def read(
        self, file_id: str, runs: Sequence[Run], end: int, chunk_bytes: int, start: int = 0
    ) -> Generator[bytes, None, None]:
        self.reading.pass_through()
        self.bytes_read += end - start
        return super().read(file_id, runs, end, chunk_bytes, start)

    def file_ids(self) -> list[str]:
        """Of which files something lies there."""
        return [one.file_id for one in self.stored()]

    def fences(self, file_id: str) -> list[int]:
        return sorted(fence for one in self.stored() if one.file_id == file_id for fence in one.fences)

    def bytes_of(self, file_id: str) -> int:
        """What lies there of a file, under whichever name."""
        return self.size_under(file_id, self.fences(file_id))

    def content(self, file_id: str) -> bytes:
        """What lies there in its newest run."""
        fence = self.fences(file_id)[-1]
        return (self.root / file_id[:2] / (f"{file_id}.{fence}" if fence else file_id)).read_bytes()

    def remove(self, file_id: str) -> None:
        self.delete_all([Doomed(file_id, tuple(self.fences(file_id)))])


class GatedStore(StoreAround):
    """The real store; claims, completions and cancels can be held up after their commit, and progress made to fail."""

    hold_claim: asyncio.Event | None = None
    hold_complete: asyncio.Event | None = None
    hold_cancel: asyncio.Event | None = None
    hold_record: asyncio.Event | None = None
    progress_error: Exception | None = None
    # How far the rows were asked to count, in order.
    records: list[int]
    claimed: asyncio.Event
    completed: asyncio.Event
    cancelled: asyncio.Event
    settled: asyncio.Event

    # Seconds that a test has the time served ahead.
    ahead: float = 0.0

    @property
    def served(self) -> float:
        return self.real.served + self.ahead

    async def settle_deletions(self, rows: Sequence[int], left_over: Sequence[int] = ()) -> None:
        await self.real.settle_deletions(rows, left_over)
        if rows or left_over:
            self.settled.set()

    async def claim(self, file_id: str, offset: int, command: Command, continues: int | None = None) -> Result[Claim]:
        result = await self.real.claim(file_id, offset, command, continues)
        if self.hold_claim is not None:
            self.claimed.set()
            await self.hold_claim.wait()
        return result

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
        if self.hold_complete is not None:
            self.completed.set()
            await self.hold_complete.wait()
        return await self.real.complete(file_id, fence, sha256, bytes_received, command, leaves_bytes=leaves_bytes)

    async def cancel_file(
        self, file_id: str, command: Command, fence: int | None = None, heard: Heard | None = None
    ) -> Result[CancelledFile]:
        outcomes: list[object] = []
        result = await self.real.cancel_file(file_id, command, fence, outcomes.append)
        if self.hold_cancel is not None:
            self.cancelled.set()
            await self.hold_cancel.wait()
        if heard is not None:
            heard(*outcomes)
        return result

    async def record_progress(
        self, file_id: str, fence: int, bytes_received: int, at: datetime, writer: str = ""
    ) -> bool:
        self.records.append(bytes_received)
        if self.hold_record is not None:
            await self.hold_record.wait()
        if self.progress_error is not None:
            raise self.progress_error
        return await self.real.record_progress(file_id, fence, bytes_received, at, writer)


@dataclass
class Observed(Observer):
    """What the observer heard."""

    opened: int = 0
    closed: int = 0
    taken: int = 0
    freed: int = 0
    orphans: int = 0
    stops: list[float] = field(default_factory=list)
    on_freed: Callable[[], None] = lambda: None
    took: asyncio.Event = field(default_factory=asyncio.Event)

    def upload_opened(self) -> None:
        self.opened += 1

    def upload_closed(self) -> None:
        self.closed += 1

    def bytes_taken(self, count: int) -> None:
        self.taken += count
        self.took.set()

    def stream_stopped(self, seconds: float) -> None:
        self.stops.append(seconds)

    def orphans_counted(self, count: int) -> None:
        self.orphans = count

    def bytes_reclaimed(self, count: int) -> None:
        self.freed += count
        self.on_freed()


class World:
    """One node: store, sink, ingest. ``later`` moves its clocks."""

    def __init__(self, store: GatedStore, sink: GatedSink, limits: Limits) -> None:
        self.store = store
        self.sink = sink
        self.observed = Observed()
        self.progress: list[tuple[str, int]] = []
        self.changes: list[Audited] = []
        # The janitor that is nudged, if there is one.
        self.janitor: Janitor | None = None
        store.on_commit(self._on_commit)
        self._ahead = timedelta()
        self._limits = limits
        self.ingest = self._new_ingest()

    def _new_ingest(self) -> Ingest:
        return Ingest(
            self.store,
            self.sink,
            clock=self.now,
            limits=self._limits,
            threads=Threads(4, 4),
            on_progress=lambda file_id, _batch_id, _owner, durable: self.progress.append((file_id, durable)),
            observer=self.observed,
        )

    async def restart(self) -> None:
        """Forget all that is in memory, as a start does, but for the store."""
        await self.ingest.aclose()
        self.ingest = self._new_ingest()

    def _on_commit(self, commits: Sequence[Commit]) -> None:
        self.changes += [commit.audited for commit in commits]
        if self.janitor is not None:
            self.janitor.nudge_if_owed(commits)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def later(self, seconds: float) -> None:
        """Serve so long."""
        self.step(seconds)
        self.store.ahead += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock."""
        self._ahead += timedelta(seconds=seconds)

    def command(self, method: str = "Test", request_id: str = "") -> Command:
        return Command(CALLER, method, self.now(), "because", request_id, b"same")

    async def initiate(self, size: int, sha256: str = "") -> str:
        spec = FileSpec("a.bin", size, "", sha256)
        result = await self.store.initiate_upload(spec, str(uuid.uuid4()), self.command())
        return result.answer.file_id

    async def initiate_batch(self, sizes: Sequence[int]) -> tuple[str, tuple[str, ...]]:
        specs = [FileSpec(f"{number}.bin", size) for number, size in enumerate(sizes)]
        ids = [str(uuid.uuid4()) for _ in sizes]
        result = await self.store.initiate_batch(specs, str(uuid.uuid4()), ids, self.command())
        return result.answer[0].batch_id, result.answer[1]

    async def open(self, file_id: str, offset: int = 0) -> Upload:
        return await self.ingest.open(file_id, offset, CALLER)

    async def send_new(self, data: bytes, sha256: str = "") -> tuple[str, Upload]:
        """Announce a file and send all of it, without a commit; returns its id and its open upload."""
        file_id = await self.initiate(len(data), sha256)
        upload = await self.open(file_id)
        await send(upload, data)
        return file_id, upload

    async def row(self, file_id: str) -> File:
        return await self.store.get_file(file_id)

    async def cancel(self, file_id: str, *, tell: bool = True) -> None:
        """As the service does it: first the store, then the stream."""
        result = await self.store.cancel_file(file_id, self.command("CancelFile"))
        if tell:
            self.ingest.stop(result.audited.events[0])

    async def owed_deletions(self) -> Sequence[OwedDeletion]:
        return await self.store.owed_deletions(1000)


async def stopped(upload: Upload) -> Stopped:
    """Wait until somebody stops the stream; returns the cause."""
    while upload.ending.cause is None:
        await upload.ending.change()
    return upload.ending.cause


async def send(upload: Upload, data: bytes, chunk: int = 64 * KIB) -> None:
    for start in range(0, len(data), chunk):
        await upload.write(data[start : start + chunk])


@asynccontextmanager
async def open_world(folder: Path, limits: Limits | None = None) -> AsyncIterator[World]:
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    opened = await GatedStore.open(url_in(folder))
    opened.claimed, opened.completed = asyncio.Event(), asyncio.Event()
    opened.cancelled, opened.settled = asyncio.Event(), asyncio.Event()
    opened.records = []
    world = World(opened, GatedSink(folder / "bytes"), limits or Limits())
    try:
        yield world
    finally:
        await world.ingest.aclose()
        await opened.close()


async def completed(world: World, data: bytes = b"keep me") -> str:
    file_id, upload = await world.send_new(data)
    await upload.commit("", CALLER)
    await upload.close()
    return file_id


def janitor_of(
    world: World,
    ingest: Ingest | None = None,
    *,
    interval: float = HOUR,
    expiry_grace: float = 0.0,
    sweep_interval: float = HOUR,
) -> Janitor:
    return Janitor(
        world.store,
        world.sink,
        ingest or world.ingest,
        clock=world.now,
        upload_ttl=DAY,
        request_ttl=7 * DAY,
        expiry_grace=expiry_grace,
        interval=interval,
        sweep_interval=sweep_interval,
        observer=world.observed,
    )
