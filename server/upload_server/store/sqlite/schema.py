"""Decides that a database file has this program's schema before anything else touches it.

Must not know what the steps do.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from peewee import SqliteDatabase
from playhouse.migrations import MigrationError, Runner

from upload_server.domain.errors import CannotStart
from upload_server.process.files import open_own, refuse_strangers_link
from upload_server.process.room import used_up
from upload_server.store.inspection import SchemaFault
from upload_server.store.levels import check_level, least_level
from upload_server.store.sqlite.connection import SqliteConnection

MIGRATIONS = Path(__file__).parent.parent / "migrations"
# `->>` came with it; RETURNING and UPDATE … FROM are older.
_LEAST_SQLITE = (3, 38, 0)
# Names of people and of files are in it.
_PRIVATE = 0o600
_OTHERS = 0o077


class SqliteTooOld(CannotStart):
    """The SQLite library lacks what the statements use."""

    def __init__(self) -> None:
        needed = ".".join(map(str, _LEAST_SQLITE))
        super().__init__(f"SQLite {needed} or newer is needed, this is {sqlite3.sqlite_version}")


class UnusableDatabase(CannotStart):
    """The file cannot be opened, is no database, or cannot be migrated."""

    def __init__(self, path: Path, problem: Exception) -> None:
        # SQLite says "disk I/O error" or "unable to open database file" of both.
        why = used_up(path.parent)
        super().__init__(f"the database {path} cannot be used: {problem}" + (why and f" ({why})"))


@contextlib.contextmanager
def as_unusable(path: Path) -> Iterator[None]:
    """Raise ``UnusableDatabase`` for what goes wrong while a database is opened."""
    try:
        yield
    except (*SqliteConnection.errors, MigrationError, OSError) as error:
        raise UnusableDatabase(path, error) from error


def prepare(path: Path, target: str | None = None) -> Sequence[str]:
    """Create the database if there is none and apply the steps that it lacks (up to ``target``); returns their names.

    Each step is one transaction. The file's header says which programs it bears since. Raises ``SchemaTooNew``,
    ``SqliteTooOld``, OSError, MigrationError or what the database raises.
    """
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        raise SqliteTooOld
    _make_private(path)
    database = SqliteDatabase(str(path), pragmas={"journal_mode": "wal", "synchronous": "full"}, thread_safe=False)
    with database.connection_context():
        runner = Runner(database, str(MIGRATIONS))
        status = runner.status()
        least = int(database.pragma("user_version"))
        check_level(path, MIGRATIONS, [step.name for step in status if step.path is None], least)
        if not least or any(step.applied is None for step in status):
            # Before the steps: no program that they are too new for is to begin on what they leave half done.
            database.pragma("user_version", max(least, least_level(MIGRATIONS, target)))
        applied: list[str] = runner.up(target)
    return applied


def _make_private(path: Path) -> None:
    """Make the file if there is none, and have nobody else read it: SQLite gives its logs the same mode.

    A restored backup, or a log that lay beside it, often comes with the mode of whoever copied it.
    """
    refuse_strangers_link(path)
    # SQLite puts the log beside the file itself, and would follow a link in its place.
    path = path.resolve()
    logs = [path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm")]
    for file, flags in ((path, os.O_CREAT), *((log, 0) for log in logs)):
        with contextlib.suppress(FileNotFoundError):
            descriptor = open_own(file, os.O_RDWR | flags, _PRIVATE)
            try:
                if os.fstat(descriptor).st_mode & _OTHERS:
                    # What belongs to another user keeps its mode.
                    with contextlib.suppress(PermissionError):
                        os.fchmod(descriptor, _PRIVATE)
            finally:
                os.close(descriptor)


Objects = dict[tuple[str, str], str]


def new_schema() -> tuple[Objects, dict[str, list[str]], list[str]]:
    """Return what a new database has: SQL of its indexes and triggers, columns of its tables, names of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.sqlite3"
        steps = prepare(path)
        connection = sqlite3.connect(path)
        try:
            return _objects(connection), _columns(connection), list(steps)
        finally:
            connection.close()


def differences(connection: sqlite3.Connection) -> list[SchemaFault]:
    """Tell what a database lacks of what a new one has, and which triggers and steps are none of this program's."""
    objects, columns, steps = new_schema()
    found_objects, found_columns = _objects(connection), _columns(connection)
    faults = [SchemaFault("table", table, "missing") for table in columns if table not in found_columns]
    faults += [
        SchemaFault("column", f"{table}.{column}", "missing")
        for table in columns.keys() & found_columns.keys()
        for column in columns[table]
        if column not in found_columns[table]
    ]
    if "schema_migration" in found_columns:
        applied = [row[0] for row in connection.execute("SELECT name FROM schema_migration")]
        faults += [SchemaFault("step", name, "missing") for name in steps if name not in applied]
        faults += [SchemaFault("step", name, "unknown") for name in applied if name not in steps]
    for (kind, name), sql in objects.items():
        found = found_objects.get((kind, name))
        if found is None or found.split() != sql.split():
            faults.append(SchemaFault(kind, name, "missing" if found is None else "different"))
    # An index of the operator's own does no harm; a trigger may do anything.
    faults += [
        SchemaFault(kind, name, "unknown")
        for kind, name in found_objects
        if kind == "trigger" and (kind, name) not in objects
    ]
    return faults


def _objects(connection: sqlite3.Connection) -> Objects:
    rows = connection.execute(
        "SELECT type, name, sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY name"
    )
    return {(kind, name): sql for kind, name, sql in rows}


def _columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    for table, column in connection.execute(
        "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c WHERE t.type = 'table'"
    ):
        tables.setdefault(table, []).append(column)
    return tables
