"""Decides what is read, as queries over the models: each function reads from the one snapshot that its caller opened.

Must not know about threads. A caller finds only rows that its owner may see.
"""

# ruff: noqa: S608 - put together from the domain's own words; what callers give are parameters

from __future__ import annotations

from collections.abc import Sequence

from peewee import JOIN, SQL, Join

from upload_server.domain.chain import Seal
from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import Batch, File, FileStatus
from upload_server.store import models
from upload_server.store.protocol import DueCancel, Moment, OwedDeletion, Unsealed
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Parameter, Sql
from upload_server.store.sql.rows import BATCH_COLUMNS, FILE_COLUMNS, A, B, F, batch_of, event_of, file_of, time_of
from upload_server.store.sql.statements import OPEN_FILE, READ_LAST_SEAL
from upload_server.store.sql.trail import EVENTS

_OWNER, _LIMIT = Parameter("owner"), Parameter("limit")
_FILE_ID, _BATCH_ID = Parameter("file_id"), Parameter("batch_id")

_INFO, _OWED_DELETION = models.StoreInfo.alias("store_info"), models.OwedDeletion.alias("o")
_LAST_CHANGE = Sql(lambda _: _INFO.select(_INFO.last_change))
_STORE_ID = Sql(lambda _: _INFO.select(_INFO.store_id))
_SERVED = Sql(lambda _: _INFO.select(_INFO.served_seconds))
_FILE = Sql(lambda _: F.select(SQL(FILE_COLUMNS)).where(F.file_id == _FILE_ID, F.owner == _OWNER))
_BATCH = Sql(lambda _: B.select(SQL(BATCH_COLUMNS)).where(B.batch_id == _BATCH_ID, B.owner == _OWNER))


def read_last_change(connection: Connection) -> int:
    """Read the number of the last change in this snapshot."""
    return int(connection.rows(_LAST_CHANGE)[0][0])


def read_served(connection: Connection) -> float:
    """Read the seconds that were kept in which a service ran on the store."""
    return float(connection.rows(_SERVED)[0][0])


def read_store_id(connection: Connection) -> str:
    """Read the store's identity."""
    return str(connection.rows(_STORE_ID)[0][0])


def read_file(connection: Connection, file_id: str, owner: str) -> File:
    """Read one file; raises ``FileNotFound``."""
    found = connection.rows(_FILE, {"file_id": file_id, "owner": owner})
    if not found:
        raise FileNotFound(file_id)
    return file_of(found[0])


def read_batch(connection: Connection, batch_id: str, owner: str) -> Batch:
    """Read one batch; raises ``BatchNotFound``."""
    found = connection.rows(_BATCH, {"batch_id": batch_id, "owner": owner})
    if not found:
        raise BatchNotFound(batch_id)
    return batch_of(found[0])


# For the janitor -------------------------------------------------------------------------------------

_OWED = Sql(
    lambda _: (
        _OWED_DELETION.select(_OWED_DELETION.id, F.file_id)
        .from_(Join(_OWED_DELETION, F, JOIN.CROSS))
        .where(F.id == _OWED_DELETION.file_row)
        .order_by(_OWED_DELETION.id)
        .limit(_LIMIT)
    )
)


def owed_deletions(connection: Connection, limit: int) -> Sequence[OwedDeletion]:
    """Read the oldest deletions owed."""
    return [OwedDeletion(row, file_id) for row, file_id in connection.rows(_OWED, {"limit": limit})]


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
        AND NOT ({dialect.is_item("f.file_id", "open_files")})
    ORDER BY f.active_served LIMIT :limit"""
    )
)


def idle_rows(connection: Connection, idle_since: Moment, open_files: Sequence[str], limit: int) -> list[int]:
    """Find files that are not final, not open and had no byte of their own since ``idle_since``; reads only those."""
    wanted = {"at": idle_since.at, "served": idle_since.served, "limit": limit, "open_files": list(open_files)}
    return [row[0] for row in connection.rows(_IDLE, wanted)]


_STATUS = Sql(lambda dialect: F.select(F.file_id, F.status).where(SQL(dialect.is_item("f.file_id", "ids"))))


def status_of(connection: Connection, file_ids: Sequence[str]) -> dict[str, FileStatus]:
    """Read the status of files by id."""
    found = connection.rows(_STATUS, {"ids": list(file_ids)})
    return {file_id: FileStatus(status) for file_id, status in found}


# For the sealer ------------------------------------------------------------------------------------------------------

# This store did not give numbers above its last: sealed, they would keep the real ones out for ever.
_UNSEALED = Sql(
    lambda _: (
        EVENTS.where(A.change_no > Parameter("head"), A.change_no <= _INFO.select(_INFO.last_change))
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


def count_unsealed(connection: Connection, limit: int) -> int:
    """Count the events behind the newest seal, up to ``limit``."""
    return int(connection.rows(_COUNT_UNSEALED, {"limit": limit})[0][0])
