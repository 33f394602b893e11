"""Decides how a watch reads: rows in the order of their last change, from the one snapshot that its caller opened.

Must not know watchers. The opening state is the same read as the tail, after 0. Such reads follow every commit, so they
are text: Peewee would build each anew for its targets, 350 µs beside 15 to run it.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import Batch, File
from upload_server.store.postgresql.connection import Connection
from upload_server.store.postgresql.queries import read_last_change
from upload_server.store.postgresql.rows import BATCH_COLUMNS, FILE_COLUMNS, Row, batch_of, file_of
from upload_server.store.postgresql.statements import OPEN_BATCH, OPEN_FILE, numbers_of, texts_of
from upload_server.store.protocol import Change, Changes, Targets


@dataclass(frozen=True, slots=True)
class _Table:
    """How a table is read as changes."""

    columns: str
    # Its name with an alias, the alias, the column of public ids.
    name: str
    alias: str
    key: str
    # States of rows that are not final; there is an index of those by change number.
    open_states: str
    make: Callable[[Row], File] | Callable[[Row], Batch]


_FILES = _Table(FILE_COLUMNS, "file AS f", "f", "file_id", OPEN_FILE, file_of)
_BATCHES = _Table(BATCH_COLUMNS, "batch AS b", "b", "batch_id", OPEN_BATCH, batch_of)


@dataclass(frozen=True, slots=True)
class _Query:
    """One call of ``read_changes``; ``limit`` is one above the page, so that a last row tells of a next page."""

    targets: Targets
    owner: str
    after: int
    limit: int
    skip: int = 0


def check_targets(connection: Connection, targets: Targets, owner: str) -> Changes:
    """Read the named rows; raises ``FileNotFound`` or ``BatchNotFound`` for the first unknown id."""
    query = _Query(targets, owner, 0, len(targets.file_ids) + len(targets.batch_ids))
    found = [*_named_files(connection, query), *_named_batches(connection, query)]
    known = {change.record.file_id if isinstance(change.record, File) else change.record.batch_id for change in found}
    for file_id in sorted(targets.file_ids - known):
        raise FileNotFound(file_id)
    for batch_id in sorted(targets.batch_ids - known):
        raise BatchNotFound(batch_id)
    found.sort(key=_number)
    return Changes(tuple(found), complete=True, last_change=read_last_change(connection))


def read_changes(
    connection: Connection, targets: Targets, owner: str, after: int, limit: int, skip_final_upto: int
) -> Changes:
    """Read the rows whose last change is above ``after``, in the order of those changes, at most ``limit``."""
    last_change = read_last_change(connection)
    if after >= last_change:
        return Changes((), complete=True, last_change=last_change)
    query = _Query(targets, owner, after, limit + 1, skip_final_upto)
    if targets.all:
        found = [_every_row(connection, query, table) for table in (_FILES, _BATCHES)]
    else:
        found = [_named_files(connection, query), _named_batches(connection, query)]
        if targets.include_batch_files:
            found.append(_files_of_batches(connection, query))
    merged = list(_distinct(heapq.merge(*found, key=_number)))
    page = tuple(merged[:limit])
    return Changes(page, complete=len(merged) <= limit, last_change=last_change)


def _number(change: Change) -> int:
    return change.no


def _distinct(changes: Iterable[Change]) -> Iterable[Change]:
    """Leave out repetitions: a file can be named itself and through its batch."""
    last = 0
    for change in changes:
        if change.no != last:
            last = change.no
            yield change


def _read(connection: Connection, table: _Table, sql: str, **parameters: Any) -> list[Change]:
    records = [table.make(row) for row in connection.rows(f"SELECT {table.columns} FROM {sql}", parameters)]
    return [Change(record.change_no, record) for record in records]


def _every_row(connection: Connection, query: _Query, table: _Table) -> list[Change]:
    """Read a table by change number; up to ``skip`` only rows that are not final, by their own index."""
    # Here and below, no index is on what is compared in this form: none of those may be walked.
    number = f"{table.alias}.change_no"
    rest = f"{table.alias}.owner || '' = %(owner)s ORDER BY {number} LIMIT %(limit)s"
    found: list[Change] = []
    if query.after < query.skip:
        found = _read(
            connection,
            table,
            f"{table.name} WHERE {table.alias}.status IN ({table.open_states})"
            f" AND {number} > %(after)s AND {number} <= %(skip)s AND {rest}",
            after=query.after,
            skip=query.skip,
            owner=query.owner,
            limit=query.limit,
        )
    if len(found) < query.limit:
        found += _read(
            connection,
            table,
            f"{table.name} WHERE {number} > %(after)s AND {rest}",
            after=max(query.after, query.skip),
            owner=query.owner,
            limit=query.limit - len(found),
        )
    return found


def _named_files(connection: Connection, query: _Query) -> list[Change]:
    return _named(connection, query, _FILES, query.targets.file_ids)


def _named_batches(connection: Connection, query: _Query) -> list[Change]:
    return _named(connection, query, _BATCHES, query.targets.batch_ids)


def _open_or_new(table: _Table) -> str:
    return f"({table.alias}.change_no > %(skip)s OR {table.alias}.status IN ({table.open_states}))"


def _named(connection: Connection, query: _Query, table: _Table, ids: Iterable[str]) -> list[Change]:
    # Looked up one by one, whatever else is asked: OFFSET keeps the planner from another order.
    return _read(
        connection,
        table,
        f"{texts_of('ids')} CROSS JOIN LATERAL ("
        f"SELECT * FROM {table.name} WHERE {table.alias}.{table.key} = k.value OFFSET 0) AS {table.alias}"
        f" WHERE {table.alias}.change_no > %(after)s AND {table.alias}.owner = %(owner)s AND {_open_or_new(table)}"
        f" ORDER BY {table.alias}.change_no LIMIT %(limit)s",
        ids=list(ids),
        after=query.after,
        owner=query.owner,
        skip=query.skip,
        limit=query.limit,
    )


def _files_of_batches(connection: Connection, query: _Query) -> list[Change]:
    """Read a page of the batches' files: first their numbers, from the index alone, then those rows."""
    batches = connection.rows(
        f"SELECT b.id FROM {texts_of('ids')} CROSS JOIN LATERAL ("
        "SELECT * FROM batch AS b WHERE b.batch_id = k.value OFFSET 0) AS b WHERE b.owner = %(owner)s",
        {"ids": list(query.targets.batch_ids), "owner": query.owner},
    )
    numbers = heapq.merge(*(_numbers_of_batch(connection, query, batch_row) for (batch_row,) in batches))
    page = [number for number, _ in zip(numbers, range(query.limit), strict=False)]
    return _read(
        connection,
        _FILES,
        f"{numbers_of('page')} JOIN file AS f ON f.change_no = k.value ORDER BY k.place",
        page=page,
    )


def _numbers_of_batch(connection: Connection, query: _Query, batch_row: int) -> list[int]:
    # The index alone is enough unless final rows are to be skipped.
    only_wanted = f" AND {_open_or_new(_FILES)}" if query.skip > query.after else ""
    sql = (
        "SELECT f.change_no FROM file AS f WHERE f.batch_row = %(batch_row)s AND f.change_no > %(after)s"
        f"{only_wanted} ORDER BY f.change_no LIMIT %(limit)s"
    )
    parameters = {"batch_row": batch_row, "after": query.after, "limit": query.limit, "skip": query.skip}
    return [row[0] for row in connection.rows(sql, parameters)]
