"""Decides which store a database URL means. A new store is one more branch here.

Must not know what a store does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from upload_server.domain.errors import CannotStart
from upload_server.store.lock import lock_database
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store
from upload_server.store.sqlite import SqliteStore
from upload_server.store.sqlite.schema import as_unusable, prepare


class UnusableDatabaseUrl(CannotStart):
    """The URL names no database that this program can use; the message says why."""


async def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """Open the store at ``url`` in the running event loop, creating and migrating it as needed.

    Raises CannotStart: ``UnusableDatabaseUrl``, ``AlreadyInUse``, ``UnusableDatabase``, ``SchemaTooNew`` or
    ``SqliteTooOld``.
    """
    return await SqliteStore.open(sqlite_path(url), options or StoreOptions())


async def migrate_store(url: str) -> Sequence[str]:
    """Apply the schema migrations that the store at ``url`` lacks; returns their names. Raises as ``open_store``."""
    return await asyncio.to_thread(_migrate, sqlite_path(url))


def _migrate(path: Path) -> Sequence[str]:
    with as_unusable(path):
        lock = lock_database(path)
        try:
            return prepare(path)
        finally:
            lock.release()


def sqlite_path(url: str) -> Path:
    """Return the file of ``sqlite:///relative`` or ``sqlite:////absolute``; raises ``UnusableDatabaseUrl``."""
    parts = urlsplit(url)
    if parts.scheme in ("postgresql", "postgres"):
        raise UnusableDatabaseUrl("PostgreSQL is not available yet; use sqlite:///path")
    if parts.scheme != "sqlite" or parts.netloc or parts.query or parts.fragment:
        raise UnusableDatabaseUrl("a database URL looks like sqlite:///path/to/file.db")
    path = unquote(parts.path.removeprefix("/"))
    if not path or path == ":memory:":
        raise UnusableDatabaseUrl("the database URL names no file; what is kept in memory would be lost")
    return Path(path)
