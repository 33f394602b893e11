"""Decides what is read, as queries over the models: each function reads from the one snapshot that its caller opened.

Must not know about threads. ``sees`` is the one owner whose rows there are; None: everybody's.
"""

# ruff: noqa: S608 - put together from the domain's own words; what callers give are parameters

from __future__ import annotations

import itertools
from collections.abc import Sequence

from peewee import SQL

from upload_server.domain.chain import Seal
from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import Batch, File, FileStatus
from upload_server.store import models
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Dialect, Parameter, Sql
from upload_server.store.sql.rows import BATCH_COLUMNS, FILE_COLUMNS, A, B, F, batch_of, event_of, file_of, time_of
from upload_server.store.sql.statements import OPEN_FILE, READ_LAST_SEAL, READ_ORIGIN
from upload_server.store.sql.statements import held_elsewhere as held_elsewhere_of
from upload_server.store.sql.trail import EVENTS
from upload_server.store.values import Aged, DueCancel, Moment, Named, OwedDeletion, StreamStop, Targets, Unsealed

_LIMIT = Parameter("limit")
_FILE_ID, _BATCH_ID = Parameter("file_id"), Parameter("batch_id")

_INFO = models.StoreInfo.alias("store_info")
_LAST_CHANGE = Sql(lambda d: f"SELECT {d.last_change}, last_change FROM store_info")
_BOUNDS = Sql(lambda d: f"SELECT {d.last_change}, (SELECT max(change_no) FROM audit_origin) FROM store_info")
_STORE_ID = Sql(lambda _: _INFO.select(_INFO.store_id))
_SERVED = Sql(lambda _: _INFO.select(_INFO.served_seconds))
_FILE = Sql(lambda _: F.select(SQL(FILE_COLUMNS)).where(F.file_id == _FILE_ID))
_TUS_METADATA = Sql(lambda _: F.select(F.owner, F.tus_metadata).where(F.file_id == _FILE_ID))
_BATCH = Sql(lambda _: B.select(SQL(BATCH_COLUMNS)).where(B.batch_id == _BATCH_ID))


def read_last_change(connection: Connection) -> int:
    """Read the number of the last change in this snapshot, before which there is none that is yet to be committed."""
    return read_ends(connection)[0]


def read_ends(connection: Connection) -> tuple[int, int]:
    """Read that number, and the last that was given: of those between some may be committed already."""
    [(last_change, given)] = connection.rows(_LAST_CHANGE)
    return last_change, given


def read_bounds(connection: Connection) -> tuple[int, int]:
    """Read the number of the last change, and up to which one the trail was pruned."""
    [(last_change, pruned)] = connection.rows(_BOUNDS)
    return last_change, pruned or 0


def read_served(connection: Connection) -> float:
    """Read the seconds that were kept in which a service ran on the store."""
    return float(connection.rows(_SERVED)[0][0])


def read_store_id(connection: Connection) -> str:
    """Read the store's identity."""
    return str(connection.rows(_STORE_ID)[0][0])


def read_file(connection: Connection, file_id: str, sees: str | None) -> File:
    """Read one file; raises ``FileNotFound``."""
    for row in connection.rows(_FILE, {"file_id": file_id}):
        file = file_of(row)
        if sees is None or sees == file.owner:
            return file
    raise FileNotFound(file_id)


def read_tus_metadata(connection: Connection, file_id: str, sees: str | None) -> str:
    """Read what one file's tus client said of it, empty when none did; raises ``FileNotFound``."""
    for owner, text in connection.rows(_TUS_METADATA, {"file_id": file_id}):
        if sees is None or sees == owner:
            return text or ""
    raise FileNotFound(file_id)


def read_batch(connection: Connection, batch_id: str, sees: str | None) -> Batch:
    """Read one batch; raises ``BatchNotFound``."""
    for row in connection.rows(_BATCH, {"batch_id": batch_id}):
        batch = batch_of(row)
        if sees is None or sees == batch.owner:
            return batch
    raise BatchNotFound(batch_id)


# For the janitor -------------------------------------------------------------------------------------

_OWED = Sql(
    lambda d: (
        f"""
    SELECT o.file_row, f.file_id FROM owed_deletion AS o CROSS JOIN file AS f
    WHERE f.id = o.file_row AND NOT {held_elsewhere_of(d)} ORDER BY o.id LIMIT :limit"""
    )
)


def owed_deletions(connection: Connection, limit: int, node: str) -> Sequence[OwedDeletion]:
    """Read the oldest deletions owed, without those of files that another node than ``node`` has open."""
    return [OwedDeletion(row, file_id) for row, file_id in connection.rows(_OWED, {"limit": limit, "node": node})]


# Whether it was there long enough is asked of the event's time, and of a file that is to let go of its bytes of the
# seconds served since it was completed.
_AGED = Sql(
    lambda d: (
        f"""
    SELECT a.change_no, a.occurred_at < :at AND (f.id IS NULL OR f.active_served < :served), f.file_id
    FROM (SELECT * FROM audit_event WHERE change_no > :after
            AND change_no <= (SELECT {d.last_change} FROM store_info) ORDER BY change_no LIMIT :limit) AS a
        LEFT JOIN file AS f ON f.id = a.file_row AND a.to_status = '{FileStatus.COMPLETED}'
            AND {d.unindexed("f.status")} = '{FileStatus.COMPLETED}' AND f.content_deleted_at IS NULL
    ORDER BY a.change_no"""
    )
)


def aged_content(connection: Connection, before: Moment, after: int, limit: int) -> Aged:
    """Read the trail after a change as far as it is old enough, for files that were completed and have their bytes."""
    rows = connection.rows(_AGED, {"at": before.at, "served": before.served, "after": after, "limit": limit})
    old = list(itertools.takewhile(lambda row: row[1], rows))
    file_ids = tuple(file_id for _, _, file_id in old if file_id is not None)
    return Aged(file_ids, old[-1][0] if old else after, len(old) == limit)


_DUE = Sql(
    f"""
    SELECT file_id, owner, fence, cancel_due_at, cancel_due_reason FROM file
    WHERE cancel_due_at IS NOT NULL AND status = '{FileStatus.UPLOADING}' ORDER BY cancel_due_at LIMIT :limit"""
)


def due_cancels(connection: Connection, limit: int) -> Sequence[DueCancel]:
    """Read the cancels that lost pages owe, the earliest first."""
    return [
        DueCancel(file_id, owner, fence, time_of(due_at), reason)
        for file_id, owner, fence, due_at, reason in connection.rows(_DUE, {"limit": limit})
    ]


_IDLE = Sql(
    lambda dialect: (
        f"""
    SELECT f.id FROM {dialect.by_index("file AS f", "file_idle")}
    WHERE f.status IN ({OPEN_FILE}) AND f.active_served < :served AND f.active_at < :at
        AND NOT ({dialect.is_item("f.file_id", "open_files")}) AND NOT {held_elsewhere_of(dialect)}
    ORDER BY f.active_served LIMIT :limit"""
    )
)


def idle_rows(
    connection: Connection, idle_since: Moment, open_files: Sequence[str], limit: int, node: str
) -> list[int]:
    """Find files that are not final, not open and had no byte of their own since ``idle_since``; reads only those."""
    wanted = {"at": idle_since.at, "served": idle_since.served, "limit": limit, "node": node}
    return [row[0] for row in connection.rows(_IDLE, {**wanted, "open_files": list(open_files)})]


_LET_GO = F.content_deleted_at.is_null(False)
_NAMES = Sql(
    lambda dialect: F.select(F.file_id, F.status, F.run_fence, _LET_GO).where(SQL(dialect.is_item("f.file_id", "ids")))
)
# Only a later claim than the first has a run before its own.
_EARLIER = Sql(
    lambda dialect: (
        f"""
    SELECT f.file_id, r.fence FROM {dialect.items("ids")} CROSS JOIN file AS f CROSS JOIN run AS r
    WHERE f.file_id = k.value AND r.file_row = f.id"""
    )
)


def names_of(connection: Connection, file_ids: Sequence[str]) -> dict[str, Named]:
    """Read what rows say of the names of bytes."""
    found = connection.rows(_NAMES, {"ids": list(file_ids)})
    names = {
        file_id: Named(FileStatus(status), newest, (newest,), bool(let_go)) for file_id, status, newest, let_go in found
    }
    resumed = [file_id for file_id, named in names.items() if named.run_fence > 1]
    for file_id, fence in connection.rows(_EARLIER, {"ids": resumed}) if resumed else ():
        named = names[file_id]
        names[file_id] = named._replace(fences=(fence, *named.fences))
    return names


# For a node ----------------------------------------------------------------------------------------------------------

_STOPS = Sql(f"""
    SELECT s.file_row, s.fence, {FILE_COLUMNS} FROM stream_stop AS s CROSS JOIN file AS f
    WHERE s.node_id = :node AND f.id = s.file_row LIMIT :limit""")
_HELD = Sql(
    lambda d: (
        f"""
    SELECT f.file_id FROM {d.items("ids")} CROSS JOIN file AS f
    WHERE f.file_id = k.value AND {held_elsewhere_of(d)}"""
    )
)


_PROGRESS = "f.file_id, coalesce(f.batch_id, ''), f.owner, f.bytes_received"


def _at_others(dialect: Dialect) -> str:
    return f"{dialect.unindexed('f.status')} = '{FileStatus.UPLOADING}' AND f.holder <> :node"


_PROGRESS_OF_FILES = Sql(
    lambda d: (
        f"""
    SELECT {_PROGRESS} FROM {d.items("file_ids")} {d.looked_up("file", "f", "f.file_id = k.value")}
    WHERE {_at_others(d)}"""
    )
)
_PROGRESS_OF_BATCHES = Sql(
    lambda d: (
        f"""
    SELECT {_PROGRESS} FROM {d.items("batch_ids")} {d.looked_up("batch", "b", "b.batch_id = k.value")}
    {d.looked_up("file", "f", "f.batch_row = b.id")} WHERE {_at_others(d)}"""
    )
)
_PROGRESS_OF_ALL = Sql(
    lambda d: (
        f"""
    SELECT {_PROGRESS} FROM {d.by_index("file AS f", "file_idle")}
    WHERE f.status IN ({OPEN_FILE}) AND f.active_served > :since AND {_at_others(d)}"""
    )
)


def read_progress(connection: Connection, targets: Targets, since: float, node: str) -> list[tuple[str, str, str, int]]:
    """Read id, batch's id, owner and durable bytes of the files that other nodes than ``node`` have open."""
    if targets.all:
        return connection.rows(_PROGRESS_OF_ALL, {"since": since, "node": node})
    files = connection.rows(_PROGRESS_OF_FILES, {"file_ids": list(targets.file_ids), "node": node})
    batches = {"batch_ids": list(targets.batch_ids), "node": node}
    return files + connection.rows(_PROGRESS_OF_BATCHES, batches)


def look(connection: Connection, node: str, limit: int) -> tuple[int, tuple[StreamStop, ...]]:
    """Read the number of the last change, and the stops of a node's streams."""
    found = connection.rows(_STOPS, {"node": node, "limit": limit})
    return read_last_change(connection), tuple(StreamStop(row[0], row[1], file_of(row[2:])) for row in found)


def held_elsewhere(connection: Connection, file_ids: Sequence[str], node: str) -> set[str]:
    """Return those files that another living node than ``node`` has open."""
    return {row[0] for row in connection.rows(_HELD, {"ids": list(file_ids), "node": node})}


# For the sealer ------------------------------------------------------------------------------------------------------

# This store did not give numbers above its last: sealed, they would keep the real ones out for ever.
_UNSEALED = Sql(
    lambda d: (
        EVENTS.where(A.change_no > Parameter("head"), A.change_no <= SQL(f"(SELECT {d.last_change} FROM store_info)"))
        .order_by(A.change_no)
        .limit(_LIMIT)
    )
)
_COUNT_UNSEALED = Sql("""
    SELECT count(*) FROM (
        SELECT 1 FROM audit_event WHERE change_no > (SELECT coalesce(max(change_no), 0) FROM audit_seal)
        LIMIT :limit) AS unsealed""")


def read_unsealed(connection: Connection, limit: int) -> Unsealed:
    """Read the newest seal and the oldest events without one."""
    last = [Seal(*row) for row in connection.rows(READ_LAST_SEAL)]
    events = connection.rows(_UNSEALED, {"head": last[0].event_id if last else 0, "limit": limit})
    return Unsealed(last[0] if last else None, tuple(event_of(row) for row in events))


_SEAL = Sql("SELECT change_no, previous_no, hash FROM audit_seal WHERE change_no = :no")


def read_origin(connection: Connection) -> Seal | None:
    """Read the seal that the trail begins behind; None: it is all there."""
    found = connection.rows(READ_ORIGIN)
    return Seal(*found[0]) if found else None


def read_seal(connection: Connection, event_id: int) -> Seal | None:
    """Read the seal of one event."""
    found = connection.rows(_SEAL, {"no": event_id})
    return Seal(*found[0]) if found else None


def count_unsealed(connection: Connection, limit: int) -> int:
    """Count the events behind the newest seal, up to ``limit``."""
    return int(connection.rows(_COUNT_UNSEALED, {"limit": limit})[0][0])
