"""No statement walks a whole table, however many files there are: read off SQLite's own plans."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract.store.kit import by_the_wall, now
from upload_server.domain.errors import FileNotFound
from upload_server.domain.states import FileStatus
from upload_server.domain.tokens import Cursor
from upload_server.store.options import StoreOptions
from upload_server.store.sql import changes, lists, pruning, queries, statements, tally, trail
from upload_server.store.sql.dialect import Sql
from upload_server.store.sql.tally import Tally
from upload_server.store.sqlite.connection import SqliteConnection, connect
from upload_server.store.sqlite.dialect import SQLITE
from upload_server.store.sqlite.schema import prepare
from upload_server.store.values import Listing, Targets, Trail

STATEMENTS = {name: sql.text(SQLITE) for name, sql in vars(statements).items() if isinstance(sql, Sql)}
# Every row of these is wanted, or at most a page in the table's own order.
WALKS = {"SCAN o"}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[SqliteConnection]:
    path = tmp_path / "upload.db"
    prepare(path)
    opened = connect(path, StoreOptions(), writes=True)
    yield opened
    opened.close()


def plan(connection: SqliteConnection, sql: str) -> list[str]:
    parameters = dict.fromkeys(re.findall(r":(\w+)", sql), "[]")
    return [row[3] for row in connection.rows(f"EXPLAIN QUERY PLAN {sql}", parameters)]


def walks(steps: list[str]) -> set[str]:
    """Steps that look at more than what was asked for: tables from end to end, or every file that is open."""
    # Nodes are few, stops are gone as soon as they are heard, and there is one origin.
    of_lists = re.compile(
        r"SCAN (\w+ VIRTUAL TABLE|node|lease|stream_stop|ticket|audit_origin|\(subquery-\d+\)|store_info|CONSTANT ROW)"
    )
    scans = {step for step in steps if step.startswith("SCAN") and not of_lists.match(step)}
    # A part of a list's index: every row of an owner, or of a state.
    part = re.compile(r"_owner_\w+ \(owner=\?( AND status=\?)?\)")
    return scans | {step for step in steps if part.search(step)}


# Once, when the store is opened; for an operator.
@pytest.mark.parametrize("name", sorted(STATEMENTS.keys() - {"COUNT_OPEN", "READ_NODES"}))
def test_a_write_touches_only_the_rows_it_is_about(connection: SqliteConnection, name: str) -> None:
    assert walks(plan(connection, STATEMENTS[name])) == set()


class Explaining(SqliteConnection):
    """Plans what it is asked to read instead of reading it."""

    def __init__(self, real: SqliteConnection) -> None:
        super().__init__(real.database)
        self.steps: list[str] = []

    def rows(self, sql: Sql | str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        sql = sql if isinstance(sql, str) else sql.text(SQLITE)
        if sql.startswith("EXPLAIN"):
            return super().rows(sql, values)
        self.steps += plan(self, sql)
        # So that a read goes on to its next statement.
        if "last_change" in sql:
            return [(1_000_000, 1_000_000)]
        return [(1, "ann")] if "SELECT b.id, b.owner" in sql else []

    def page(self, sql: Sql | str, values: Mapping[str, Any], limit: int) -> tuple[list[tuple[Any, ...]], bool]:
        return self.rows(sql, {**values, "limit": limit + 1}), False


def test_a_read_touches_only_the_rows_it_is_about(connection: SqliteConnection) -> None:
    explaining = Explaining(connection)
    named = Targets(frozenset({"a"}), frozenset({"b"}), include_batch_files=True)

    for file_id in ("", "f"):
        for batch_id in ("", "b"):
            trail.list_audit_events(explaining, Trail(file_id=file_id, batch_id=batch_id), None, 10)
    for sees in ("ann", None):
        changes.read_changes(explaining, Targets(all=True), sees, 5, 10, 100)
        changes.read_changes(explaining, named, sees, 5, 10, 0)
        changes.read_changes(explaining, named, sees, 5, 10, 100)
    with contextlib.suppress(FileNotFound):
        queries.read_tus_metadata(explaining, "f", None)
    queries.owed_deletions(explaining, 10, "n")
    queries.look(explaining, "n", 10)
    queries.read_progress(explaining, named, 0.0, "n")
    queries.read_progress(explaining, Targets(all=True), 0.0, "n")
    queries.held_elsewhere(explaining, ["a"], "n")
    queries.due_cancels(explaining, 10)
    queries.idle_rows(explaining, by_the_wall(now()), ["a"], 10, "n")
    queries.names_of(explaining, ["a"])
    pruning.pruned_rows(explaining, 10)
    tally.tally(explaining, Tally(1, 0, Counter(), Counter(), Counter(), {}), now())

    assert walks(explaining.steps) == WALKS
    # Sorted are only rows that were named, never what is found by change number, and what changed since the last count.
    assert sum("TEMP B-TREE" in step for step in explaining.steps) <= 15
    for table, index in itertools.product(("file", "batch"), ("change_no", "open")):
        assert any(f"{table}_owner_{index} (owner=? AND change_no>?" in step for step in explaining.steps)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("statuses", [[], ["pending"], ["pending", "failed"], [*FileStatus]], ids=len)
@pytest.mark.parametrize("owner", ["ann", None])
def test_a_page_is_read_where_it_begins_and_nothing_is_sorted(
    connection: SqliteConnection, owner: str | None, statuses: list[str], newest_first: bool
) -> None:
    explaining = Explaining(connection)
    for batch_id in ("", "b"):
        lists.list_files(explaining, Listing(owner, statuses, batch_id, newest_first=newest_first), Cursor(5, 5), 10)
    lists.list_batches(explaining, Listing(owner, statuses, newest_first=newest_first), Cursor(5, 5), 10)
    without_batch = Listing(owner, without_batch=True, newest_first=newest_first)
    lists.list_files(explaining, without_batch, Cursor(5, 5), 10)

    assert walks(explaining.steps) == set()
    assert not [step for step in explaining.steps if "TEMP B-TREE" in step]
    # What has no owner, and what has one, each by its index.
    kinds = ("_owner_", "_all_") if owner is None else ("_owner_",)
    for kind in kinds:
        bounded = [step for step in explaining.steps if kind in step and "created_at>? AND created_at<?" in step]
        assert len(bounded) == 2 * max(1, len(statuses)) + 1
        assert any(f"file{kind}without_batch" in step for step in bounded)


# What each filter is read by, when it takes many rows.
INDEX_OF: Mapping[str, str] = {
    "filename_prefix": "_owner_created_at",
    "created_after": "_owner_created_at",
    "updated_after": "_owner_created_at",
    "cancelled_by": "_owner_cancelled_by_created_at",
}


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("owner", ["ann", None])
def test_a_filter_reads_in_order_or_the_rows_that_were_found(
    connection: SqliteConnection, monkeypatch: pytest.MonkeyPatch, owner: str | None, few: bool, newest_first: bool
) -> None:
    monkeypatch.setattr(lists, "_FEW", 1 if few else -1)
    values: dict[str, Any] = {"filename_prefix": "a", "cancelled_by": "user"}
    for name, index in INDEX_OF.items():
        for read, table in ((lists.list_files, "file"), (lists.list_batches, "batch")):
            explaining = Explaining(connection)
            listing = Listing(owner, **{name: values.get(name, now())}, newest_first=newest_first)
            read(explaining, listing, Cursor(5, 5), 10)
            assert walks(explaining.steps) == set()
            # Rows that were found are sorted, few as they are; nothing else is.
            by_ids = few and name == "filename_prefix"
            assert sum("TEMP B-TREE" in step for step in explaining.steps) == by_ids
            for one in {index, index if owner else index.replace("_owner_", "_all_")}:
                assert by_ids or any(f"USING INDEX {table}{one}" in step for step in explaining.steps)


@pytest.mark.parametrize("newest_first", [False, True])
def test_events_are_read_by_the_index_of_their_filter(connection: SqliteConnection, newest_first: bool) -> None:
    for name in ("actor", "source", "to_status"):
        explaining = Explaining(connection)
        values: dict[str, Any] = {name: "x"}
        wanted = replace(Trail(newest_first=newest_first), **values)
        trail.list_audit_events(explaining, wanted, Cursor(5), 10)
        assert walks(explaining.steps) == set()
        assert not [step for step in explaining.steps if "TEMP B-TREE" in step]
        index = (
            "audit_event_actor (actor=?"
            if name == "actor"
            else "audit_event_source_to_status (source=? AND to_status=?"
        )
        assert any(index in step for step in explaining.steps)
    explaining = Explaining(connection)
    trail.list_audit_events(explaining, Trail(actor="user", newest_first=newest_first), Cursor(5), 10)
    assert not any("audit_event_actor" in step for step in explaining.steps)
