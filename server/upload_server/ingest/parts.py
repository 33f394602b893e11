"""Decides what all streams of one ingest share: limits, threads, tasks, memory, and whose bytes wait for a cancel.

Must not know what a stream does with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar, TypeVarTuple

from upload_server.domain.observer import Observer
from upload_server.domain.states import File
from upload_server.sink.protocol import Chunk, Sink
from upload_server.store.protocol import Store

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

KIB = 1024
MIB = 1024 * KIB
# A message of a usual size, for which a stream waits when memory is short.
_READ_BYTES = 256 * KIB
# Buffers that are kept for the next piece.
_MOST_KEPT = 16
# Opening and syncing wait for the disk more than they work.
_WAITERS = 8
# Of downloads, however many there are: they mostly wait for whoever takes the bytes.
_READERS = 4
# Where a sync goes over the network, and waits there while the store is away.
_PUTTERS = 64
# Still a third of an ordinary thread's share: one that stands further back would hold up whoever waits for what it has.
_NICE = 5
_LEAST = 19


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of every stream. Sizes are bytes, times are seconds."""

    # Files that streams may have open at once, over all doors: each takes a descriptor.
    open_files: int = 4096
    # Received bytes become durable after so many of them, or so long after the first of them.
    sync_bytes: int = 8 * MIB
    sync_seconds: float = 1.0
    # A stream may hold this much before `write` waits; from half of the total on each waits for its own writes.
    buffer_bytes: int = 4 * MIB
    total_buffer_bytes: int = 32 * MIB
    # About as much is written, or hashed, by one hop to a thread.
    hop_bytes: int = 1 * MIB
    # Likewise of a source, and so much of it may wait to be hashed.
    draw_bytes: int = 4 * MIB
    # Written at once, or a single message that is larger: what a cancelled stream can at most still write.
    piece_bytes: int = 256 * KIB
    # Bytes are hashed from memory where the digest lags by no more than this, else they are read back from the disk.
    lag_bytes: int = 8 * MIB
    # How long `close` waits for the last sync, and a take-over for the old stream's disk work.
    close_seconds: float = 5.0
    takeover_seconds: float = 10.0
    # Threads that wait for the sink.
    waiters: int = _WAITERS

    def of_one_in(self, processes: int) -> Limits:
        """Return the bounds of one in so many processes, which share the memory."""
        return replace(self, total_buffer_bytes=self.total_buffer_bytes // processes)

    def buffered(self) -> Limits:
        """Return the bounds for a sink that keeps bytes in memory until they are synced, a large piece at a time."""
        return replace(
            self,
            buffer_bytes=max(self.buffer_bytes, 3 * self.sync_bytes),
            total_buffer_bytes=16 * self.total_buffer_bytes,
            waiters=_PUTTERS,
        )


class Threads:
    """The threads of one ingest. ``workers`` write and hash, no more than there are cores; ``waiters`` wait.

    ``readers`` read what others want to have, so that no upload waits behind a slow download.
    """

    def __init__(self, workers: int | None = None, waiters: int = _WAITERS) -> None:
        cores = max(2, os.cpu_count() or 1)
        self.workers = ThreadPoolExecutor(workers or cores, "ingest", initializer=_stand_back)
        self.waiters = ThreadPoolExecutor(waiters, "ingest-disk", initializer=_stand_back)
        self.readers = ThreadPoolExecutor(_READERS, "content", initializer=_stand_back)

    def shutdown(self, *, wait: bool) -> None:
        """Start nothing more; ``wait`` for what runs."""
        for pool in (self.workers, self.waiters, self.readers):
            pool.shutdown(wait=wait, cancel_futures=True)


def _stand_back() -> None:
    """Have this thread take the core from no other when it wakes, and then a smaller share (Linux).

    With eight uploads at full speed on two cores the event loop waited for its core more than it ran.
    """
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, min(_LEAST, os.getpriority(os.PRIO_PROCESS, own) + _NICE))


class Tasks:
    """Tasks that outlive the handlers that started them. Like a TaskGroup, but one that fails stops no other."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task and keep it until it has ended."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def shielded(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Start a task that goes on when its caller leaves; its error is nobody's then."""
        task = self.spawn(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return asyncio.shield(task)

    async def join(self, seconds: float) -> int:
        """Wait until none is left, at most so long; returns how many are."""
        try:
            async with asyncio.timeout(seconds):
                while self._running:
                    await asyncio.wait(self._running)
        except TimeoutError:
            pass
        return len(self._running)


class _Buffer(bytearray):
    """One of `Buffers`."""


class Buffers:
    """Memory for pieces that threads read, used again: the kernel has to clear what is new, page by page."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: deque[_Buffer] = deque(maxlen=_MOST_KEPT)

    def take(self) -> bytearray:
        """Return a buffer that nobody else has; any thread may ask."""
        try:
            return self._free.pop()
        except IndexError:
            return _Buffer(self._size)

    def give_back(self, chunk: Chunk) -> None:
        """Take back the buffer that ``chunk`` is a view of; any other chunk is nothing to it."""
        if isinstance(chunk, memoryview) and isinstance(chunk.obj, _Buffer):
            self._free.append(chunk.obj)


class Memory:
    """What all streams of one ingest hold in memory, counted in bytes, so that together they keep within a bound."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def hold(self, count: int) -> None:
        """Count bytes in; negative: out."""
        self._held += count
        # As many are let on as there is room for: all at once would fill it many times over.
        room = (self._limit // 2 - self._held) // _READ_BYTES
        if self._held <= 0:
            # Nothing is left whose end could let on the rest.
            room = len(self._waiting)
        while self._waiting and room > 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    def is_full(self) -> bool:
        """Whether nothing more may be taken."""
        return self._held > self._limit

    def is_crowded(self) -> bool:
        """Whether nobody should read ahead, and each stream has to wait for its own writes."""
        return self._held * 2 > self._limit

    async def uncrowded(self) -> None:
        """Wait until there is room for another message."""
        if self.is_crowded():
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter


class Holds:
    """Files and batches whose cancel is being decided: meanwhile no further byte of theirs reaches the disk.

    Without it bytes would be written after the commit: its news takes time to reach a busy thread. Lives on the event
    loop; threads may ask ``covers``.
    """

    def __init__(self) -> None:
        # By identifier: how many holds there are by whose rows their callers see.
        self._held: dict[str, dict[str | None, int]] = {}
        self._waiting: set[Callable[[], None]] = set()

    def hold(self, identifier: str, sees: str | None) -> None:
        """Hold a file, or the files of a batch, until ``release``; two may hold the same at once.

        A caller that does not see the owner's files (``sees``) holds nothing: else anybody could slow an upload by
        cancels that come to nothing.
        """
        held = self._held.setdefault(identifier, {})
        held[sees] = held.get(sees, 0) + 1

    def release(self, identifier: str, sees: str | None) -> None:
        """End one hold."""
        held = self._held[identifier]
        held[sees] -= 1
        if not held[sees]:
            del held[sees]
            if not held:
                del self._held[identifier]
        waiting, self._waiting = self._waiting, set()
        for listener in waiting:
            listener()

    def covers(self, file: File) -> bool:
        """Whether the bytes of ``file`` have to wait."""
        if not self._held:
            return False
        every = (self._held.get(identifier, ()) for identifier in (file.file_id, file.batch_id))
        return any(sees in held for held in every for sees in (None, file.owner))

    def on_change(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called once, when the next hold ends; it then asks again."""
        self._waiting.add(listener)


@dataclass(slots=True)
class Parts:
    """What every stream of one ingest uses."""

    store: Store
    sink: Sink
    clock: Callable[[], datetime]
    threads: Threads
    limits: Limits
    observer: Observer
    # file_id, batch_id, owner, durable bytes.
    on_progress: Callable[[str, str, str, int], None]
    tasks: Tasks
    memory: Memory
    buffers: Buffers
    holds: Holds

    def hop(self, work: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run ``work`` that computes on a thread. Only from tasks of ours: a cancelled hop goes on unseen."""
        return asyncio.get_running_loop().run_in_executor(self.threads.workers, work, *args)

    def wait(self, work: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run ``work`` that waits for the disk on a thread; otherwise as ``hop``."""
        return asyncio.get_running_loop().run_in_executor(self.threads.waiters, work, *args)
