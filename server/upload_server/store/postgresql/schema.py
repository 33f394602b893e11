"""Decides that a database has this program's schema before anything else touches it.

Must not know what the steps do. Only `upload-server migrate` applies them: of several programs on one database none
changes it under the others at its start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg
from playhouse.migrations import Migration, MigrationError, Runner

from upload_server.domain.errors import CannotStart
from upload_server.store.inspection import SchemaFault
from upload_server.store.levels import check_level, least_level
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address, PostgresqlConnection, connect
from upload_server.store.postgresql.requirements import check_server
from upload_server.store.sql.connection import Connection, said
from upload_server.store.sql.dialect import Sql

MIGRATIONS: Final = Path(__file__).parent / "migrations"
# One migrates at a time; also where there is no table yet to name the lock by.
_LOCK: Final = "SELECT pg_advisory_lock(3, 0)"
# Where a new schema is made to compare with.
_BESIDE: Final = "upload_server_new"
_COLUMNS: Final = """
    SELECT c.table_name::text, c.column_name::text FROM information_schema.columns AS c
    WHERE c.table_schema = current_schema() ORDER BY c.table_name, c.ordinal_position"""
_OBJECTS: Final = """
    SELECT 'index', i.indexname::text, i.tablename::text, i.indexdef FROM pg_indexes AS i
    WHERE i.schemaname = current_schema() AND i.tablename <> 'schema_migration'
    UNION ALL
    SELECT 'trigger', t.tgname::text, c.relname::text, pg_get_triggerdef(t.oid)
    FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
    WHERE NOT t.tgisinternal AND c.relnamespace = current_schema()::regnamespace"""

_LEAST_LEVEL: Final = "SELECT min_level FROM store_info WHERE id = 1"
_RAISE_LEVEL: Final = Sql(
    "UPDATE store_info SET min_level = :least WHERE id = 1 AND min_level < :least RETURNING min_level"
)
# By what words of libpq or the server tell of a session that did not come to be; the last is of all others.
_CURES: Final = {
    "standby": "name the primary, or wait until it is one",
    "startup parameter": "name PostgreSQL itself, and not PgBouncer, which keeps no settings of a session",
    "": "see whether a server runs at that host and port, and knows that user, password and database",
}
_CURE_OF_RIGHTS: Final = "name the role that `upload-server migrate` ran as, or grant it all"
_HAS_TABLE: Final = Sql("SELECT to_regclass(:name) IS NOT NULL")


class SchemaTooOld(CannotStart):
    """The database lacks steps of the schema."""

    def __init__(self, address: Address, steps: Sequence[str]) -> None:
        super().__init__(f"{address} lacks steps of the schema ({', '.join(steps)}); run `upload-server migrate` first")


class UnusableDatabase(CannotStart):
    """The database cannot be reached, or not be migrated."""

    def __init__(self, address: Address, problem: BaseException) -> None:
        # What libpq adds in more lines is advice of its own.
        words = said(problem) if isinstance(problem, MigrationError) else str(problem).partition("\n")[0]
        super().__init__(f"--database-url: {address} cannot be used: {words}{_cure(problem, words)}")


def _cure(problem: BaseException, words: str) -> str:
    error = getattr(problem, "orig", problem)
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"; {_CURE_OF_RIGHTS}"
    # What a session's server has said has a code.
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return next(f"; {cure}" for told, cure in _CURES.items() if told in words)
    return ""


@contextlib.contextmanager
def as_unusable(address: Address) -> Iterator[None]:
    """Raise ``UnusableDatabase`` for what goes wrong while a database is opened."""
    try:
        yield
    except (*PostgresqlConnection.errors, MigrationError) as error:
        raise UnusableDatabase(address, error) from error


def migrate(address: Address, target: str | None = None) -> Sequence[str]:
    """Apply the steps that the database lacks (up to ``target``); returns their names.

    Raises ``SchemaTooNew``, ``UnfitServer``, MigrationError or what the database raises.
    """
    options = StoreOptions()
    # However long a step takes, and whoever is to be waited for: it is an operator's command.
    connection = connect(address, options, writes=True, bounded=False)
    try:
        check_server(connection, address, options, bounded=False)
        connection.rows(_LOCK)
        runner = Runner(connection.database, str(MIGRATIONS))
        if has_table(connection, "store_info"):
            _check(connection, address)
            # Before the steps: no program that they are too new for is to begin on what they leave half done.
            _raise_level(connection, target)
        applied: list[str] = runner.up(target)
        _raise_level(connection, target)
    finally:
        connection.close()
    return applied


def check_schema(connection: Connection, address: Address) -> None:
    """Raise ``SchemaTooNew`` or ``SchemaTooOld`` unless the database has the steps that this program knows, and with
    others bears it."""
    missing = _check(connection, address)
    if missing:
        raise SchemaTooOld(address, missing)


def _check(connection: Connection, address: Address) -> list[str]:
    """Return the steps that are missing; raises ``SchemaTooNew``."""
    unknown, missing = _steps(connection)
    if unknown:
        check_level(address, MIGRATIONS, unknown, connection.rows(_LEAST_LEVEL)[0][0])
    return missing


def _raise_level(connection: Connection, target: str | None) -> None:
    connection.rows(_RAISE_LEVEL, {"least": least_level(MIGRATIONS, target)})


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database has: for each index and trigger its table and SQL, and the columns of its tables."""

    objects: dict[tuple[str, str], tuple[str, str]]
    columns: dict[str, list[str]]


def new_schema(connection: Connection) -> Schema:
    """Return what a new database has. Made beside what is there, in the open transaction, and taken back."""
    connection.execute("SAVEPOINT beside")
    connection.execute(f"CREATE SCHEMA {_BESIDE}")
    connection.execute(f"SET LOCAL search_path = {_BESIDE}")
    for step in Migration.load_directory(str(MIGRATIONS)):
        step.load().up(None, connection.database)
    made = _schema(connection)
    connection.execute("ROLLBACK TO SAVEPOINT beside")
    return made


def differences(connection: Connection) -> list[SchemaFault]:
    """Tell what a database lacks of what a new one has, and which triggers and steps are none of this program's."""
    connection.execute("BEGIN")
    new, found = new_schema(connection), _schema(connection)
    faults = [SchemaFault("table", table, "missing") for table in new.columns if table not in found.columns]
    faults += [
        SchemaFault("column", f"{table}.{column}", "missing")
        for table in new.columns.keys() & found.columns.keys()
        for column in new.columns[table]
        if column not in found.columns[table]
    ]
    if "schema_migration" in found.columns:
        unknown, missing = _steps(connection)
        faults += [SchemaFault("step", name, "missing") for name in missing]
        faults += [SchemaFault("step", name, "unknown") for name in unknown]
    for (kind, name), wanted in new.objects.items():
        there = found.objects.get((kind, name))
        if there != wanted:
            faults.append(SchemaFault(kind, name, "missing" if there is None else "different"))
    # An index of the operator's own does no harm; a trigger may do anything.
    faults += [
        SchemaFault(kind, name, "unknown")
        for kind, name in found.objects
        if kind == "trigger" and (kind, name) not in new.objects
    ]
    connection.execute("ROLLBACK")
    return faults


def _schema(connection: Connection) -> Schema:
    columns: dict[str, list[str]] = {}
    for table, column in connection.rows(_COLUMNS):
        columns.setdefault(table, []).append(column)
    # Written by the server, so what is the same is the same text, but for the schema that it is in.
    schema = connection.rows("SELECT current_schema()")[0][0]
    found = connection.rows(_OBJECTS)
    objects = {(kind, name): (table, sql.replace(f" {schema}.", " ")) for kind, name, table, sql in found}
    return Schema(objects, columns)


def _steps(connection: Connection) -> tuple[list[str], list[str]]:
    """Return the steps that were applied and are unknown, and those that are missing."""
    steps = [step.name for step in Migration.load_directory(str(MIGRATIONS))]
    applied: list[str] = []
    if has_table(connection, "schema_migration"):
        applied = [row[0] for row in connection.rows("SELECT name FROM schema_migration ORDER BY name")]
    return [name for name in applied if name not in steps], [name for name in steps if name not in applied]


def has_table(connection: Connection, name: str) -> bool:
    """Whether there is such a table."""
    return connection.rows(_HAS_TABLE, {"name": name})[0][0] is True
