"""Decides how nodes tell each other that there is something to look at: by NOTIFY, outside of every transaction.

Must not know what there is. A notification may be lost: nothing but a look follows it, and looks are taken without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from upload_server.store.postgresql.connection import PostgresqlConnection
from upload_server.store.sql.connection import said
from upload_server.store.sql.dialect import Sql

_log = logging.getLogger(__name__)

_LISTEN: Final = Sql("LISTEN upload")
_NOTIFY: Final = Sql("NOTIFY upload")
# Commits of so long ring once.
_TOGETHER_SECONDS: Final = 0.003
# So often a bell rings at itself too: one that has not heard that for twice as long is deaf, and listens anew.
_TRY_SECONDS: Final = 5.0
# Between two tries to reach a database that is away.
_AWAY_SECONDS: Final = 1.0


class PostgresqlBell:
    """The bell of one node, made on its event loop: two threads, each with a connection of its own."""

    def __init__(self, connect: Callable[[], PostgresqlConnection], rung: Callable[[], None]) -> None:
        """``rung`` is called on the event loop when a node has rung; it must not block or raise."""
        self._connect = connect
        self._rung = rung
        self._loop = asyncio.get_running_loop()
        self._wanted = threading.Event()
        self._closed = False
        self._threads = [
            threading.Thread(target=work, name="store-bell", daemon=True) for work in (self._ringing, self._listening)
        ]
        for thread in self._threads:
            thread.start()

    def ring(self, _: Sequence[str]) -> None:
        """Ring at all nodes; never waits or raises."""
        self._wanted.set()

    def close(self) -> None:
        """Fall silent, soon. Safe to call twice."""
        self._closed = True
        self._wanted.set()

    def _ringing(self) -> None:
        def begin(connection: PostgresqlConnection) -> None:
            connection.execute(_NOTIFY)

        def ring(connection: PostgresqlConnection) -> None:
            self._wanted.wait(_TRY_SECONDS)
            time.sleep(_TOGETHER_SECONDS)
            self._wanted.clear()
            connection.execute(_NOTIFY)

        self._again_and_again(begin, ring)

    def _listening(self) -> None:
        heard_at = time.monotonic()

        def begin(connection: PostgresqlConnection) -> None:
            nonlocal heard_at
            connection.execute(_LISTEN)
            heard_at = time.monotonic()

        def listen(connection: PostgresqlConnection) -> None:
            nonlocal heard_at
            if connection.wait_notified(_AWAY_SECONDS):
                heard_at = time.monotonic()
                with contextlib.suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(self._rung)
            elif time.monotonic() - heard_at > 2 * _TRY_SECONDS:
                raise TimeoutError("nothing is heard")

        self._again_and_again(begin, listen)

    def _again_and_again(
        self, begin: Callable[[PostgresqlConnection], None], work: Callable[[PostgresqlConnection], None]
    ) -> None:
        while not self._closed:
            try:
                with contextlib.closing(self._connect()) as connection:
                    begin(connection)
                    while not self._closed:
                        work(connection)
            except (*PostgresqlConnection.errors, OSError) as error:
                _log.info("the bell is silent for a while: %s", said(error))
                time.sleep(_AWAY_SECONDS)
