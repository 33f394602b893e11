"""Decides which store a database URL means. A new store is one more branch in ``store_at``.

Must not know what a store does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from upload_server.domain.errors import CannotStart
from upload_server.store.inspection import Filling, Inspection, Mending
from upload_server.store.lock import FileLock
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store
from upload_server.store.sqlite.at import SqliteAt


class UnusableDatabaseUrl(CannotStart):
    """The URL names no database that this program can use; the message says why."""


class Lock(Protocol):
    """A store is this process's own, from when it was taken on."""

    def release(self) -> None:
        """Let the next one in. Safe to call twice."""


class StoreAt(Protocol):
    """Where a store lies or will lie. What opens it may raise CannotStart: ``AlreadyInUse``, ``UnusableDatabase``,
    ``SchemaTooNew`` and others, in words for an operator. A message names it by ``str()``."""

    @property
    def exists(self) -> bool:
        """Whether there is one."""

    @property
    def folder(self) -> Path | None:
        """The folder of this machine that it lies in, if it does in one."""

    async def open(self, options: StoreOptions | None = None) -> Store:
        """Open it in the running event loop; a file is created and migrated as needed, a server's database never."""

    async def migrate(self, target: str | None = None) -> Sequence[str]:
        """Apply the schema migrations that it lacks, up to ``target``; returns their names."""

    def lock(self) -> Lock:
        """Take it for this process."""

    def share(self) -> FileLock | None:
        """Take it for nodes of this machine, processes of their own that open it with ``StoreOptions(shared=True)``.

        On SQLite the lock lasts as long as any process that inherits its descriptor. None: it needs no lock.
        """

    def holder(self) -> str:
        """Return the pid of the server that runs on it, empty when none does; changes nothing."""

    def inspect(self) -> Inspection:
        """Open it for looking, while a server runs too; raises ``Damaged``. The caller closes it."""

    def copy_to(self, path: Path) -> Inspection:
        """Copy it, as it is at one moment, into a file of this machine, and open that for looking; anything that was
        there is replaced. Raises ``CannotStart`` where the database has ways of its own."""

    def mend(self) -> Mending:
        """Open it for mending while the caller holds its lock; raises ``Damaged``. The caller closes it."""

    def fill(self) -> Filling:
        """Open it for another store's rows, as ``mend`` does."""


def store_at(url: str) -> StoreAt:
    """Return what can be done with the store at ``url``; opens nothing. Raises ``UnusableDatabaseUrl``."""
    if url.startswith(("postgresql:", "postgres:")):
        return _postgresql_at(url)
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment:
        raise UnusableDatabaseUrl(
            "--database-url: a database URL looks like sqlite:///path/to/file.db or postgresql://host/name"
        )
    path = unquote(parts.path.removeprefix("/"))
    if not path or path == ":memory:":
        raise UnusableDatabaseUrl("--database-url: it names no file; what is kept in memory would be lost")
    return SqliteAt(Path(path))


def _postgresql_at(url: str) -> StoreAt:
    try:
        # Its driver is an extra, and nobody else has to wait for its import.
        from upload_server.store.postgresql.at import PostgresqlAt  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UnusableDatabaseUrl(
            "--database-url: PostgreSQL needs a driver; install the server with its extra `postgres`"
        ) from error
    try:
        return PostgresqlAt(url)
    except ValueError as error:
        raise UnusableDatabaseUrl(
            f"--database-url: a database URL looks like postgresql://user@host:5432/name: {error}"
        ) from None


async def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """Open the store at ``url`` as ``StoreAt.open`` does."""
    return await store_at(url).open(options)


async def migrate_store(url: str) -> Sequence[str]:
    """Migrate the store at ``url`` as ``StoreAt.migrate`` does."""
    return await store_at(url).migrate()
