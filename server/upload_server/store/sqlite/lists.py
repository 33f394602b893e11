"""Decides how lists are read: files and batches in order of creation, each page by an index whose tail is that order.

Must not know threads. A list goes by (created_at, id): times repeat, and a row that waited for the writer has a greater
id than one that overtook it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from peewee import JOIN, SQL, Tuple, fn

from upload_server.domain.states import AuditEvent, Batch, File
from upload_server.domain.tokens import Cursor
from upload_server.store import models
from upload_server.store.protocol import Listing, Page
from upload_server.store.sqlite.compiling import Parameter, compiled, items, unindexed
from upload_server.store.sqlite.connection import Connection
from upload_server.store.sqlite.rows import (
    BATCH_FIELDS,
    EVENT_FIELDS,
    FILE_FIELDS,
    A,
    B,
    F,
    Row,
    batch_of,
    event_of,
    file_of,
    time_text,
    to_json,
)

T = TypeVar("T", File, Batch)

_OWNER, _LIMIT = Parameter("owner"), Parameter("limit")
# A batch's and a file's row by their public ids.
_BATCH_ROW = models.Batch.select(models.Batch.id).where(models.Batch.batch_id == Parameter("batch_id"))
_FILE_ROW = models.File.select(models.File.id).where(models.File.file_id == Parameter("file_id"))

# Below and above every row.
_LOWEST, _HIGHEST = ("", 0), ("~", 2**63 - 1)


@dataclass(frozen=True, eq=False)
class _Table(Generic[T]):
    """How a table is listed."""

    row: Any
    fields: list[Any]
    make: Callable[[Row], T]


_FILES, _BATCHES = _Table(F, FILE_FIELDS, file_of), _Table(B, BATCH_FIELDS, batch_of)


def _between(table: Any) -> Any:
    """Return the condition that a row lies between two places, both excluded."""
    place = Tuple(table.created_at, table.id)
    return (place > Tuple(Parameter("low_at"), Parameter("low_row"))) & (
        place < Tuple(Parameter("high_at"), Parameter("high_row"))
    )


@functools.cache
def _page(table: _Table[T], statuses: int, *, without_batch: bool, newest_first: bool) -> str:
    """Make the query of a page: a slice for each state, which SQLite merges as it reads them."""
    row = table.row
    page = row.select(row.id, *table.fields).where(row.owner == _OWNER, _between(row))
    if without_batch:
        page = page.where(row.batch_row.is_null())
    if statuses:
        first, *others = (page.where(row.status == Parameter(f"status{index}")) for index in range(statuses))
        page = functools.reduce(lambda merged, other: merged.union_all(other), others, first)
    order = (SQL("created_at"), SQL("id")) if statuses > 1 else (row.created_at, row.id)
    return compiled(page.order_by(*((part.desc() for part in order) if newest_first else order)).limit(_LIMIT))


@functools.cache
def _page_of_batch(*, by_status: bool, newest_first: bool) -> str:
    """Make the query of a page of one batch's files: they were announced at once, so their ids are their order."""
    page = F.select(F.id, *FILE_FIELDS).where(
        unindexed(F.owner) == _OWNER,
        F.batch_row == _BATCH_ROW,
        F.id > Parameter("low_row"),
        F.id < Parameter("high_row"),
    )
    if by_status:
        page = page.where(unindexed(F.status).in_(items(Parameter("statuses"))))
    return compiled(page.order_by(F.id.desc() if newest_first else F.id).limit(_LIMIT))


def _places(listing: Listing, cursor: Cursor | None) -> dict[str, Any]:
    """Return the two places that a page lies between."""
    low, high = _LOWEST, _HIGHEST
    if cursor is not None:
        place = (time_text(cursor.moment), cursor.row)
        low, high = (low, place) if listing.newest_first else (place, high)
    return {"low_at": low[0], "low_row": low[1], "high_at": high[0], "high_row": high[1]}


def list_files(connection: Connection, listing: Listing, cursor: Cursor | None, limit: int) -> Page[File]:
    """Read a page of files."""
    if not listing.batch_id:
        return _list(connection, _FILES, listing, cursor, limit)
    sql = _page_of_batch(by_status=bool(listing.statuses), newest_first=listing.newest_first)
    wanted = {"batch_id": listing.batch_id, "statuses": to_json(list(listing.statuses))}
    return _read(connection, _FILES, sql, {**wanted, **_places(listing, cursor)}, listing.owner, limit)


def list_batches(connection: Connection, listing: Listing, cursor: Cursor | None, limit: int) -> Page[Batch]:
    """Read a page of batches."""
    return _list(connection, _BATCHES, listing, cursor, limit)


def _list(connection: Connection, table: _Table[T], listing: Listing, cursor: Cursor | None, limit: int) -> Page[T]:
    sql = _page(table, len(listing.statuses), without_batch=listing.without_batch, newest_first=listing.newest_first)
    wanted = {f"status{index}": status for index, status in enumerate(listing.statuses)}
    return _read(connection, table, sql, {**wanted, **_places(listing, cursor)}, listing.owner, limit)


def _read(
    connection: Connection, table: _Table[T], sql: str, wanted: dict[str, Any], owner: str, limit: int
) -> Page[T]:
    found, more = connection.page(sql, {**wanted, "owner": owner}, limit)
    rows = tuple(table.make(row[1:]) for row in found)
    return Page(rows, Cursor.at(rows[-1].created_at, found[-1][0]) if more else None)


# The audit trail -----------------------------------------------------------------------------------------------------

EVENTS = (
    A.select(*EVENT_FIELDS)
    .join(F, JOIN.LEFT_OUTER, on=F.id == A.file_row)
    .join_from(A, B, JOIN.LEFT_OUTER, on=B.id == A.batch_row)
)


@functools.cache
def _events_page(*, by_file: bool, by_batch: bool) -> str:
    page = EVENTS.where(A.change_no > Parameter("cursor"), fn.coalesce(F.owner, B.owner) == _OWNER)
    if by_file:
        page = page.where(A.file_row == _FILE_ROW)
    if by_batch:
        page = page.where((unindexed(A.batch_row) if by_file else A.batch_row) == _BATCH_ROW)
    return compiled(page.order_by(A.change_no).limit(_LIMIT))


def list_audit_events(
    connection: Connection, owner: str, file_id: str, batch_id: str, cursor: Cursor | None, limit: int
) -> Page[AuditEvent]:
    """Read audit events by change number; those of a batch include its files'."""
    after = cursor.row if cursor else 0
    wanted = {"owner": owner, "file_id": file_id, "batch_id": batch_id, "cursor": after}
    found, more = connection.page(_events_page(by_file=bool(file_id), by_batch=bool(batch_id)), wanted, limit)
    events = tuple(event_of(row) for row in found)
    return Page(events, Cursor(events[-1].event_id) if more else None)
