"""Several servers on one database and one folder, on free ports, each stopped, frozen, killed and cut off by itself.

Every call blocks, and is usable from any kind of test; a server's way to the database may lead through a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from support import object_store, postgres
from support.ports import free_port
from support.process import ServerProcess
from support.proxy import Direction, FaultProxy, fault_proxy

T = TypeVar("T")
# How a server is started, with its data directory, its options and its environment.
Start = Callable[..., ServerProcess]

# A kernel gives up a connection on which nothing is acknowledged, as the driver's settings have it.
_GIVEN_UP_SECONDS = 6.0


class Lines:
    """The ways of servers to the database, carried by a loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines", daemon=True)
        self._thread.start()
        self._stack = contextlib.AsyncExitStack()

    def open(self, backend: Path | int) -> FaultProxy:
        """Open a way to a socket, or to a port of loopback."""
        return self.run(self._stack.enter_async_context(fault_proxy(backend)))

    def cut(self, proxy: FaultProxy, directions: Sequence[Direction]) -> None:
        """Let nothing pass in these directions; the client's kernel gives up what is open after a while."""

        async def cut() -> None:
            for direction in directions:
                direction.held = True
            links = list(proxy.links)
            self._loop.call_later(_GIVEN_UP_SECONDS, give_up, links)

        def give_up(links: Sequence[Any]) -> None:
            for link in links:
                if any(direction.held for direction in directions) and link in proxy.links:
                    link.lose_client()

        self.run(cut())

    def heal(self, proxy: FaultProxy) -> None:
        """Let everything pass again."""
        self._loop.call_soon_threadsafe(proxy.heal)

    def call(self, work: Callable[[], object]) -> None:
        """Have something done on the loop, soon."""
        self._loop.call_soon_threadsafe(work)

    async def busy(self) -> int:
        """Open a port where whoever asks anything by HTTP is told to slow down."""
        body = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        head = f"HTTP/1.1 503 Slow Down\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head.encode() + body)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        self._stack.push_async_callback(server.wait_closed)
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the loop, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        """Close all ways."""
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Node:
    """One server of a cluster, on the same ports whenever it is started."""

    def __init__(self, cluster: Cluster, number: int, line: FaultProxy | None) -> None:
        self.number = number
        self.grpc_port, self.http_port = free_port(), free_port()
        self._cluster = cluster
        self._line = line
        self.data_dir = cluster.folder / f"node{number}"
        self.data_dir.mkdir(mode=0o700)
        (self.data_dir / "bytes").symlink_to(cluster.storage, target_is_directory=True)
        # Its processes, one after the other; the last one may run.
        self.processes: list[ServerProcess] = []
        # The program that it is started from, where that is not this one.
        self.program: Path | None = None

    @property
    def server(self) -> ServerProcess:
        """The process that was started last."""
        return self.processes[-1]

    @property
    def running(self) -> bool:
        """Whether a process is there, frozen or not."""
        return bool(self.processes) and self.server.popen.poll() is None

    def start(self) -> None:
        """Start it."""
        url = self._cluster.url
        if self._line is not None:
            url = f"postgresql://{self._cluster.user}@127.0.0.1:{self._line.port}/{self._cluster.database}"
        words = ["--grpc-port", str(self.grpc_port), "--http-port", str(self.http_port), "--database-url", url]
        words += self._cluster.options
        place = ({"PYTHONPATH": str(self.program)},) if self.program else ()
        self.processes.append(self._cluster.start_server(self.data_dir, words, *place))

    def terminate(self) -> int:
        """SIGTERM, and wait; returns the exit code."""
        self.thaw()
        return self.server.terminate()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self.processes:
            self.server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.server.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        if self.running:
            self.server.popen.send_signal(signal.SIGCONT)

    def cut_off(self, *, up: bool = True, down: bool = True) -> None:
        """Let nothing pass to the database (``up``), or from it; what is open breaks after a while, as at a kernel."""
        assert self._line is not None, "a cluster that can be cut"
        directions = [each for each, wanted in ((self._line.up, up), (self._line.down, down)) if wanted]
        self._cluster.lines.cut(self._line, directions)

    def heal(self) -> None:
        """Let everything pass again."""
        if self._line is not None:
            self._cluster.lines.heal(self._line)


class Cluster:
    """``with`` it: servers on one database of the tests' PostgreSQL server, and one folder."""

    def __init__(
        self,
        folder: Path,
        count: int = 3,
        options: Sequence[str] = (),
        *,
        cuttable: bool = False,
        start: Start = ServerProcess,
        bucket: object_store.Bucket | None = None,
    ) -> None:
        """Begin with no server running. ``cuttable``: each has a way of its own to the database, through a proxy.

        With a ``bucket`` the bytes lie in an object store, to which one way leads for all.
        """
        self.postgres = postgres.server()
        self.url = self.postgres.new_store()
        user, _, rest = self.url.removeprefix("postgresql://").partition("@/")
        self.user, self.database = user, rest.partition("?")[0]
        self.folder, self.storage = folder, folder / "storage"
        self.storage.mkdir(mode=0o700, parents=True)
        self.options, self.start_server = options, start
        self.lines = Lines()
        self.bucket = bucket
        if bucket is not None:
            self.store_line = self.lines.open(bucket.store.port)
            self.options = (*options, "--storage-url", bucket.url(endpoint=self.store_line.url))
        self.nodes = [
            Node(self, number, self.lines.open(self.postgres.socket) if cuttable else None) for number in range(count)
        ]

    def start(self) -> None:
        """Start all servers, side by side."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(Node.start, self.nodes))

    def restart_database(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the database at once, as a crash would, and start it again."""
        self.postgres.end(how)
        self.postgres.start()

    def lose_store(self) -> None:
        """Have the object store be away: connections to it are reset, those to come too."""
        self.store_line.away = True
        self.lines.call(self.store_line.reset_all)

    def have_store_refuse(self) -> None:
        """Have somebody else answer for the object store, that it is too busy."""
        self.store_line.backend = self.lines.run(self.lines.busy())
        self.lines.call(self.store_line.reset_all)

    def heal_store(self) -> None:
        """Have the object store, and the way to it, as they were."""
        assert self.bucket is not None
        self.store_line.backend = self.bucket.store.port
        self.store_line.away = False
        self.lines.heal(self.store_line)
        self.lines.call(self.store_line.reset_all)

    def fail_over(self) -> None:
        """Have a standby take the database over, and start all servers anew: none goes on with another history."""
        self.postgres.fail_over()
        for node in self.nodes:
            node.kill()
        self.start()

    def sessions(self) -> list[int]:
        """Return the database's processes that serve these servers, the oldest first."""
        return self.postgres.backends(self.database)

    def close(self) -> None:
        """Kill what runs."""
        for node in self.nodes:
            node.kill()
        self.lines.close()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
