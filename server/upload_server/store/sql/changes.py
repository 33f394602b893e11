"""Decides how a watch reads: rows in the order of their last change, from the one snapshot that its caller opened.

Must not know watchers. The opening state is the same read as the tail, after 0.
"""

# ruff: noqa: S608 - put together from constants of this program; what callers give are parameters

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import Batch, File
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Dialect, Sql
from upload_server.store.sql.queries import read_bounds, read_ends
from upload_server.store.sql.rows import BATCH_COLUMNS, FILE_COLUMNS, Row, batch_of, file_of
from upload_server.store.sql.statements import OPEN_BATCH, OPEN_FILE
from upload_server.store.values import Change, Changes, Targets


class _Table:
    """How a table is read as changes, of everybody or of ``:owner``, whose rows have indexes of their own."""

    def __init__(
        self,
        name: str,
        columns: str,
        open_states: str,
        make: Callable[[Row], File] | Callable[[Row], Batch],
        *,
        everybody: bool,
    ) -> None:
        """Write its queries."""
        alias = name[0]
        number, owner, status = f"{alias}.change_no", f"{alias}.owner", f"{alias}.status"
        # That the index has such rows must be said in its own words.
        owned = "" if everybody else f" AND {owner} = :owner AND {owner} <> ''"
        self.make = make

        def select(source: str) -> str:
            return f"SELECT {columns} FROM {source}"

        def indexed(dialect: Dialect, index: str) -> str:
            return dialect.by_index(f"{name} AS {alias}", f"{name}_{index}")

        def named(dialect: Dialect) -> str:
            unindexed = dialect.unindexed(number, "bigint")
            owned = "" if everybody else f" AND {dialect.unindexed(owner)} = :owner"
            return select(
                f"{dialect.items('ids')} {dialect.looked_up(name, alias, f'{alias}.{name}_id = k.value')}"
                f" WHERE {unindexed} > :after{owned} AND {self.wanted}"
                f" ORDER BY {unindexed} LIMIT :limit"
            )

        # Rows that are new, or not final.
        self.wanted = f"({number} > :skip OR {status} IN ({open_states}))"
        # By change number; those that are not final have an index of their own.
        self.new = Sql(
            lambda dialect: select(
                f"{f'{name} AS {alias}' if everybody else indexed(dialect, 'owner_change_no')}"
                f" WHERE {number} > :after{owned} ORDER BY {number} LIMIT :limit"
            )
        )
        self.open = Sql(
            lambda dialect: select(
                f"{indexed(dialect, 'open' if everybody else 'owner_open')} WHERE {status} IN ({open_states})"
                f" AND {number} > :after AND {number} <= :skip{owned} ORDER BY {number} LIMIT :limit"
            )
        )
        self.named = Sql(named)


class _Tables:
    """How both tables are read."""

    def __init__(self, *, everybody: bool) -> None:
        self.files = _Table("file", FILE_COLUMNS, OPEN_FILE, file_of, everybody=everybody)
        self.batches = _Table("batch", BATCH_COLUMNS, OPEN_BATCH, batch_of, everybody=everybody)


_EVERYBODYS, _OWNERS = _Tables(everybody=True), _Tables(everybody=False)


@dataclass(frozen=True, slots=True)
class _Query:
    """One call of ``read_changes``; ``limit`` is one above the page, so that a last row tells of a next page."""

    targets: Targets
    sees: str | None
    after: int
    limit: int
    skip: int = 0

    @property
    def tables(self) -> _Tables:
        """How the tables are read for it."""
        return _EVERYBODYS if self.sees is None else _OWNERS


def check_targets(connection: Connection, targets: Targets, sees: str | None) -> Changes:
    """Read the named rows; raises ``FileNotFound`` or ``BatchNotFound`` for the first unknown id."""
    query = _Query(targets, sees, 0, len(targets.file_ids) + len(targets.batch_ids))
    found = [*_named_files(connection, query), *_named_batches(connection, query)]
    known = {change.record.file_id if isinstance(change.record, File) else change.record.batch_id for change in found}
    for file_id in sorted(targets.file_ids - known):
        raise FileNotFound(file_id)
    for batch_id in sorted(targets.batch_ids - known):
        raise BatchNotFound(batch_id)
    found.sort(key=_number)
    last_change, origin = read_bounds(connection)
    return Changes(tuple(found), complete=True, last_change=last_change, origin=origin)


def read_changes(
    connection: Connection, targets: Targets, sees: str | None, after: int, limit: int, skip_final_upto: int
) -> Changes:
    """Read the rows whose last change is above ``after``, in the order of those changes, at most ``limit``."""
    last_change, given = read_ends(connection)
    if after >= given:
        return Changes((), complete=True, last_change=last_change)
    query = _Query(targets, sees, after, limit + 1, skip_final_upto)
    if targets.all:
        found = [_every_row(connection, query, table) for table in (query.tables.files, query.tables.batches)]
    else:
        found = [_named_files(connection, query), _named_batches(connection, query)]
        if targets.include_batch_files:
            found.append(_files_of_batches(connection, query))
    merged = list(_distinct(heapq.merge(*found, key=_number)))
    complete = len(merged) <= limit
    if merged and merged[-1].no > last_change:
        # Those come when no number before them is to be committed any more.
        merged, complete = [change for change in merged if change.no <= last_change], False
    return Changes(tuple(merged[:limit]), complete, last_change)


def _number(change: Change) -> int:
    return change.no


def _distinct(changes: Iterable[Change]) -> Iterable[Change]:
    """Leave out repetitions: a file can be named itself and through its batch."""
    last = 0
    for change in changes:
        if change.no != last:
            last = change.no
            yield change


def _read(connection: Connection, table: _Table, sql: Sql, **parameters: Any) -> list[Change]:
    records = [table.make(row) for row in connection.rows(sql, parameters)]
    return [Change(record.change_no, record) for record in records]


def _every_row(connection: Connection, query: _Query, table: _Table) -> list[Change]:
    """Read a table by change number; up to ``skip`` only rows that are not final, by their own index."""
    found: list[Change] = []
    if query.after < query.skip:
        found = _read(
            connection,
            table,
            table.open,
            after=query.after,
            skip=query.skip,
            owner=query.sees,
            limit=query.limit,
        )
    if len(found) < query.limit:
        found += _read(
            connection,
            table,
            table.new,
            after=max(query.after, query.skip),
            owner=query.sees,
            limit=query.limit - len(found),
        )
    return found


def _named_files(connection: Connection, query: _Query) -> list[Change]:
    return _named(connection, query, query.tables.files, query.targets.file_ids)


def _named_batches(connection: Connection, query: _Query) -> list[Change]:
    return _named(connection, query, query.tables.batches, query.targets.batch_ids)


def _named(connection: Connection, query: _Query, table: _Table, ids: Iterable[str]) -> list[Change]:
    return _read(
        connection,
        table,
        table.named,
        ids=list(ids),
        after=query.after,
        owner=query.sees,
        skip=query.skip,
        limit=query.limit,
    )


_ROWS_OF_BATCHES = Sql(
    lambda dialect: (
        f"SELECT b.id, b.owner FROM {dialect.items('ids')} {dialect.looked_up('batch', 'b', 'b.batch_id = k.value')}"
    )
)
_FILES_BY_NUMBER = Sql(
    lambda dialect: (
        f"SELECT {FILE_COLUMNS} FROM {dialect.items('page', 'bigint')} CROSS JOIN file AS f"
        " WHERE f.change_no = k.value ORDER BY k.key"
    )
)
_OF_BATCH = "SELECT f.change_no FROM file AS f WHERE f.batch_row = :batch_row AND f.change_no > :after"
_IN_ORDER = "ORDER BY f.change_no LIMIT :limit"
# The index alone is enough unless final rows are to be skipped.
_NUMBERS_OF_BATCH = Sql(f"{_OF_BATCH} {_IN_ORDER}")
_WANTED_NUMBERS_OF_BATCH = Sql(f"{_OF_BATCH} AND {_EVERYBODYS.files.wanted} {_IN_ORDER}")


def _files_of_batches(connection: Connection, query: _Query) -> list[Change]:
    """Read a page of the batches' files: first their numbers, from the index alone, then those rows."""
    batches = connection.rows(_ROWS_OF_BATCHES, {"ids": list(query.targets.batch_ids)})
    # A batch has one owner for all its files.
    seen = [row for row, owner in batches if query.sees in (None, owner)]
    numbers = heapq.merge(*(_numbers_of_batch(connection, query, batch_row) for batch_row in seen))
    page = [number for number, _ in zip(numbers, range(query.limit), strict=False)]
    return _read(connection, query.tables.files, _FILES_BY_NUMBER, page=page)


def _numbers_of_batch(connection: Connection, query: _Query, batch_row: int) -> list[int]:
    sql = _WANTED_NUMBERS_OF_BATCH if query.skip > query.after else _NUMBERS_OF_BATCH
    parameters = {"batch_row": batch_row, "after": query.after, "limit": query.limit, "skip": query.skip}
    return [row[0] for row in connection.rows(sql, parameters)]
