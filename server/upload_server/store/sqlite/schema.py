"""Decides that a database file has this program's schema before anything else touches it.

Must not know what the steps do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from peewee import SqliteDatabase
from playhouse.migrations import Runner

MIGRATIONS = Path(__file__).parent.parent / "migrations"
# `->>` came with it; RETURNING and UPDATE … FROM are older.
_LEAST_SQLITE = (3, 38, 0)


class SchemaTooNew(Exception):
    """The database was written by a newer program; this one would not understand it."""

    def __init__(self, path: Path, steps: Sequence[str]) -> None:
        super().__init__(f"{path} was migrated by a newer upload-server ({', '.join(steps)})")


class SqliteTooOld(Exception):
    """The SQLite library lacks what the statements use."""

    def __init__(self) -> None:
        needed = ".".join(map(str, _LEAST_SQLITE))
        super().__init__(f"SQLite {needed} or newer is needed, this is {sqlite3.sqlite_version}")


def prepare(path: Path, target: str | None = None) -> Sequence[str]:
    """Create the database if there is none and apply the steps that it lacks (up to ``target``); returns their names.

    Each step is one transaction. Raises ``SchemaTooNew``, ``SqliteTooOld`` or MigrationError.
    """
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise SqliteTooOld
    database = SqliteDatabase(str(path), pragmas={"journal_mode": "wal", "synchronous": "full"}, thread_safe=False)
    with database.connection_context():
        runner = Runner(database, str(MIGRATIONS))
        unknown = [step.name for step in runner.status() if step.path is None]
        if unknown:
            raise SchemaTooNew(path, unknown)
        applied: list[str] = runner.up(target)
    return applied
