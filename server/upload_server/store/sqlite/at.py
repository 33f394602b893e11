"""Decides what can be done with a SQLite file by its path, whether a store is there yet or not.

Must not know URLs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

from upload_server.domain.errors import CannotStart
from upload_server.process.files import refuse_strangers_link
from upload_server.process.room import used_up
from upload_server.store.lock import FileLock, holder_of, lock_database
from upload_server.store.options import StoreOptions
from upload_server.store.sql.store import SqlStore
from upload_server.store.sqlite.backing import copy_database
from upload_server.store.sqlite.ballast import Ballast
from upload_server.store.sqlite.connection import SqliteConnection
from upload_server.store.sqlite.filling import SqliteFilling
from upload_server.store.sqlite.inspecting import SqliteInspection
from upload_server.store.sqlite.mending import SqliteMending
from upload_server.store.sqlite.schema import as_unusable, prepare
from upload_server.store.sqlite.sharing import forget_nodes
from upload_server.store.sqlite.store import open_sqlite


class SqliteAt:
    """A path where a store lies or will lie."""

    def __init__(self, path: Path) -> None:
        # SQLite keeps its logs, and the service its lock, beside the file and not beside a link to it. A link of
        # another user stays what it is: `prepare` refuses it.
        with contextlib.suppress(OSError):
            refuse_strangers_link(path)
            path = path.resolve() if path.is_symlink() else path
        self._path = path

    def __str__(self) -> str:
        """The path, for messages."""
        return str(self._path)

    @property
    def exists(self) -> bool:
        """Whether there is a file."""
        return self._path.is_file()

    @property
    def folder(self) -> Path:
        """The folder that the file lies in."""
        return self._path.parent

    async def open(self, options: StoreOptions | None = None) -> SqlStore:
        """Lock, migrate and open the store."""
        return await open_sqlite(self._path, options or StoreOptions())

    async def migrate(self, target: str | None = None) -> Sequence[str]:
        """Apply the steps of the schema that it lacks."""
        return await asyncio.to_thread(self._migrate, target)

    def _migrate(self, target: str | None) -> Sequence[str]:
        with as_unusable(self._path):
            lock = self.lock()
            try:
                return prepare(self._path, target)
            finally:
                lock.release()

    def lock(self) -> FileLock:
        """Take it for this process."""
        return lock_database(self._path)

    def share(self) -> FileLock:
        """Take it for the nodes that are to be its, each with a process of its own: migrate it, and clear it of those
        that were."""
        lock = self.lock()
        try:
            with as_unusable(self._path):
                Ballast(self._path, 0).drop_if_full()
                prepare(self._path)
                forget_nodes(self._path)
        except BaseException:
            lock.release()
            raise
        return lock

    def holder(self) -> str:
        """Return the pid of the server that runs on it."""
        return holder_of(self._path)

    def inspect(self) -> SqliteInspection:
        """Open it for looking."""
        return SqliteInspection(self._path)

    def copy_to(self, path: Path) -> SqliteInspection:
        """Copy it by SQLite's own backup, beside a server that writes."""
        try:
            copy_database(self._path, path)
        except (*SqliteConnection.errors, OSError) as error:
            # Which of the two it is SQLite does not say: a full disk is the copy's.
            why = used_up(path.parent)
            raise CannotStart(f"{self._path} cannot be copied to {path}: {error}" + (why and f" ({why})")) from error
        return SqliteInspection(path)

    def mend(self) -> SqliteMending:
        """Open it for mending."""
        return SqliteMending(self._path)

    def fill(self) -> SqliteFilling:
        """Open it for another store's rows."""
        return SqliteFilling(self._path)
