"""Decides that a database file has this program's schema before anything else touches it.

Must not know what the steps do.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from peewee import SqliteDatabase
from playhouse.migrations import MigrationError, Runner

from upload_server.errors import CannotStart
from upload_server.store.sqlite.connection import DATABASE_ERRORS

MIGRATIONS = Path(__file__).parent.parent / "migrations"
# `->>` came with it; RETURNING and UPDATE … FROM are older.
_LEAST_SQLITE = (3, 38, 0)


class SchemaTooNew(CannotStart):
    """The database was written by a newer program; this one would not understand it."""

    def __init__(self, path: Path, steps: Sequence[str]) -> None:
        super().__init__(f"{path} was migrated by a newer upload-server ({', '.join(steps)})")


class SqliteTooOld(CannotStart):
    """The SQLite library lacks what the statements use."""

    def __init__(self) -> None:
        needed = ".".join(map(str, _LEAST_SQLITE))
        super().__init__(f"SQLite {needed} or newer is needed, this is {sqlite3.sqlite_version}")


class UnusableDatabase(CannotStart):
    """The file cannot be opened, is no database, or cannot be migrated."""

    def __init__(self, path: Path, problem: Exception) -> None:
        super().__init__(f"the database {path} cannot be used: {problem}")


@contextlib.contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a database is opened into ``UnusableDatabase``."""
    try:
        yield
    except (*DATABASE_ERRORS, MigrationError, OSError) as error:
        raise UnusableDatabase(path, error) from error


def prepare(path: Path, target: str | None = None) -> Sequence[str]:
    """Create the database if there is none and apply the steps that it lacks (up to ``target``); returns their names.

    Each step is one transaction. Raises ``SchemaTooNew``, ``SqliteTooOld``, OSError, MigrationError or what
    the database raises.
    """
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise SqliteTooOld
    # Made here, for its mode: SQLite gives the log the same one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    database = SqliteDatabase(str(path), pragmas={"journal_mode": "wal", "synchronous": "full"}, thread_safe=False)
    with database.connection_context():
        runner = Runner(database, str(MIGRATIONS))
        unknown = [step.name for step in runner.status() if step.path is None]
        if unknown:
            raise SchemaTooNew(path, unknown)
        applied: list[str] = runner.up(target)
    return applied
