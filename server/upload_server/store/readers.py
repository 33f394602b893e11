"""Decides how reads run beside the writer: on a few threads, each with a connection of its own.

Must not know what is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, TypeVar

from upload_server.domain.errors import DatabaseFailure, Overloaded, ShuttingDown
from upload_server.store.options import StoreOptions

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Connection(Protocol):
    """What readers need of a dialect's connection."""

    def execute(self, sql: str, /) -> int:
        """Run a statement."""

    def close(self) -> None:
        """Close it."""


C = TypeVar("C", bound=Connection)


class Readers(Generic[C]):
    """A bounded pool of reading threads; called and closed on the event loop.

    ``begin`` opens a snapshot for all statements of a read; ``errors`` are those of the database.
    """

    def __init__(
        self, connect: Callable[[], C], options: StoreOptions, errors: tuple[type[Exception], ...], begin: str
    ) -> None:
        self._connect = connect
        self._errors = errors
        self._begin = begin
        self._options = options
        self._threads = ThreadPoolExecutor(options.readers, thread_name_prefix="store-reader")
        # As many as threads; None stands for one that is to be opened. The last used is taken first: its cache is warm.
        self._connections: queue.LifoQueue[C | None] = queue.LifoQueue()
        for _ in range(options.readers):
            self._connections.put(None)
        self._waiting = 0
        self._closed = False

    async def run(self, read: Callable[[C], T]) -> T:
        """Run ``read`` in one snapshot; raises what it raises, ``DatabaseFailure`` or ``Overloaded``."""
        if self._closed:
            raise ShuttingDown
        if self._waiting >= self._options.queued_reads:
            raise Overloaded("Too many reads are waiting", self._options.retry_after_seconds)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, read)
        finally:
            self._waiting -= 1

    def _read(self, read: Callable[[C], T]) -> T:
        connection = self._connections.get()
        try:
            connection = self._begun(connection)
            try:
                return read(connection)
            finally:
                connection.execute("COMMIT")
        except self._errors as error:
            _log.warning("a read failed, so its connection is opened anew: %s", error)
            if connection is not None:
                with contextlib.suppress(*self._errors):
                    connection.close()
                connection = None
            raise DatabaseFailure from error
        finally:
            self._connections.put(connection)

    def _begun(self, connection: C | None) -> C:
        """Open a snapshot; a connection that was lost while it rested is opened anew for it."""
        if connection is not None:
            try:
                connection.execute(self._begin)
            except self._errors as error:
                _log.warning("no read can be begun, so its connection is opened anew: %s", error)
                with contextlib.suppress(*self._errors):
                    connection.close()
            else:
                return connection
        connection = self._connect()
        try:
            connection.execute(self._begin)
        except self._errors:
            connection.close()
            raise
        return connection

    async def close(self) -> None:
        """Let running reads end and close every connection. Safe to call twice."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        while not self._connections.empty():
            connection = self._connections.get()
            if connection is not None:
                connection.close()
