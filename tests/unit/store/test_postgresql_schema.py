"""The schema on PostgreSQL is what the models say, and what a server or a URL has to be is said to the operator."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="the driver psycopg is not installed")

from contract.store.kit import pending
from support import postgres
from upload_server.domain.errors import CannotStart
from upload_server.store.models import MODELS, StoreInfo
from upload_server.store.open import UnusableDatabaseUrl, migrate_store, open_store, store_at
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address
from upload_server.store.postgresql.requirements import Found, clock_problem, problems

TYPES = {"AUTO": "bigint", "INT": "bigint", "BIGINT": "bigint", "DATETIME": "timestamp with time zone"}
TYPES |= {"DOUBLE": "double precision", "BLOB": "bytea", "VARCHAR": "text", "TEXT": "text"}
# A commit is looked up by the database's own number of it, and by the number of its node's attempt. Which programs it
# bears a file of SQLite says in its header.
LEFT_OUT = {(StoreInfo, "commits")}
ADDED = {"node": {"attempt": ("bigint", True, None)}, "store_info": {"min_level": ("bigint", False, None)}}
# Followed every byte, on PostgreSQL at the price of all the others.
NO_INDEX = {"file_idle"}


@pytest.fixture
def server() -> postgres.Server:
    return postgres.server()


@pytest.fixture
def hand(server: postgres.Server) -> Iterator[Any]:
    import psycopg  # noqa: PLC0415 - an extra

    with psycopg.connect(server.new_store(), autocommit=True) as connection:
        yield connection


def columns_of(hand: Any, table: str) -> dict[str, tuple[str, bool, str | None]]:
    found = hand.execute(
        "SELECT column_name, data_type, is_nullable = 'YES', collation_name FROM information_schema.columns"
        " WHERE table_name = %s",
        (table,),
    )
    return {name: (kind, null, collation) for name, kind, null, collation in found}


@pytest.mark.parametrize("model", MODELS)
def test_columns_hold_what_the_fields_say(hand: Any, model: Any) -> None:
    fields = {name: field for name, field in model._meta.columns.items() if (model, name) not in LEFT_OUT}
    table = model._meta.table_name
    found, added = columns_of(hand, table), ADDED.get(table, {})

    assert {name: found.pop(name) for name in added} == added
    assert found.keys() == fields.keys()
    for name, field in fields.items():
        kind = TYPES[field.field_type]
        assert found[name] == (kind, field.null, "C" if kind == "text" else None), name


def test_indexes_are_those_of_the_models(hand: Any) -> None:
    described = {index._name for model in MODELS for index in model._meta.indexes} - NO_INDEX
    found = {name for (name,) in hand.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")}

    assert {name for name in found if not name.endswith(("_key", "_pkey", "_name"))} == described


def test_what_is_final_stays_and_the_trail_is_only_added_to(hand: Any) -> None:
    import psycopg  # noqa: PLC0415

    hand.execute(
        "INSERT INTO file (file_id, filename, content_type, size_bytes, status, created_at, updated_at, change_no,"
        " active_at) VALUES ('a', 'a', '', 1, 'cancelled', now(), now(), 1, now())"
    )
    for statement in (
        "UPDATE file SET status = 'pending'",
        "UPDATE file SET sha256 = 'x'",
        "DELETE FROM file",
        "UPDATE audit_seal SET previous_no = 1",
        "TRUNCATE audit_event",
        "UPDATE file SET status = 'lost'",
    ):
        with pytest.raises(psycopg.errors.IntegrityError):
            hand.execute(statement)
    hand.execute("UPDATE file SET bytes_received = 1")


FIT = Found(
    in_recovery=False,
    settings={
        "server_version_num": "150018",
        "server_version": "15.18",
        "server_encoding": "UTF8",
        "synchronous_commit": "on",
        "fsync": "on",
        "lock_timeout": "5s",
    },
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"server_version_num": "140011", "server_version": "14.11"}, "15 or newer is needed, this is 14.11"),
        ({"server_encoding": "LATIN1"}, "ENCODING 'UTF8'"),
        ({"synchronous_commit": "off"}, "SET synchronous_commit = on"),
        ({"fsync": "off"}, "set fsync = on"),
        ({"lock_timeout": "0"}, "PgBouncer"),
    ],
)
def test_a_server_that_would_not_keep_our_promises_is_refused(change: dict[str, str], words: str) -> None:
    own = {"lock_timeout": "5000ms"}
    assert list(problems(FIT, own)) == []
    for value in ("remote_apply", "local", "on"):
        settings = {**FIT.settings, "synchronous_commit": value}
        assert list(problems(replace(FIT, settings=settings), own)) == []

    [problem] = problems(replace(FIT, settings={**FIT.settings, **change}), own)

    assert words in problem


async def test_a_standby_is_refused() -> None:
    [problem] = problems(replace(FIT, in_recovery=True), {})
    assert "name the primary" in problem


async def test_settings_of_the_database_are_looked_at(server: postgres.Server) -> None:
    url = server.new_store()
    name = url.partition("@/")[2].partition("?")[0]
    server.command(f"ALTER DATABASE {name} SET synchronous_commit = off", "postgres")
    for open_it in (open_store, migrate_store):
        with pytest.raises(CannotStart, match="synchronous_commit is off"):
            await open_it(url)


async def test_only_the_command_changes_the_schema(server: postgres.Server) -> None:
    url = server.url(server.new_database())
    assert not store_at(url).exists
    with pytest.raises(CannotStart, match=r"lacks steps .*0001_initial.*run `upload-server migrate` first"):
        await open_store(url)

    assert await migrate_store(url) == ["0001_initial"]

    assert await migrate_store(url) == []
    assert store_at(url).exists
    # What an operator likes to read counts in his own sessions alone.
    name = url.partition("@/")[2].partition("?")[0]
    server.command(f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'", "postgres")
    store = await open_store(url)
    await pending(store)
    # Also while a server runs.
    assert await migrate_store(url) == []
    await store.close()


async def test_two_who_migrate_at_once_do_it_once(server: postgres.Server) -> None:
    url = server.url(server.new_database())

    applied = await asyncio.gather(*(migrate_store(url) for _ in range(3)))

    assert sorted(map(list, applied)) == [[], [], ["0001_initial"]]


async def test_a_newer_programs_database_is_refused_unless_it_bears_this_one(
    server: postgres.Server, hand: Any
) -> None:
    hand.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_future', now())")
    url = server.url(hand.info.dbname)
    # Unless it bears this one.
    await (await open_store(url)).close()
    assert await migrate_store(url) == []
    hand.execute("UPDATE store_info SET min_level = 2")
    for open_it in (open_store, migrate_store):
        with pytest.raises(
            CannotStart, match=r"newer upload-server \(9999_future\), and bears .* level 2 on .*install"
        ):
            await open_it(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://ann:hush@127.0.0.1:1/uploads", "ann@127.0.0.1:1/uploads cannot be used: .*refused; see whether"),
        ("postgresql://ann:hush@127.0.0.1/uploads?password=hush&port=1", "cannot be used"),
        ("postgresql://ann:hush@no-such-host.invalid/uploads", "cannot be used"),
    ],
)
async def test_a_database_that_cannot_be_reached_is_named_without_its_password(url: str, words: str) -> None:
    pytest.importorskip("psycopg")
    for open_it in (open_store, migrate_store):
        with pytest.raises(CannotStart, match=words) as raised:
            await open_it(url)
        assert "hush" not in str(raised.value)
    assert "hush" not in str(store_at(url))


@pytest.mark.parametrize(
    "url", ["postgresql://ann:hush@[host/x", "postgres://ann:hush@host/x?hush=1", "postgres://ann:hush@host"]
)
async def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UnusableDatabaseUrl, match=re.escape("looks like postgresql://")) as raised:
        store_at(url)
    assert "hush" not in str(raised.value)


async def test_a_wrong_login_a_missing_database_and_too_few_rights_are_said_with_the_cure(
    server: postgres.Server,
) -> None:
    server.command("CREATE ROLE poor LOGIN", database="postgres")
    name = server.new_store().partition("@/")[2].partition("?")[0]
    for url, words in (
        (server.url("nowhere"), 'database "nowhere" does not exist; see whether a server runs'),
        (server.url("postgres", "nobody_here"), 'role "nobody_here" does not exist; see whether a server runs'),
        (server.url(name, "poor"), "permission denied for table .*; name the role that `upload-server migrate` ran as"),
    ):
        with pytest.raises(CannotStart, match=f"^--database-url: postgresql://.* cannot be used: .*{words}"):
            await open_store(url)


def test_a_clock_that_is_not_the_databases_is_told() -> None:
    asked = datetime(2026, 1, 1, tzinfo=UTC)
    answered = asked + timedelta(seconds=3)
    # Whenever within a slow answer the database looked at its clock.
    assert {clock_problem(asked + timedelta(seconds=late), asked, answered) for late in (-0.9, 0, 2, 3.9)} == {""}
    assert "clock is 10.0 s ahead of" in clock_problem(asked - timedelta(seconds=10), asked, answered)
    assert "clock is 2.5 s behind" in clock_problem(answered + timedelta(seconds=2.5), asked, answered)


async def test_who_runs_on_a_database_is_told(server: postgres.Server) -> None:
    place = store_at(server.new_store())
    assert place.holder() == ""
    held = place.lock()
    assert place.holder() == f"{os.getpid()} on {socket.gethostname()}"
    held.release()
    # The server lets go of it when it hears that the session has ended.
    async with asyncio.timeout(30):
        while place.holder():  # noqa: ASYNC110 - another process does it
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("login", ["u:p/w@h", "u:12/w@h", "u:p@ss@h"])
def test_a_password_that_is_not_escaped_is_no_name_of_a_host(login: str) -> None:
    with pytest.raises(ValueError, match="%40"):
        Address(f"postgresql://{login}/d")


@pytest.mark.parametrize("url", ["postgresql://alice:hunter2/d", "postgresql://alice:hunter2"])
def test_a_password_where_the_host_is_missing_is_no_port(url: str) -> None:
    with pytest.raises(ValueError, match="lack the host") as refused:
        Address(url)
    assert "hunter2" not in str(refused.value)
    assert str(Address("postgresql://one:5432,two:5433/d"))


async def test_a_dump_restored_into_the_same_database_has_a_history_of_its_own(server: postgres.Server) -> None:
    url = server.new_store()
    opened = await store_at(url).open(StoreOptions())
    before = opened.incarnation
    await opened.close()
    server.restore_dump(url)
    opened = await store_at(url).open(StoreOptions())
    assert opened.incarnation != before
    await opened.close()
