"""No statement walks a whole table, however many rows there are and whatever the planner knows of them: read off the
server's own plans."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="the driver psycopg is not installed")

from contract.store.kit import now
from support import postgres
from upload_server.domain.states import FileStatus
from upload_server.domain.tokens import Cursor
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address, PostgresqlConnection, connect
from upload_server.store.postgresql.dialect import POSTGRESQL
from upload_server.store.sql import changes, lists, queries, statements, trail
from upload_server.store.sql.dialect import Sql
from upload_server.store.values import Listing, Moment, Targets, Trail

STATEMENTS = {name: sql.text(POSTGRESQL) for name, sql in vars(statements).items() if isinstance(sql, Sql)}
FILES = 5_000
FILL = f"""
    INSERT INTO batch (batch_id, total_files, created_at, updated_at, change_no, owner)
    SELECT 'b' || n, 50, now(), now(), {FILES} + n, CASE WHEN n % 3 = 0 THEN 'user' || n % 7 ELSE '' END
    FROM generate_series(1, {FILES // 50}) AS n;
    INSERT INTO file (file_id, filename, content_type, size_bytes, status, batch_id, batch_row, created_at, updated_at,
                      active_at, change_no, owner)
    SELECT 'f' || n, 'name' || n, '', 1, CASE WHEN n % 10 = 0 THEN 'pending' ELSE 'completed' END,
           CASE WHEN n % 2 = 0 THEN 'b' || 1 + n / 50 END, CASE WHEN n % 2 = 0 THEN 1 + n / 50 END, now(), now(), now(),
           n, CASE WHEN n % 3 = 0 THEN 'user' || n % 7 ELSE '' END
    FROM generate_series(1, {FILES}) AS n;
    INSERT INTO audit_event (change_no, file_row, batch_row, from_status, to_status, actor, source, reason, request_id,
                             occurred_at)
    SELECT n, n, CASE WHEN n % 2 = 0 THEN 1 + n / 50 END, '', 'pending', 'user', 'grpc', '', '', now()
    FROM generate_series(1, {FILES}) AS n"""  # noqa: S608 - one number of ours


class Explaining(PostgresqlConnection):
    """A connection that notes the plan of each statement that it runs."""

    plans: dict[str, str]

    def _run(self, sql: Sql | str, values: Any) -> Any:
        sql = sql if isinstance(sql, str) else sql.text(POSTGRESQL)
        self.plans[sql] = "\n".join(row[0] for row in super()._run(f"EXPLAIN {sql}", values))
        return super()._run(sql, values)


@pytest.fixture(scope="module", params=["no statistics", "statistics"])
def filled(request: pytest.FixtureRequest) -> str:
    """The URL of a store with some thousand rows."""
    url = postgres.server().new_store()
    with closing(connect(Address(url), StoreOptions(), writes=True)) as opened:
        for table in ("file", "batch", "audit_event"):
            opened.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        for statement in FILL.replace("%", "%%").split(";"):
            opened.execute(statement)
        if request.param == "statistics":
            opened.execute("ANALYZE file, batch, audit_event")
    return url


@pytest.fixture
def connection(filled: str) -> Iterator[Explaining]:
    with closing(connect(Address(filled), StoreOptions(), writes=False)) as reading:
        reading.__class__ = Explaining
        assert isinstance(reading, Explaining)
        reading.plans = {}
        yield reading


def by_numbers(sql: str) -> tuple[str, int]:
    """Return a statement with its values by number, and how many there are."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"%\((\w+)\)s", number, sql), len(names)


def walks(plan: str) -> list[str]:
    """Lines of a plan that read a table from end to end."""
    lines = [line.strip() for line in plan.splitlines()]
    # Nodes are few, stops are gone as soon as they are heard, and tickets after half a minute.
    few = re.compile(r"on (node|lease|stream_stop|ticket)\b")
    found = re.compile(r"Seq Scan|Scan using|Scan on \w+ \w")
    scans = [index for index, line in enumerate(lines) if found.search(line) and not few.search(line)]
    return [
        lines[index]
        for index in scans
        if "Seq Scan" in lines[index]
        or ("Index" in lines[index] and not any("Index Cond" in line for line in lines[index + 1 : index + 2]))
    ]


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_statement_of_the_writer_walks_a_table(connection: Explaining, name: str) -> None:
    sql, values = by_numbers(STATEMENTS[name])
    raw = connection._raw
    raw.execute(f"PREPARE stated AS {sql}")
    nulls = f"({', '.join(['NULL'] * values)})" if values else ""
    plan = "\n".join(row[0] for row in raw.execute(f"EXPLAIN EXECUTE stated{nulls}"))

    if name == "FORGET_ANSWERS":
        # The oldest come first, and none is newer than wanted.
        plan = plan.replace("Tid Scan", "")
    # Of those that are wanted all, or the first in the table's own order.
    wanted = {"COUNT_OPEN": ["file_open"], "READ_NODES": ["file_open"], "READ_LAST_SEAL": ["audit_seal_pkey"]}.get(
        name, []
    )
    assert [walk for walk in walks(plan) if not any(index in walk for index in wanted)] == [], plan


@pytest.mark.parametrize("owner", ["ann", None])
def test_no_page_of_a_list_walks_a_table(connection: Explaining, owner: str | None) -> None:
    cursor = Cursor.at(now(), 5)
    for statuses in ([], [FileStatus.PENDING], [FileStatus.PENDING, FileStatus.COMPLETED]):
        plain = Listing(owner, statuses)
        by, named, alone = (
            replace(plain, cancelled_by="user"),
            replace(plain, filename_prefix="name1"),
            replace(plain, without_batch=True),
        )
        for listing in (plain, by, named, alone, replace(plain, batch_id="b7")):
            for newest_first in (False, True):
                lists.list_files(connection, replace(listing, newest_first=newest_first), cursor, 50)
        for listing in (plain, by):
            lists.list_batches(connection, listing, cursor, 50)
    for given in (Trail(), Trail(file_id="f7"), Trail(batch_id="b7"), Trail(actor="user:a"), Trail(source="grpc")):
        trail.list_audit_events(connection, given, Cursor(5), 50)
    trail.list_audit_events(connection, Trail(owner), Cursor(5), 50)
    trail.list_audit_events(connection, Trail(occurred_after=now()), None, 50)

    _assert_no_walks(connection)


def test_no_watch_walks_a_table(connection: Explaining) -> None:
    for after, skip, sees in itertools.product((0, 10), (0, FILES), (None, "ann")):
        for targets in (
            Targets(all=True),
            Targets(frozenset({"f1", "f2"}), frozenset({"b1"}), include_batch_files=True),
        ):
            # The counter is not what this test filled.
            connection.plans.clear()
            query = changes._Query(targets, sees, after, 100, skip)
            if targets.all:
                for table in (query.tables.files, query.tables.batches):
                    changes._every_row(connection, query, table)
            else:
                changes._named_files(connection, query)
                changes._named_batches(connection, query)
                changes._files_of_batches(connection, query)
            _assert_no_walks(connection)


def test_what_the_janitor_and_the_sealer_read_walks_no_table(connection: Explaining) -> None:
    queries.owed_deletions(connection, 10, "n")
    queries.look(connection, "n", 10)
    queries.read_progress(connection, Targets(frozenset({"a"}), frozenset({"b"})), 0.0, "n")
    queries.held_elsewhere(connection, ["f1"], "n")
    queries.due_cancels(connection, 10)
    queries.names_of(connection, ["f1", "f2"])
    queries.read_unsealed(connection, 100)
    queries.count_unsealed(connection, 100)

    _assert_no_walks(connection, "owed_deletion", "file_cancel_due", "store_info", "audit_seal")

    connection.plans.clear()
    queries.idle_rows(connection, Moment(now(), 1.0), [], 10, "n")
    _assert_no_walks(connection, "file_open")


def _assert_no_walks(connection: Explaining, *wanted: str) -> None:
    assert connection.plans
    for sql, plan in connection.plans.items():
        assert [walk for walk in walks(plan) if not any(name in walk for name in wanted)] == [], f"{sql}\n{plan}"
