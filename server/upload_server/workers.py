"""Decides how several processes serve as one: the parent holds the folder and the ports, starts workers, and a dead one
anew; it drains all of them.

Must not know what a worker does. Each is a program of its own, started by exec, and a node of the same store. It dies
with the parent, and while one lives the folder is nobody else's: it has inherited the locks.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog
from prometheus_client.multiprocess import mark_process_dead

from upload_server.config import Config
from upload_server.domain.errors import CannotStart
from upload_server.process.metrics import Workers as CountingWorkers
from upload_server.process.ports import reserve
from upload_server.start import share

log = structlog.get_logger(__name__)

# More deaths within the time than this mean that no new worker will do better.
_DEATHS = 5
_WITHIN_SECONDS = 60.0
_SET_DEATH_SIGNAL = 1
# Where the library looks for the folder that all processes count into; it asks when it is imported.
_COUNT_INTO = "PROMETHEUS_MULTIPROC_DIR"
# In memory: a file there that its disk has no room for would end whoever writes to it.
_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it has a name that nobody knows before
_FOLDER = "upload-server-"


class WorkersFailed(CannotStart):
    """A worker could not start, or workers end again and again; the log has what they said."""


async def serve_by_workers(
    config: Config,
    options: Mapping[str, str],
    stop: asyncio.Event,
    started: Callable[[int, int], None],
    take_turns: Callable[[int], None],
) -> None:
    """Serve by ``config.workers`` processes with these ``options`` until ``stop`` is set, and drain.

    ``started`` hears the gRPC and the HTTP port once all of them serve, ``take_turns`` a descriptor that all of them
    have. Raises what a user can mend.
    """
    with contextlib.ExitStack() as held:
        locks = await asyncio.to_thread(share, config)
        for lock in locks:
            held.callback(lock.release)
        take_turns(locks[0].fileno())
        sockets = [
            held.enter_context(reserve(config.host, port, option))
            for port, option in ((config.grpc_port, "--grpc-port"), (config.http_port, "--http-port"))
        ]
        if config.grpc_mtls_port:
            held.enter_context(reserve(config.host, config.grpc_mtls_port, "--grpc-mtls-port"))
        ports: list[int] = [sock.getsockname()[1] for sock in sockets]
        words = [f"--{name.replace('_', '-')}={text}" for name, text in options.items()]
        words += [f"--grpc-port={ports[0]}", f"--http-port={ports[1]}"]
        descriptors = [lock.fileno() for lock in locks]
        workers = _Workers(words, descriptors, held.enter_context(_counters()), stop)
        if config.tls is not None or config.tokens_file:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, workers.tell_all, signal.SIGHUP)
        await workers.run(config.workers, lambda: started(*ports))


@contextlib.contextmanager
def _counters() -> Iterator[Path]:
    """Make the folder that workers count into, and remove it with what dead ones have counted.

    Its lock says that its parent lives: what parents that were killed have left is removed.
    """
    place = Path(_MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir())
    for left in place.glob(f"{_FOLDER}*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER, dir=place))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; raises OSError if another process does."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


class _Workers:
    def __init__(self, words: Sequence[str], locks: Sequence[int], counters: Path, stop: asyncio.Event) -> None:
        self._words = words
        self._locks = locks
        self._counters = counters
        self._running: set[Process] = set()
        self._deaths: deque[float] = deque(maxlen=_DEATHS)
        self._stop = stop

    async def run(self, count: int, started: Callable[[], None]) -> None:
        """Keep ``count`` workers until told to stop, then wait for their end."""
        serving = [asyncio.Event() for _ in range(count)]
        try:
            async with asyncio.TaskGroup() as group:
                for event in serving:
                    group.create_task(self._keep(event))
                waiting = group.create_task(self._tell(serving, started))
                await self._stop.wait()
                waiting.cancel()
                self._drain()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            # Whatever happened: none outlives us.
            self._drain()
            await asyncio.gather(*(worker.wait() for worker in self._running))

    async def _tell(self, serving: Sequence[asyncio.Event], started: Callable[[], None]) -> None:
        for event in serving:
            await event.wait()
        started()

    def tell_all(self, number: signal.Signals) -> None:
        """Send a signal to each."""
        for worker in self._running:
            with contextlib.suppress(ProcessLookupError):
                worker.send_signal(number)

    def _drain(self) -> None:
        self.tell_all(signal.SIGTERM)

    async def _keep(self, serving: asyncio.Event) -> None:
        """Start a worker, and one anew that ends unasked, within the bound."""
        while not self._stop.is_set():
            worker, served = await self._start()
            if served:
                serving.set()
            code = await worker.wait()
            self._running.discard(worker)
            # Nothing counts as open in a process that has ended.
            mark_process_dead(worker.pid, str(self._counters))  # type: ignore[no-untyped-call]
            if self._stop.is_set():
                # One that had not yet begun to listen to signals ends by one; Ctrl-C reaches it too.
                if code not in (0, -signal.SIGTERM, -signal.SIGINT):
                    raise WorkersFailed(f"a worker ended with {code} while it drained")
                return
            if not served and (code >= 0 or not serving.is_set()):
                # Another try would end the same way.
                raise WorkersFailed("a worker could not start; it has said why")
            log.error("worker.ended", worker=worker.pid, code=code)
            self._count_death()

    def _count_death(self) -> None:
        now = time.monotonic()
        if len(self._deaths) == _DEATHS and now - self._deaths[0] < _WITHIN_SECONDS:
            raise WorkersFailed(f"{_DEATHS + 1} workers ended within {_WITHIN_SECONDS:.0f} s")
        self._deaths.append(now)

    async def _start(self) -> tuple[Process, bool]:
        """Start a worker; returns it, and whether it serves: else it has ended before."""
        heard, tells = os.pipe()
        try:
            worker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "upload_server", "worker", *self._words),
                *("--parent", str(os.getpid()), "--ready", str(tells), "--turns", str(self._locks[0])),
                env={**os.environ, _COUNT_INTO: str(self._counters)},
                pass_fds=(tells, *self._locks),
            )
        finally:
            os.close(tells)
        self._running.add(worker)
        # One byte when it serves, or the end of the pipe when it has ended before.
        served = bool(await asyncio.to_thread(_read_and_close, heard))
        if self._stop.is_set():
            self._drain()
        return worker, served


def _read_and_close(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1)
    finally:
        os.close(descriptor)


class Worker:
    """What a worker knows of its parent."""

    def __init__(self, parent: int, ready: int) -> None:
        """Tie this process's life to the parent's, and end it if that is over. ``ready``: what ``tell`` writes to."""
        self._ready = ready
        self._parent = parent
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    def tell(self) -> None:
        """Tell the parent that this worker serves."""
        os.write(self._ready, b"!")
        os.close(self._ready)

    def counting(self) -> CountingWorkers:
        """Return where all workers count, and who they are."""
        return CountingWorkers(os.environ[_COUNT_INTO], self._pids)

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self._parent}/task/{self._parent}/children")
        return [self._parent, *map(int, children.read_text().split())]
