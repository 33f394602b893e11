"""Decides what can be done with a PostgreSQL database by its URL, whether a store is there yet or not.

Must not know how a URL is told from another store's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from upload_server.domain.errors import CannotStart
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address, PostgresqlConnection, connect
from upload_server.store.postgresql.filling import PostgresqlFilling
from upload_server.store.postgresql.inspecting import PostgresqlInspection
from upload_server.store.postgresql.lock import SessionLock, holder_of
from upload_server.store.postgresql.mending import PostgresqlMending
from upload_server.store.postgresql.schema import as_unusable, has_table, migrate
from upload_server.store.postgresql.store import open_postgresql
from upload_server.store.sql.store import SqlStore

T = TypeVar("T")


class PostgresqlAt:
    """A database where a store lies or will lie."""

    def __init__(self, url: str) -> None:
        """Read the URL; raises ValueError."""
        self._address = Address(url)
        # That holds the lock of this process: what changes a stopped store goes through it.
        self._session: PostgresqlConnection | None = None

    def __str__(self) -> str:
        """The database without its password, for messages."""
        return str(self._address)

    @property
    def exists(self) -> bool:
        """Whether there is one; raises ``UnusableDatabase`` when that cannot be found out."""
        return self._ask(lambda connection: has_table(connection, "store_info"))

    @property
    def folder(self) -> Path | None:
        """None: it lies on its server."""
        return None

    async def open(self, options: StoreOptions | None = None) -> SqlStore:
        """Check, lock and open the store."""
        return await open_postgresql(self._address, options or StoreOptions())

    async def migrate(self, target: str | None = None) -> Sequence[str]:
        """Apply the steps of the schema that it lacks."""
        return await asyncio.to_thread(self._migrate, target)

    def _migrate(self, target: str | None) -> Sequence[str]:
        with as_unusable(self._address):
            return migrate(self._address, target)

    def lock(self) -> SessionLock:
        """Take it for this process."""
        with as_unusable(self._address):
            held = SessionLock(connect(self._address, StoreOptions(), writes=True, bounded=False), self._address)
        self._session = held.connection
        return held

    def share(self) -> None:
        """Do nothing: any number of nodes may be on it."""

    def holder(self) -> str:
        """Return the pid of the server that runs on it."""
        return self._ask(holder_of)

    def inspect(self) -> PostgresqlInspection:
        """Open it for looking."""
        return PostgresqlInspection(self._address)

    def copy_to(self, path: Path) -> NoReturn:
        """Refuse: PostgreSQL has better ways."""
        raise CannotStart(
            f"PostgreSQL is not copied into {path.parent}: back it up by pg_dump or a base backup, then the bytes;"
            " docs/operations.md, Backup and restore, says how"
        )

    def mend(self) -> PostgresqlMending:
        """Mend it, by the session that has locked it."""
        return PostgresqlMending(self._locking())

    def fill(self) -> PostgresqlFilling:
        """Fill it with another store's rows, by the session that has locked it."""
        return PostgresqlFilling(self._locking())

    def _locking(self) -> PostgresqlConnection:
        if self._session is None:
            raise RuntimeError("nobody has locked it")
        return self._session

    def _ask(self, question: Callable[[PostgresqlConnection], T]) -> T:
        with as_unusable(self._address), contextlib.closing(self._connect()) as connection:
            return question(connection)

    def _connect(self) -> PostgresqlConnection:
        return connect(self._address, StoreOptions(), writes=False)
