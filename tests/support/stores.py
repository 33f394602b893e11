"""Every store of the service, by the URL of one in a folder. A new store is one more entry of ``STORES``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from support import postgres
from upload_server.store.open import open_store
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store

STORES: Mapping[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder / 'upload.sqlite3'}",
    "postgresql": postgres.url_in,
}


def url_in(folder: Path, kind: str = "sqlite") -> str:
    """Return the URL of the store in a folder; for a server's data directory the one that it opens."""
    return STORES[kind](folder)


# What a shell's statement raises that the schema refuses.
RefusedBySchema = sqlite3.IntegrityError


def shell(url: str, *, triggers: bool = True) -> AbstractContextManager[Any]:
    """Work on a store's tables as an operator would by its database's own shell, each statement on its own.

    Without ``triggers`` what they guard can be changed; they are there again afterwards.
    """
    if url.startswith("postgresql:"):
        return postgres.shell(url, triggers=triggers)
    return _sqlite_shell(url, triggers=triggers)


@contextmanager
def _sqlite_shell(url: str, *, triggers: bool) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        dropped = [] if triggers else found
        for name, _ in dropped:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for _, sql in dropped:
            connection.execute(sql)
        if dropped:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if TYPE_CHECKING:
    _Store = Store
else:
    _Store = object


class StoreAround(_Store):
    """A real store some of whose methods a subclass changes: ``real`` has them as they are."""

    real: Store

    @classmethod
    async def open(cls, url: str, options: StoreOptions | None = None) -> Self:
        """Open the store at ``url``."""
        opened = cls.__new__(cls)
        opened.real = await open_store(url, options)
        return opened

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Everything that no subclass changes."""
            return getattr(self.real, name)
