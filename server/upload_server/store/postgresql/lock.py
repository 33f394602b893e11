"""Decides who may use a database: any number of servers, or one command that changes what they rely upon.

Must not know what is kept there. The server drops the lock with the session, however it ends.
"""

from __future__ import annotations

import time
from typing import Final

from upload_server.store.lock import AlreadyInUse
from upload_server.store.postgresql.connection import Address, PostgresqlConnection
from upload_server.store.sql.connection import Connection

_LOCK: Final = "2, 'store_info'::regclass::oid::integer"
_TAKE: Final = f"SELECT pg_try_advisory_lock({_LOCK})"
_SHARE: Final = f"SELECT pg_try_advisory_lock_shared({_LOCK})"
_HOLDER: Final = """
    SELECT l.pid, coalesce(a.application_name, '')
    FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.locktype = 'advisory' AND l.classid = 2 AND l.objid = 'store_info'::regclass::oid AND l.objsubid = 2
        AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
# The session of a process that has just died goes on until its statement ends. One of our own that goes on for longer
# does not know that it is lost.
_ASKING_SECONDS: Final = 2.0
_ENDING_SECONDS: Final = 0.25


def take(connection: Connection, address: Address, *, shared: bool = False) -> None:
    """Take the lock for this session, ``shared`` with other servers; raises ``AlreadyInUse``."""
    deadline = time.monotonic() + _ASKING_SECONDS
    while not connection.rows(_SHARE if shared else _TAKE)[0][0]:
        if time.monotonic() > deadline:
            found = connection.rows(_HOLDER)
            raise AlreadyInUse(address, _pid_in(found[0][1]) if found else "")
        time.sleep(_ASKING_SECONDS / 50)


def end(connection: Connection, ended: int) -> None:
    """End a session of ours that is lost here, by the server's process for it: it may not know that yet, and would
    hold everybody up with what it has locked."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while ended in [pid for pid, _ in connection.rows(_HOLDER)]:
        if time.monotonic() > deadline:
            connection.rows("SELECT pg_terminate_backend(%(ended)s::integer)", {"ended": ended})
            return
        time.sleep(_ENDING_SECONDS / 10)


def holder_of(connection: Connection) -> str:
    """Return the pid of the server that holds the lock, empty when none does."""
    found = connection.rows(_HOLDER)
    return (_pid_in(found[0][1]) or "unknown") if found else ""


def _pid_in(application_name: str) -> str:
    pid, _, machine = application_name.rpartition("/")[2].partition("@")
    return f"{pid} on {machine}" if machine else pid


class SessionLock:
    """The lock of a command, held by a session of its own from construction to ``release``."""

    def __init__(self, connection: PostgresqlConnection, address: Address) -> None:
        """Take it; raises ``AlreadyInUse``."""
        self.connection = connection
        try:
            take(connection, address)
        except BaseException:
            connection.close()
            raise

    def release(self) -> None:
        """Let the next one in. Safe to call twice."""
        self.connection.close()
