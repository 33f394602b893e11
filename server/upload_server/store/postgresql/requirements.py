"""Decides whether a server and its sessions are fit to keep what this program promises; each refusal names its cure.

Must not know the schema.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from upload_server.domain.errors import CannotStart
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address, settings_of
from upload_server.store.sql.connection import Connection

_log = logging.getLogger(__name__)
_LEAST_SKEW_SECONDS: Final = 1.0
_LEAST_VERSION: Final = 150000
_ASKED = ("server_version_num", "server_version", "server_encoding", "synchronous_commit", "fsync")
# What is read back of what a session sets: the bounds of its waits.
_READ_BACK = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")


class UnfitServer(CannotStart):
    """The server would not keep what this program promises; the message says why, and what to do."""

    def __init__(self, address: Address, problem: str) -> None:
        super().__init__(f"--database-url: {address} cannot be used: {problem}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a session says of itself and its server."""

    in_recovery: bool
    # By the server's names.
    settings: Mapping[str, str]


def check_server(connection: Connection, address: Address, options: StoreOptions, *, bounded: bool = True) -> None:
    """Raise ``UnfitServer`` unless the server and this session of it are fit."""
    wanted = settings_of(options, writes=True, bounded=bounded)
    own = {name: wanted[name] for name in _READ_BACK}
    names = (*_ASKED, *own)
    selected = ", ".join(f"current_setting('{name}')" for name in names)
    asked = datetime.now(UTC)
    # As the server would write them: 2000ms is its 2s.
    [(now, in_recovery, *found)] = connection.rows(f"SELECT clock_timestamp(), pg_is_in_recovery(), {selected}")
    if problem := clock_problem(now, asked, datetime.now(UTC)):
        _log.warning("%s", problem)
    for problem in problems(Found(in_recovery, dict(zip(names, found, strict=True))), own):
        raise UnfitServer(address, problem)


def problems(found: Found, own: Mapping[str, str]) -> Iterator[str]:
    """Tell what is wrong, each with its cure; ``own`` are the settings that the session was to have."""
    settings = found.settings
    if int(settings["server_version_num"]) < _LEAST_VERSION:
        yield f"PostgreSQL 15 or newer is needed, this is {settings['server_version']}; upgrade the server"
    if found.in_recovery:
        yield "it is a standby, or still recovering; name the primary in --database-url, or wait"
    if settings["server_encoding"] != "UTF8":
        yield f"its encoding is {settings['server_encoding']}; create the database with ENCODING 'UTF8'"
    if settings["synchronous_commit"] == "off":
        cure = "ALTER DATABASE … SET synchronous_commit = on"
        yield f"synchronous_commit is off, so answered cancels could be lost; {cure}"
    if settings["fsync"] == "off":
        yield "fsync is off, so a crash could damage everything; set fsync = on in postgresql.conf"
    for name, value in own.items():
        if _milliseconds(settings[name]) != _milliseconds(value):
            yield (
                f"its sessions do not keep their settings ({name} is {settings[name]}), as behind PgBouncer in"
                " transaction mode; name PostgreSQL itself in --database-url"
            )


def clock_problem(now: datetime, asked: datetime, answered: datetime) -> str:
    """Tell how far this machine's clock is from the database's, which was ``now`` at some moment between question and
    answer; empty where that is less than a second."""
    ahead = max((asked - now).total_seconds(), 0.0) - max((now - answered).total_seconds(), 0.0)
    if abs(ahead) < _LEAST_SKEW_SECONDS:
        return ""
    return (
        f"this machine's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} that of the server in"
        " --database-url, and so are the times in what this node writes; have NTP set both"
    )


def _milliseconds(text: str) -> int:
    """Return a duration as the server writes it in milliseconds."""
    for unit, factor in (("ms", 1), ("min", 60_000), ("s", 1000), ("h", 3_600_000)):
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return int(text)
