"""Decides how the store counts: once from the tables, from then on by the audit events that came since.

Must not know who asks. Every change of status is one event in the transaction of the change, so what the events add up
to is exact; and no write pays for a counter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from peewee import SQL, fn

from upload_server.domain.states import BatchStatus, FileStatus
from upload_server.domain.statistics import (
    MAX_WINDOW_SECONDS,
    SLOT_SECONDS,
    Buckets,
    Counts,
    Moves,
    Total,
    kept_from,
    slot_of,
)
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Dialect, Parameter, Sql
from upload_server.store.sql.lists import HIGHEST_ROW
from upload_server.store.sql.queries import read_last_change, read_origin
from upload_server.store.sql.rows import A, B, F

_COUNT, _AFTER = fn.count(SQL("*")), Parameter("after")
# The sum of whole numbers is a whole number.
_SIZE = SQL("CAST(sum(f.size_bytes) AS bigint)")
_KEPT = SQL("CAST(sum(CASE WHEN f.content_deleted_at IS NULL THEN f.size_bytes ELSE 0 END) AS bigint)")
_FILES = Sql(lambda _: F.select(F.owner, F.status, _COUNT, _KEPT).group_by(F.owner, F.status))
_BATCHES = Sql(lambda _: B.select(B.owner, B.status, _COUNT).group_by(B.owner, B.status))

# What retention has deleted since.
_PRUNED = Sql("SELECT owner, kind, status, total, size_bytes FROM pruned_count")

_FILE_STEPS = Sql(
    lambda _: (
        A.select(F.owner, A.from_status, A.to_status, _COUNT, _SIZE)
        .join(F, on=F.id == A.file_row)
        .where(A.change_no > _AFTER, A.change_no <= Parameter("upto"))
        .group_by(F.owner, A.from_status, A.to_status)
    )
)
_BATCH_STEPS = Sql(
    lambda _: (
        A.select(B.owner, A.from_status, A.to_status, _COUNT)
        .join(B, on=B.id == A.batch_row)
        .where(A.change_no > _AFTER, A.change_no <= Parameter("upto"), A.file_row.is_null())
        .group_by(B.owner, A.from_status, A.to_status)
    )
)

# In the order of the fields of Moves.
_BECAME = (FileStatus.PENDING, FileStatus.COMPLETED, FileStatus.FAILED, FileStatus.CANCELLED)


def _moves(*where: Any) -> Sql:
    def make(dialect: Dialect) -> Any:
        slot = SQL(f"{dialect.seconds('a.occurred_at')} / {SLOT_SECONDS}")
        # Whose bytes are let go becomes nothing else.
        became = (
            SQL(f"count(*) FILTER (WHERE a.to_status = '{status}' AND a.from_status <> a.to_status)")
            for status in _BECAME
        )
        return A.select(F.owner, slot, *became).join(F, on=F.id == A.file_row).where(*where).group_by(F.owner, slot)

    return Sql(make)


_MOVES_SINCE = _moves(A.occurred_at >= Parameter("since"))
_MOVES_AFTER = _moves(A.change_no > _AFTER, A.change_no <= Parameter("upto"))

_NONE = (0, 0, 0, 0)
_Key: TypeAlias = tuple[str | None, str]


@dataclass(frozen=True, slots=True)
class Tally:
    """What there was of each owner, and of all together, up to the change ``no``, and what happened from the slot
    ``oldest`` on."""

    no: int
    oldest: int
    # Keys: owner, None for everybody's together, and status.
    files: Counter[_Key]
    size_bytes: Counter[_Key]
    batches: Counter[_Key]
    # Keys: owner, likewise, and slot; values as the fields of Moves.
    moves: dict[tuple[str | None, int], tuple[int, ...]]

    def counts(self, sees: str | None, buckets: Buckets | None) -> Counts:
        """Return what there is for ``sees``."""
        return Counts(
            self.no,
            {status: Total(self.files[sees, status], self.size_bytes[sees, status]) for status in FileStatus},
            {status: self.batches[sees, status] for status in BatchStatus},
            [self._moves(sees, buckets.slots_of(index)) for index in range(buckets.count)] if buckets else (),
        )

    def _moves(self, sees: str | None, slots: range) -> Moves:
        return Moves(*map(sum, zip(_NONE, *(self.moves.get((sees, slot), _NONE) for slot in slots), strict=True)))


def tally(connection: Connection, before: Tally | None, now: datetime) -> Tally:
    """Count up to this snapshot; ``before`` is what was counted last."""
    upto, begin = read_last_change(connection), read_origin(connection)
    if before is None or (begin is not None and before.no < begin.event_id):
        with connection.patiently():
            return _of_tables(connection, upto, now)
    if upto <= before.no:
        return before
    return _go_on(connection, before, upto, now)


def count(
    connection: Connection, before: Tally | None, sees: str | None, now: datetime, buckets: Buckets | None
) -> tuple[Tally, Counts]:
    """Count up to this snapshot, and return what of it there is for ``sees``; ``before`` is what was counted last."""
    counted = tally(connection, before, now)
    return counted, counted.counts(sees, buckets)


def _of_tables(connection: Connection, upto: int, now: datetime) -> Tally:
    since = now - timedelta(seconds=MAX_WINDOW_SECONDS)
    counted = Tally(upto, slot_of(since), Counter(), Counter(), Counter(), {})
    for name, status, count, size in connection.rows(_FILES):
        for owner in (name, None):
            counted.files[owner, status] += count
            counted.size_bytes[owner, status] += size
    for name, status, count in connection.rows(_BATCHES):
        for owner in (name, None):
            counted.batches[owner, status] += count
    for name, kind, status, count, size in connection.rows(_PRUNED):
        for owner in (name, None):
            (counted.files if kind == "file" else counted.batches)[owner, status] += count
            counted.size_bytes[owner, status] += size
    _add_moves(counted.moves, connection.rows(_MOVES_SINCE, {"since": since}))
    # What the tables show of changes behind the last is counted when those before them are there too.
    return replace(_go_on(connection, counted, HIGHEST_ROW, now, way=-1), no=upto)


def _go_on(connection: Connection, before: Tally, upto: int, now: datetime, way: int = 1) -> Tally:
    """Count what came since, or where the ``way`` is -1 count it back."""
    events = {"after": before.no, "upto": upto}
    # Copies: another reader may be looking at what was counted before.
    files, size_bytes, batches = Counter(before.files), Counter(before.size_bytes), Counter(before.batches)
    for name, old, new, count, size in connection.rows(_FILE_STEPS, events):
        for owner in (name, None):
            files[owner, old] -= way * count
            files[owner, new] += way * count
            size_bytes[owner, old] -= way * size
            # Bytes that were let go are in no state.
            if new != old:
                size_bytes[owner, new] += way * size
    for name, old, new, count in connection.rows(_BATCH_STEPS, events):
        for owner in (name, None):
            batches[owner, old] -= way * count
            batches[owner, new] += way * count
    oldest, moves = kept_from(before.oldest, now), dict(before.moves)
    if oldest != before.oldest:
        moves = {key: counts for key, counts in moves.items() if key[1] >= oldest}
    _add_moves(moves, connection.rows(_MOVES_AFTER, events), way)
    return Tally(upto, oldest, files, size_bytes, batches, moves)


def _add_moves(moves: dict[tuple[str | None, int], tuple[int, ...]], found: Iterable[Any], way: int = 1) -> None:
    for name, slot, *counts in found:
        for owner in (name, None):
            known = moves.get((owner, slot), _NONE)
            moves[owner, slot] = tuple(before + way * count for before, count in zip(known, counts, strict=True))
