"""Decides how the audit trail is listed: in the order of commits, by the index of the first filter that has one.

Must not know threads. The other filters are tried on each event; a page looks at a bounded number of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from peewee import JOIN, SQL, fn

from upload_server.domain.states import AuditEvent, BatchStatus, FileStatus, Source
from upload_server.domain.tokens import Cursor
from upload_server.store import models
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Dialect, Parameter, Sql
from upload_server.store.sql.lists import BATCH_ROW, FAR_BACK, FAR_OFF, HIGHEST_ROW, Stop, Values, read_page
from upload_server.store.sql.rows import EVENT_COLUMNS, A, B, F, event_of
from upload_server.store.values import Page, Trail

EVENTS = (
    A.select(SQL(EVENT_COLUMNS))
    .join(F, JOIN.LEFT_OUTER, on=F.id == A.file_row)
    .join_from(A, B, JOIN.LEFT_OUTER, on=B.id == A.batch_row)
)

# The actor that no index has: nearly all events are of nobody in particular, or of somebody by name.
_ANYBODY = "user"
_FILE_ROW = models.File.select(models.File.id).where(models.File.file_id == Parameter("file_id"))
# What each filter compares, those that leave the fewest events first.
_FILTERS = {
    "file_id": (A.file_row, _FILE_ROW),
    "batch_id": (A.batch_row, BATCH_ROW),
    "actor": (A.actor, Parameter("actor")),
    "source": (A.source, Parameter("source")),
    "to_status": (A.to_status, Parameter("to_status")),
}
# One index has both of these: where one filter is missing, it is read for every word that there is.
_WORDS: Mapping[str, Sequence[SQL]] = {
    "source": [SQL(f"'{word}'") for word in Source],
    "to_status": [SQL(f"'{word}'") for word in sorted({*FileStatus, *BatchStatus})],
}


@dataclass(frozen=True)
class _Shape:
    """What decides the text of a page's query: which filters there are, and the one whose index is read."""

    given: tuple[str, ...]
    index: str
    newest_first: bool
    everybody: bool

    @property
    def others(self) -> list[str]:
        """The filters that are tried on each event."""
        indexed = {*_WORDS} if self.index in _WORDS else {self.index}
        return [name for name in self.given if name not in indexed]


def _tried(dialect: Dialect, name: str) -> Any:
    """Return the condition of a filter on each event."""
    column, value = _FILTERS[name]
    kind = "bigint" if name in {"file_id", "batch_id"} else "text"
    return SQL(dialect.unindexed(f"a.{column.column_name}", kind)) == value


def _along(dialect: Dialect, shape: _Shape, query: Any, most: Parameter) -> Any:
    """Return ``query`` for what an index, or the trail itself, has between two numbers, in order; of several slices of
    an index ``most`` of each are wanted."""
    query, number = query.where(A.change_no > Parameter("low"), A.change_no < Parameter("high")), A.change_no
    order = number.desc() if shape.newest_first else number
    if shape.index in _WORDS:
        words = ([_FILTERS[name][1]] if name in shape.given else every for name, every in _WORDS.items())
        slices = [query.where(A.source == source, A.to_status == status) for source, status in product(*words)]
        query = dialect.sliced(slices, [order], most)
        if len(slices) > 1:
            # The number is the first column, and has its name from three tables.
            order = SQL("1 DESC" if shape.newest_first else "1")
    elif shape.index:
        column, value = _FILTERS[shape.index]
        query = query.where(column == value)
    if shape.index == "actor":
        # That the index has such events must be said in its own words.
        query = query.where(A.actor != SQL(f"'{_ANYBODY}'"))
    return query.order_by(order)


@functools.cache
def _page(shape: _Shape) -> Sql:
    return Sql(functools.partial(_make_page, shape))


def _make_page(shape: _Shape, dialect: Dialect) -> Any:
    occurred_at = dialect.unindexed("a.occurred_at", "timestamptz")
    query = EVENTS.where(
        *([] if shape.everybody else [fn.coalesce(F.owner, B.owner) == Parameter("owner")]),
        SQL(f"{occurred_at} > :after AND {occurred_at} < :before"),
        *(_tried(dialect, name) for name in shape.others),
    )
    return _along(dialect, shape, query, Parameter("limit")).limit(Parameter("limit"))


@functools.cache
def _last_look(shape: _Shape) -> Sql:
    return Sql(functools.partial(_make_last_look, shape))


def _make_last_look(shape: _Shape, dialect: Dialect) -> Any:
    looks = Parameter("looks")
    return _along(dialect, shape, A.select(A.change_no), looks).limit(SQL("1")).offset(looks - SQL("1"))


# The first number of a time, and the last: of many times around it, since a change is timed when it is asked for and
# numbered when it is committed, and since clocks are set. Of times, not of events: a batch call has thousands of one.
_AROUND = 1_000


def _around(pick: str, step: str, start: str, order: str) -> Sql:
    nearest = f"ORDER BY occurred_at {order}, change_no {order} LIMIT 1"
    return Sql(f"""
    WITH RECURSIVE around (at, no) AS (
        SELECT * FROM (
            SELECT occurred_at, change_no FROM audit_event WHERE occurred_at {step} {start} {nearest}) AS first
        UNION ALL
        SELECT e.occurred_at, e.change_no FROM around CROSS JOIN audit_event AS e WHERE e.change_no = (
            SELECT change_no FROM audit_event WHERE occurred_at {step} around.at {nearest}))
    SELECT {pick}(no) FROM (SELECT no FROM around LIMIT {_AROUND}) AS nearest""")  # noqa: S608


_FIRST = _around("min", ">", ":after", "ASC")
_LAST = _around("max", "<", ":before", "DESC")


def list_audit_events(connection: Connection, trail: Trail, cursor: Cursor | None, limit: int) -> Page[AuditEvent]:
    """Read a page of audit events; those of a batch include its files'."""
    values = _values(trail)
    given = tuple(name for name in _FILTERS if values[name])
    index = next((name for name in given if name != "actor" or trail.actor != _ANYBODY), "")
    shape = _Shape(given, index, trail.newest_first, everybody=trail.owner is None)
    low, high = 0, HIGHEST_ROW
    if trail.occurred_after:
        low = (connection.rows(_FIRST, values)[0][0] or HIGHEST_ROW) - 1
    if trail.occurred_before:
        high = (connection.rows(_LAST, values)[0][0] or 0) + 1
    if cursor is not None:
        low, high = (low, min(high, cursor.row)) if trail.newest_first else (max(low, cursor.row), high)
    values |= {"low": low, "high": high}
    # Without other filters every event of everybody's that is looked at is wanted.
    picks = shape.others or trail.occurred_after or trail.occurred_before or not shape.everybody
    stop = functools.partial(_stop, connection, shape, values) if picks else None
    found, more, last = read_page(connection, _page(shape), values, limit, stop)
    events = tuple(event_of(row) for row in found)
    if more:
        return Page(events, Cursor(events[-1].event_id))
    return Page(events, last.cursor if last else None)


def _values(trail: Trail) -> Values:
    return {
        **{name: getattr(trail, name) for name in ("owner", *_FILTERS)},
        "after": trail.occurred_after or FAR_BACK,
        "before": trail.occurred_before or FAR_OFF,
    }


def _stop(connection: Connection, shape: _Shape, values: Values, looks: int) -> Stop | None:
    """Return where a page ends that looks at so many events; None when the trail ends before."""
    found = connection.rows(_last_look(shape), {**values, "looks": looks})
    if not found:
        return None
    number = found[0][0]
    return Stop({"low": number - 1} if shape.newest_first else {"high": number + 1}, Cursor(number))
