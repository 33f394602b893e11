"""Decides how a connection to the database is opened, which settings its session has, and what its errors mean.

Must not know what is read or written.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import socket
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

import peewee
import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper

from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.dialect import POSTGRESQL
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Sql

T = TypeVar("T")

# How a value comes in a text of a statement with the driver's names.
_PLACED: Final = re.compile(r"%(?:\((\w+)\)s|%)")
# Kinds of values; of a text, or of none, the statement tells it.
_KINDS: Final = defaultdict[type, str](
    lambda: "unknown", {int: "bigint", float: "double precision", datetime: "timestamptz", bytes: "bytea"}
)
# Of a walk through a table at once.
_WALK_ROWS: Final = 1000
# A server that does not answer is given up after so long, while connecting and while connected.
_CONNECT_SECONDS: Final = 3
_DEAD_SECONDS: Final = 5
# A session of ours that rests inside a transaction belongs to a process that was stopped. One that writes holds
# everybody up meanwhile.
_IDLE_SECONDS: Final = 10
_IDLE_WRITING_SECONDS: Final = 2
# After the time in which a statement ends, or is ended by the server, it is given up as silent.
_SILENT_SECONDS: Final = 3
# What walks through all of a large store.
_WALK_SECONDS: Final = 900


class AnotherHistory(peewee.OperationalError):
    """The database that answers is not the one that was opened, but a copy of it with a history of its own."""

    def __init__(self) -> None:
        super().__init__("it was failed over or restored since upload-server started; start upload-server anew")


class Address:
    """Where the database is, and how to log in. ``str()`` names it without its password."""

    def __init__(self, url: str) -> None:
        """Read a URL as libpq does; raises ValueError. What it does not say comes from libpq's environment."""
        try:
            self.parameters = conninfo_to_dict(url)
        except psycopg.Error:
            # Without the driver's words: they quote what they did not understand.
            raise ValueError("it cannot be read") from None
        # The rest of a password would pass for the name of a host or a database, and be shown. (A socket without a file
        # has a name that begins with @.)
        if "@" in str(self.parameters.get("host") or "")[1:] or "@" in str(self.parameters.get("dbname") or ""):
            raise ValueError("an @ or a / in a user's name or a password is written %40 or %2F")
        # Likewise of a port. (Several hosts may have one each.)
        if re.fullmatch(r"[0-9,]*", str(self.parameters.get("port") or "")) is None:
            raise ValueError("its port is no number: does it lack the host, as in user:password@host?")
        # Not the one that libpq would take then, of the user's name.
        self.parameters["dbname"] = self.parameters.get("dbname") or os.environ.get("PGDATABASE") or ""
        if not self.parameters["dbname"]:
            raise ValueError("it names no database")

    def __str__(self) -> str:
        """Name the database for messages."""
        named = self.parameters
        user, host, port = (str(named.get(name) or "") for name in ("user", "host", "port"))
        place = (user and f"{user}@") + host + (port and f":{port}")
        return f"postgresql://{place}/{named.get('dbname') or ''}"


class _Session(psycopg.Connection):
    """A session whose server is not waited for without a bound: stopped, it leaves its connections open."""

    # Seconds in which a statement ends or is ended; None: no bound.
    patience: float | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Names of the statements that we have prepared by SQL, each for the kinds of its values.
        self.prepared: dict[tuple[Sql, tuple[str, ...]], str] = {}

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        """Drop prepared statements: all of them (None), as the driver does after a ROLLBACK, are those of ours too."""
        if name is None:
            self.prepared.clear()
        return super()._deallocate(name)

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """Wait for the server's answer; when it does not come in time, close the connection."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError("the server has not answered for too long") from error


class _Adapter(peewee.Psycopg3Adapter):
    """Peewee's own way to psycopg, which it did not import itself."""

    txn_idle, txn_inerror, txn_unknown = TransactionStatus.IDLE, TransactionStatus.INERROR, TransactionStatus.UNKNOWN

    def check_driver(self) -> None:
        """Do nothing: the driver is here."""

    def connect(self, db: peewee.Database, **parameters: Any) -> _Session:
        """Connect as Peewee does."""
        return _Session.connect(dbname=db.database, **parameters)


class _Database(peewee.PostgresqlDatabase):
    psycopg2_adapter = psycopg3_adapter = _Adapter


@functools.cache
def _marked(text: str) -> tuple[tuple[str, ...], str]:
    """Return the names in a text, and the text as the server prepares it: with a number for each."""
    names = tuple(dict.fromkeys(place[1] for place in _PLACED.finditer(text) if place[1]))
    return names, _PLACED.sub(lambda place: f"${names.index(place[1]) + 1}" if place[1] else "%", text)


class PostgresqlConnection(Connection):
    """One session. A percent sign in a statement that is a text is written twice."""

    dialect = POSTGRESQL
    errors = (peewee.PeeweeException, psycopg.Error)

    def __init__(self, database: peewee.PostgresqlDatabase, patience: float | None) -> None:
        """``patience``: seconds in which each statement ends or is ended by the server; None: no bound."""
        super().__init__(database)
        self._raw: _Session = database.connection()  # type: ignore[no-untyped-call]
        self._raw.patience = patience
        # Each number comes as the same type: else every length of one would be a statement of its own to the server.
        self._raw.adapters.register_dumper(int, Int8Dumper)
        # The server's process for this connection.
        self.backend_pid = self._raw.info.backend_pid
        self._walks = 0
        self._names = itertools.count()

    @contextlib.contextmanager
    def patiently(self) -> Iterator[None]:
        """Allow the statements of the open transaction the time that a walk through a large store takes."""
        self.execute(f"SET LOCAL statement_timeout = '{_WALK_SECONDS}s'")
        before, self._raw.patience = self._raw.patience, _WALK_SECONDS + _SILENT_SECONDS
        try:
            yield
        finally:
            self._raw.patience = before

    def walk(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Run a SELECT in the open transaction and return its rows a few at a time; several walks may go on at once."""
        self._walks += 1
        name = f"walk{self._walks}"
        self.execute(f"DECLARE {name} NO SCROLL CURSOR FOR {sql}")
        while rows := self.rows(f"FETCH {_WALK_ROWS} FROM {name}"):
            yield from rows
        self.execute(f"CLOSE {name}")

    def load(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """Run a COPY … FROM STDIN with these rows; returns how many they were."""
        with self._raw.cursor() as cursor:
            with cursor.copy(sql.encode()) as copy:
                for row in rows:
                    copy.write_row(row)
            return cursor.rowcount

    def last_rows(self, *statements: Sql) -> list[tuple[Any, ...]]:
        """Run statements without values in one message; returns the rows of the last.

        Not as a pipeline of psycopg's: after one the server's watch over sessions that rest in a transaction sleeps.
        """
        cursor: psycopg.Cursor = self._run("; ".join(each.text(self.dialect) for each in statements), None)
        while cursor.nextset():
            pass
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows

    def in_one(self, statements: Sequence[tuple[Sql, dict[str, Any]]]) -> list[list[tuple[Any, ...]]]:
        """Run statements in one message; returns the rows of each. The values are encoded in place.

        The server reads a message to its end before it begins with it: whatever happens here, it does not wait between
        two of them. For that they are prepared before.
        """
        cursor: psycopg.ClientCursor = psycopg.ClientCursor(self._raw)
        asked = [self._asked(cursor, sql, self.dialect.encode(values)) for sql, values in statements]
        cursor.execute("; ".join(asked).encode())
        answers = [cursor.fetchall() if cursor.description else []]
        while cursor.nextset():
            answers.append(cursor.fetchall() if cursor.description else [])
        return answers

    def _asked(self, cursor: psycopg.ClientCursor, sql: Sql, values: dict[str, Any]) -> str:
        """Return what runs a statement with these values, as a text."""
        if not values:
            return sql.text(self.dialect)
        names, marked = _marked(sql.text(self.dialect))
        wanted = [values[name] for name in names]
        kinds = tuple(_KINDS[type(value)] for value in wanted)
        name = self._raw.prepared.get((sql, kinds))
        if name is None:
            name = f"upload_{next(self._names)}"
            self._raw.execute(f"PREPARE {name} ({', '.join(kinds)}) AS {marked}".encode())
            self._raw.prepared[sql, kinds] = name
        return f"EXECUTE {name} ({cursor.mogrify(', '.join(['%s'] * len(wanted)), wanted)})"

    def wait_notified(self, seconds: float) -> bool:
        """Wait for what this session listens for, at most so long; returns whether it came."""
        return any(True for _ in self._raw.notifies(timeout=seconds, stop_after=1))

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, also one that failed."""
        return self._raw.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    @property
    def lost(self) -> bool:
        """Whether the session has ended, whoever ended it."""
        return bool(self._raw.closed)

    def lost_by(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether the session has ended."""
        return self.lost

    def surely_not_committed(self, error: BaseException) -> bool:  # noqa: ARG002
        """Whether the server itself has answered: then nothing was committed."""
        return not self.lost


def settings_of(options: StoreOptions, *, writes: bool, bounded: bool = True) -> dict[str, str]:
    """Return what a session sets for itself, by the server's names. Not ``bounded``: nobody waits for it.

    Every statement of ours goes by an index. Without statistics, after a load or a restore, the planner would read
    whole tables instead, a hundred times slower; so it may do so only where there is no other way, and a look into an
    index counts as cheap as it is where the index lies in memory.
    """
    idle = _IDLE_WRITING_SECONDS if writes else _IDLE_SECONDS
    return {
        "timezone": "UTC",
        # Of a role or database that has another one the driver cannot read a time.
        "datestyle": "ISO",
        "lock_timeout": _milliseconds(options.busy_timeout_seconds) if bounded else "0",
        "statement_timeout": _milliseconds(options.statement_timeout_seconds) if bounded else "0",
        "idle_in_transaction_session_timeout": f"{idle if bounded else 0}s",
        "tcp_keepalives_idle": f"{_DEAD_SECONDS}s",
        "tcp_keepalives_interval": "1s",
        "tcp_keepalives_count": "3",
        "enable_seqscan": "off",
        "enable_hashjoin": "off",
        "enable_mergejoin": "off",
        "enable_bitmapscan": "off",
        "enable_sort": "off",
        "random_page_cost": "0.01",
        "jit": "off",
        "default_transaction_read_only": "off" if writes else "on",
        # No value makes another plan better, and to plan a page takes longer than to read it.
        "plan_cache_mode": "force_generic_plan",
    }


def _milliseconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def connect(address: Address, options: StoreOptions, *, writes: bool, bounded: bool = True) -> PostgresqlConnection:
    """Connect to a server that takes writes."""
    given = dict(address.parameters)
    own = " ".join(f"-c {name}={value}" for name, value in settings_of(options, writes=writes, bounded=bounded).items())
    parameters: dict[str, Any] = {
        "connect_timeout": _CONNECT_SECONDS,
        "keepalives_idle": _DEAD_SECONDS,
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "tcp_user_timeout": _DEAD_SECONDS * 1000,
        **given,
        # Of several hosts the one that takes writes; a reader of ours says so of itself, and asks the same.
        "target_session_attrs": "primary",
        "application_name": f"upload-server/{os.getpid()}@{socket.gethostname()}",
        "client_encoding": "utf8",
        # What libpq would take from there it takes no more.
        "options": f"{given.get('options') or os.environ.get('PGOPTIONS', '')} {own}".strip(),
    }
    name = parameters.pop("dbname")
    database = _Database(name, thread_safe=False, autoconnect=False, prefer_psycopg3=True, **parameters)
    database.connect()
    return PostgresqlConnection(database, options.statement_timeout_seconds + _SILENT_SECONDS if bounded else None)
