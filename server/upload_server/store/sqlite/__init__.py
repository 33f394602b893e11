"""The Store on SQLite: one file, one writer thread with grouped commits, readers beside it."""

from upload_server.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
