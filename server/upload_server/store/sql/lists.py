"""Decides how lists are read: each page by an index whose tail is the list's order, from where the page begins.

Must not know threads. Files and batches go by (created_at, id): times repeat, and a row that waited for the writer has
a greater id than one that overtook it. A filter that no such index serves is looked up first: few rows are read by
their ids, many are met by reading in order. Either way a page looks at a bounded number of rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from peewee import SQL, Tuple, fn

from upload_server.domain.fields import PREFIX_CHARACTERS
from upload_server.domain.states import Batch, File, FileStatus, Source
from upload_server.domain.tokens import Cursor
from upload_server.store import models
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import EMPTY, Dialect, Parameter, Sql
from upload_server.store.sql.rows import BATCH_COLUMNS, FILE_COLUMNS, A, B, F, Row, batch_of, file_of, time_of
from upload_server.store.values import Listing, Page

T = TypeVar("T", File, Batch)
# Where a row stands in the order: its time and its id.
Place: TypeAlias = tuple[datetime, int]
Values: TypeAlias = dict[str, Any]

# How many rows a page looks at: a few are enough where many are wanted, and more it never looks at (AIP-158).
LOOKS = (500, 10_000)
# So many that a filter finds are few.
_FEW = 2_000

HIGHEST_ROW = 2**63 - 1
FAR_BACK, FAR_OFF = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class _Way(Enum):
    """How a page finds its rows: in order, by ids that are known, or as those of one batch."""

    ORDER = "order"
    IDS = "ids"
    BATCH = "batch"


@dataclass(frozen=True, eq=False)
class _Table(Generic[T]):
    """How a table is listed."""

    row: Any
    columns: str
    make: Callable[[Row], T]
    # Of an audit event: which row of this table it is about, or about a part of.
    event_row: Any


_FILES = _Table(F, FILE_COLUMNS, file_of, A.file_row)
_BATCHES = _Table(B, BATCH_COLUMNS, batch_of, A.batch_row)


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a page ends though the list goes on: as values of its query, and for the next page."""

    bound: Values
    cursor: Cursor


@dataclass(frozen=True)
class _Shape:
    """What decides the text of a page's query; the values come in by name."""

    table: _Table[Any]
    way: _Way
    statuses: int
    cancelled_by: bool
    cancelled_with_batch: bool
    without_batch: bool
    filename_prefix: bool
    updated_after: bool
    newest_first: bool
    everybody: bool

    @property
    def picks(self) -> bool:
        """Whether rows are looked at in order that may not be wanted."""
        others = self.without_batch and (self.cancelled_by or self.statuses)
        filters = (self.filename_prefix, self.updated_after, self.cancelled_with_batch, others)
        return self.way is _Way.ORDER and any(filters)


_OWNER, _LIMIT = Parameter("owner"), Parameter("limit")
# A batch's row by its public id.
BATCH_ROW = models.Batch.select(models.Batch.id).where(models.Batch.batch_id == Parameter("batch_id"))
_CANCELLED_BY = Parameter("cancelled_by")
_NOBODY, _WITH_BATCH = SQL("''"), SQL(f"'{Source.BATCH_CANCEL}'")
_CANCELLED = SQL(f"'{FileStatus.CANCELLED}'")


def _start_of_name(alias: str) -> str:
    return f"substr({alias}.filename, 1, {PREFIX_CHARACTERS})"


def _with_prefix(start: str) -> Any:
    return SQL(f"({start} >= :prefix AND {start} < :prefix_end)")


def _unindexed(dialect: Dialect, row: Any, column: str) -> Any:
    return SQL(dialect.unindexed(f"{_alias(row)}.{column}"))


def _of_statuses(dialect: Dialect, row: Any) -> Any:
    return SQL(dialect.is_item(dialect.unindexed(f"{_alias(row)}.status"), "statuses"))


def _alias(row: Any) -> str:
    return "f" if row is F else "b"


def _owned(row: Any, *, everybody: bool) -> list[Any]:
    """Return the conditions whose rows, together, are those of ``:owner``, or of everybody.

    What has no owner is all there is while callers have no names. Only what has one is in the indexes that serve a list
    of everybody's: so nothing pays for them before there are names.
    """
    return [row.owner == EMPTY, row.owner != EMPTY] if everybody else [row.owner == _OWNER]


def _between(row: Any) -> Any:
    """Return the condition that a row lies between two places, both excluded."""
    place = Tuple(row.created_at, row.id)
    return (place > Tuple(Parameter("low_at"), Parameter("low_row"))) & (
        place < Tuple(Parameter("high_at"), Parameter("high_row"))
    )


def _rest(dialect: Dialect, shape: _Shape) -> list[Any]:
    """Return the conditions that are tried on each row, whichever way it was found."""
    row, conditions = shape.table.row, []
    if shape.updated_after:
        conditions.append(row.updated_at > Parameter("updated_after"))
    if shape.filename_prefix and row is F:
        conditions.append(_with_prefix(dialect.unindexed(_start_of_name("f"))))
    elif shape.filename_prefix:
        member = models.File.alias("m")
        members = member.select(SQL("1")).where(member.batch_row == row.id, _with_prefix(_start_of_name("m")))
        conditions.append(fn.EXISTS(members))
    if shape.without_batch:
        conditions.append(row.batch_row.is_null())
    if shape.cancelled_with_batch:
        conditions.append(_unindexed(dialect, row, "cancelled_by") == _CANCELLED_BY)
        conditions.append(row.status == _CANCELLED)
    return conditions


def _in_order(dialect: Dialect, shape: _Shape, query: Any, conditions: Sequence[Any], most: Any) -> Any:
    """Return ``query`` by the indexes that serve best: of several states a slice each, of which ``most`` are wanted."""
    row = shape.table.row
    query = query.where(_between(row), *conditions)
    slices = [query.where(owned) for owned in _owned(row, everybody=shape.everybody)]
    if shape.cancelled_by or shape.cancelled_with_batch:
        if shape.cancelled_by:
            # That the index has such rows must be said in its own words.
            others = [row.cancelled_by != word for word in (_NOBODY, *([_WITH_BATCH] if row is F else []))]
            slices = [each.where(row.cancelled_by == _CANCELLED_BY, *others) for each in slices]
        if shape.statuses:
            slices = [each.where(_of_statuses(dialect, row)) for each in slices]
    elif shape.statuses:
        states = [Parameter(f"status{index}") for index in range(shape.statuses)]
        slices = [each.where(row.status == state) for each in slices for state in states]
    return _merged(dialect, shape, slices, (row.created_at, row.id), most)


def _merged(dialect: Dialect, shape: _Shape, slices: Sequence[Any], order: Sequence[Any], most: Any) -> Any:
    """Return the rows of several queries in ``order``, of which ``most`` are wanted."""
    directed = [column.desc() if shape.newest_first else column for column in order]
    query = dialect.sliced(slices, directed, most)
    if len(slices) > 1:
        names = [column.column_name for column in order]
        directed = [SQL(f"{name} DESC" if shape.newest_first else name) for name in names]
    return query.order_by(*directed)


@functools.cache
def _page(shape: _Shape) -> Sql:
    """Return the query of a page."""
    return Sql(functools.partial(_make_page, shape))


def _make_page(shape: _Shape, dialect: Dialect) -> Any:
    row = shape.table.row
    query = row.select(row.id, SQL(shape.table.columns))
    if shape.way is _Way.ORDER:
        return _in_order(dialect, shape, query, _rest(dialect, shape), _LIMIT).limit(_LIMIT)
    conditions = _rest(dialect, shape)
    if not shape.everybody:
        conditions.append(_unindexed(dialect, row, "owner") == _OWNER)
    if shape.statuses:
        conditions.append(_of_statuses(dialect, row))
    if shape.cancelled_by:
        conditions.append(_unindexed(dialect, row, "cancelled_by") == _CANCELLED_BY)
    if shape.way is _Way.IDS:
        query = query.where(SQL(dialect.is_item(f"{_alias(row)}.id", "ids", "bigint")), _between(row), *conditions)
    else:
        # Files of a batch were announced at once: their ids are their order.
        times = row.created_at > Parameter("after"), row.created_at < Parameter("before")
        ids = row.id > Parameter("from_row"), row.id < Parameter("to_row")
        query = query.where(row.batch_row == BATCH_ROW, *times, *ids, *conditions)
    order = (row.created_at, row.id) if shape.way is _Way.IDS else (row.id,)
    directed = (column.desc() if shape.newest_first else column for column in order)
    return query.order_by(*directed).limit(_LIMIT)


@functools.cache
def _last_look(shape: _Shape) -> Sql:
    """Return the query of the place up to which a page looks, when it would look at more rows than it may."""
    return Sql(functools.partial(_make_last_look, shape))


def _make_last_look(shape: _Shape, dialect: Dialect) -> Any:
    row, looks = shape.table.row, Parameter("looks")
    if row is B and shape.filename_prefix:
        # Batches are looked at through their files, which were announced when the batch was.
        times = F.created_at > Parameter("low_at"), F.created_at < Parameter("high_at")
        found = F.select(F.created_at, F.id).where(*times)
        slices = [found.where(owned) for owned in _owned(F, everybody=shape.everybody)]
        query = _merged(dialect, shape, slices, (F.created_at,), looks)
    else:
        query = _in_order(dialect, shape, row.select(row.created_at, row.id), (), looks)
    return query.limit(SQL("1")).offset(looks - SQL("1"))


# Looked up first -----------------------------------------------------------------------------------------------------


@functools.cache
def _named(table: _Table[Any], everybody: bool) -> Sql:
    column = F.id if table is _FILES else F.batch_row

    def make(dialect: Dialect) -> Any:
        query = F.select(column).where(_with_prefix(_start_of_name("f")))
        slices = [query.where(owned) for owned in _owned(F, everybody=everybody)]
        return dialect.sliced(slices, (), _LIMIT).limit(_LIMIT)

    return Sql(make)


_CANCELLED_WITH_BATCH = Sql(
    lambda _: A.select(A.file_row).where(A.source == _WITH_BATCH, A.to_status == _CANCELLED).limit(_LIMIT)
)
_ANY_BEFORE = Sql(lambda _: A.select(SQL("1")).where(A.occurred_at <= Parameter("updated_after")).limit(SQL("1")))


@functools.cache
def _changed(table: _Table[Any]) -> Sql:
    return Sql(lambda _: A.select(table.event_row).where(A.occurred_at > Parameter("updated_after")).limit(_LIMIT))


def _ids(connection: Connection, table: _Table[T], listing: Listing, values: Values) -> set[int] | None:
    """Return the ids of the few rows that one of the filters takes, and some more; None when no filter takes few."""
    lookups: list[Sql] = []
    if listing.filename_prefix:
        lookups.append(_named(table, listing.owner is None))
    if listing.cancelled_by == Source.BATCH_CANCEL and table is _FILES:
        lookups.append(_CANCELLED_WITH_BATCH)
    # What changed before there was a trail has no event.
    if listing.updated_after and connection.rows(_ANY_BEFORE, values):
        lookups.append(_changed(table))
    for lookup in lookups:
        found = connection.rows(lookup, {**values, "limit": _FEW + 1})
        if len(found) <= _FEW:
            return {row for (row,) in found if row is not None}
    return None


# Pages ---------------------------------------------------------------------------------------------------------------


def list_files(connection: Connection, listing: Listing, cursor: Cursor | None, limit: int) -> Page[File]:
    """Read a page of files."""
    return _list(connection, _FILES, listing, cursor, limit)


def list_batches(connection: Connection, listing: Listing, cursor: Cursor | None, limit: int) -> Page[Batch]:
    """Read a page of batches."""
    return _list(connection, _BATCHES, listing, cursor, limit)


def _list(connection: Connection, table: _Table[T], listing: Listing, cursor: Cursor | None, limit: int) -> Page[T]:
    values = _values(listing, cursor)
    ids = None if listing.batch_id else _ids(connection, table, listing, values)
    way = _Way.BATCH if listing.batch_id else _Way.ORDER if ids is None else _Way.IDS
    # Files that are cancelled by the thousand are in no index of their own.
    with_batch = table is _FILES and listing.cancelled_by == Source.BATCH_CANCEL
    shape = _Shape(
        table,
        way,
        statuses=len(listing.statuses),
        cancelled_by=bool(listing.cancelled_by) and not with_batch,
        cancelled_with_batch=with_batch,
        without_batch=listing.without_batch,
        filename_prefix=bool(listing.filename_prefix),
        updated_after=listing.updated_after is not None,
        newest_first=listing.newest_first,
        everybody=listing.owner is None,
    )
    values["ids"] = list(ids or ())
    stop = functools.partial(_stop, connection, shape, values) if shape.picks else None
    found, more, last = read_page(connection, _page(shape), values, limit, stop)
    rows = tuple(table.make(row[1:]) for row in found)
    if more:
        return Page(rows, Cursor.at(rows[-1].created_at, found[-1][0]))
    return Page(rows, last.cursor if last else None)


def read_page(
    connection: Connection, sql: Sql, values: Values, limit: int, stop: Callable[[int], Stop | None] | None
) -> tuple[list[Row], bool, Stop | None]:
    """Return the rows of a page, whether there are more, and where it stopped; ``stop``: not all rows are wanted."""
    for looks in LOOKS if stop else (0,):
        last = stop(looks) if stop else None
        found, more = connection.page(sql, {**values, **last.bound} if last else values, limit)
        if more or last is None:
            break
    return found, more, last


def _values(listing: Listing, cursor: Cursor | None) -> Values:
    """Return the values of a listing by the names that the queries give them."""
    after, before = listing.created_after or FAR_BACK, listing.created_before or FAR_OFF
    low: Place = (after, HIGHEST_ROW if listing.created_after else 0)
    high: Place = (before, 0)
    first, end = 0, HIGHEST_ROW
    if cursor is not None and listing.newest_first:
        high, end = min(high, (cursor.moment, cursor.row)), cursor.row
    elif cursor is not None:
        low, first = max(low, (cursor.moment, cursor.row)), cursor.row
    prefix = listing.filename_prefix[:PREFIX_CHARACTERS]
    return {
        **{f"status{index}": status for index, status in enumerate(listing.statuses)},
        "owner": listing.owner,
        "batch_id": listing.batch_id,
        "cancelled_by": listing.cancelled_by,
        "low_at": low[0],
        "low_row": low[1],
        "high_at": high[0],
        "high_row": high[1],
        "from_row": first,
        "to_row": end,
        "after": after,
        "before": before,
        "prefix": prefix,
        "prefix_end": _end_of(prefix),
        "updated_after": listing.updated_after or FAR_BACK,
        "statuses": list(listing.statuses),
    }


def _end_of(prefix: str) -> str:
    """Return the first text after all that start with ``prefix``: the database sorts by code points."""
    kept = prefix.rstrip("\U0010ffff")
    # Half of a surrogate pair is no text.
    following = 0xE000 if kept.endswith("\ud7ff") else ord(kept[-1]) + 1 if kept else 0
    return kept[:-1] + chr(following) if kept else "\U0010ffff" * (PREFIX_CHARACTERS + 1)


def _stop(connection: Connection, shape: _Shape, values: Values, looks: int) -> Stop | None:
    """Return where a page ends that looks at so many rows; None when the list ends before."""
    found = connection.rows(_last_look(shape), {**values, "looks": looks})
    if not found:
        return None
    at, row = found[0]
    step = -1 if shape.newest_first else 1
    if shape.table is _BATCHES and shape.filename_prefix:
        row, step = (0 if shape.newest_first else HIGHEST_ROW), 0
    end = "low" if shape.newest_first else "high"
    return Stop({f"{end}_at": at, f"{end}_row": row + step}, Cursor.at(time_of(at), row))
