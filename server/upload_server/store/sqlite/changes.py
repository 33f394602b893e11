"""Decides how a watch reads: rows in the order of their last change, from the one snapshot that its caller opened.

Must not know who watches. The opening state is the same read as the tail, after 0.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import Batch, File
from upload_server.store.protocol import Change, Changes, Targets
from upload_server.store.sqlite.connection import Connection
from upload_server.store.sqlite.queries import read_last_change
from upload_server.store.sqlite.rows import BATCH_COLUMNS, FILE_COLUMNS, Row, batch_of, file_of, to_json
from upload_server.store.sqlite.statements import OPEN_BATCH, OPEN_FILE


@dataclass(frozen=True, slots=True)
class _Table:
    """A table with what is needed to read it as changes."""

    columns: str
    # Its name with an alias, the alias, the column of public ids.
    name: str
    alias: str
    key: str
    # The index by change number of just what is not final, and what that is.
    open_index: str
    open_states: str
    make: Callable[[Row], File] | Callable[[Row], Batch]


_FILES = _Table(FILE_COLUMNS, "file AS f", "f", "file_id", "file_open", OPEN_FILE, file_of)
_BATCHES = _Table(BATCH_COLUMNS, "batch AS b", "b", "batch_id", "batch_open", OPEN_BATCH, batch_of)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one call of ``read_changes`` asks for; ``limit`` is one more, which tells whether there is more."""

    targets: Targets
    owner: str
    after: int
    limit: int
    skip: int = 0


def check_targets(connection: Connection, targets: Targets, owner: str) -> Changes:
    """Read the named rows; raises ``FileNotFound`` or ``BatchNotFound`` for the first unknown id."""
    asked = _Asked(targets, owner, 0, len(targets.file_ids) + len(targets.batch_ids))
    found = [*_named_files(connection, asked), *_named_batches(connection, asked)]
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
    asked = _Asked(targets, owner, after, limit + 1, skip_final_upto)
    if targets.all:
        found = [_every_row(connection, asked, table) for table in (_FILES, _BATCHES)]
    else:
        found = [_named_files(connection, asked), _named_batches(connection, asked)]
        if targets.include_batch_files:
            found.append(_files_of_batches(connection, asked))
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


def _every_row(connection: Connection, asked: _Asked, table: _Table) -> list[Change]:
    """Read a table by change number; up to ``skip`` only what is not final, by the index of just that."""
    number = f"{table.alias}.change_no"
    rest = f"{table.alias}.owner = :owner ORDER BY {number} LIMIT :limit"
    found: list[Change] = []
    if asked.after < asked.skip:
        found = _read(
            connection,
            table,
            f"{table.name} INDEXED BY {table.open_index} WHERE {table.alias}.status IN ({table.open_states})"
            f" AND {number} > :after AND {number} <= :skip AND {rest}",
            after=asked.after,
            skip=asked.skip,
            owner=asked.owner,
            limit=asked.limit,
        )
    if len(found) < asked.limit:
        found += _read(
            connection,
            table,
            f"{table.name} WHERE {number} > :after AND {rest}",
            after=max(asked.after, asked.skip),
            owner=asked.owner,
            limit=asked.limit - len(found),
        )
    return found


def _named_files(connection: Connection, asked: _Asked) -> list[Change]:
    return _named(connection, asked, _FILES, asked.targets.file_ids)


def _named_batches(connection: Connection, asked: _Asked) -> list[Change]:
    return _named(connection, asked, _BATCHES, asked.targets.batch_ids)


def _shown(table: _Table) -> str:
    return f"({table.alias}.change_no > :skip OR {table.alias}.status IN ({table.open_states}))"


def _named(connection: Connection, asked: _Asked, table: _Table, ids: Iterable[str]) -> list[Change]:
    # The plus keeps SQLite from walking everything by change number.
    number = f"+{table.alias}.change_no"
    return _read(
        connection,
        table,
        f"json_each(:ids) AS k CROSS JOIN {table.name} ON {table.alias}.{table.key} = k.value"
        f" WHERE {number} > :after AND {table.alias}.owner = :owner AND {_shown(table)}"
        f" ORDER BY {number} LIMIT :limit",
        ids=to_json(list(ids)),
        after=asked.after,
        owner=asked.owner,
        skip=asked.skip,
        limit=asked.limit,
    )


def _files_of_batches(connection: Connection, asked: _Asked) -> list[Change]:
    """Read a page of the batches' files: first their numbers, from the index alone, then those rows."""
    batches = connection.rows(
        "SELECT b.id FROM json_each(:ids) AS k CROSS JOIN batch AS b ON b.batch_id = k.value WHERE b.owner = :owner",
        {"ids": to_json(list(asked.targets.batch_ids)), "owner": asked.owner},
    )
    numbers = heapq.merge(*(_numbers_of_batch(connection, asked, batch_row) for (batch_row,) in batches))
    page = [number for number, _ in zip(numbers, range(asked.limit), strict=False)]
    return _read(
        connection,
        _FILES,
        "json_each(:page) AS k CROSS JOIN file AS f ON f.change_no = k.value ORDER BY k.key",
        page=to_json(page),
    )


def _numbers_of_batch(connection: Connection, asked: _Asked, batch_row: int) -> list[int]:
    # Only with something to skip are the rows themselves looked at.
    only_shown = f" AND {_shown(_FILES)}" if asked.skip > asked.after else ""
    sql = (
        "SELECT f.change_no FROM file AS f WHERE f.batch_row = :batch_row AND f.change_no > :after"
        f"{only_shown} ORDER BY f.change_no LIMIT :limit"
    )
    parameters = {"batch_row": batch_row, "after": asked.after, "limit": asked.limit, "skip": asked.skip}
    return [row[0] for row in connection.rows(sql, parameters)]
