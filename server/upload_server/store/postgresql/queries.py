"""Decides what is read, as queries over the models: each function reads from the one snapshot that its caller opened.

Must not know about threads. A caller finds only rows that its owner may see.
"""

from __future__ import annotations

from collections.abc import Sequence

from peewee import JOIN

from upload_server.domain.chain import Seal
from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import Batch, File, FileStatus
from upload_server.store import models
from upload_server.store.postgresql.compiling import Parameter, compiled, is_item
from upload_server.store.postgresql.connection import Connection
from upload_server.store.postgresql.rows import (
    BATCH_FIELDS,
    FILE_FIELDS,
    A,
    B,
    F,
    batch_of,
    event_of,
    file_of,
)
from upload_server.store.postgresql.statements import OPEN_FILE, READ_LAST_SEAL
from upload_server.store.postgresql.trail import EVENTS
from upload_server.store.protocol import DueCancel, Moment, OwedDeletion, Unsealed

_OWNER, _LIMIT = Parameter("owner"), Parameter("limit")
_FILE_ID, _BATCH_ID = Parameter("file_id"), Parameter("batch_id")

_INFO, _OWED_DELETION = models.StoreInfo.alias("store_info"), models.OwedDeletion.alias("o")
_LAST_CHANGE = compiled(_INFO.select(_INFO.last_change))
_STORE_ID = compiled(_INFO.select(_INFO.store_id))
_SERVED = compiled(_INFO.select(_INFO.served_seconds))
_FILE = compiled(F.select(*FILE_FIELDS).where(F.file_id == _FILE_ID, F.owner == _OWNER))
_BATCH = compiled(B.select(*BATCH_FIELDS).where(B.batch_id == _BATCH_ID, B.owner == _OWNER))

# A server that was a standby, or that was restored, has a new timeline: the first digits of its log's name. A dump that
# is restored into the same database makes its tables anew.
_IDENTITY = """
    SELECT (SELECT system_identifier FROM pg_control_system()), left(pg_walfile_name(pg_current_wal_lsn()), 8), d.oid,
           'store_info'::regclass::oid
    FROM pg_database AS d WHERE d.datname = current_database()"""


def read_last_change(connection: Connection) -> int:
    """Read the number of the last change in this snapshot."""
    return int(connection.rows(_LAST_CHANGE)[0][0])


def read_served(connection: Connection) -> float:
    """Read the seconds that were kept in which a service ran on the store."""
    return float(connection.rows(_SERVED)[0][0])


def read_store_id(connection: Connection) -> str:
    """Read the store's identity."""
    return str(connection.rows(_STORE_ID)[0][0])


def read_identity(connection: Connection) -> str:
    """Read what distinguishes this database from any copy of it: a copy that takes writes has a history of its own."""
    return "/".join(map(str, (read_store_id(connection), *connection.rows(_IDENTITY)[0])))


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

_OWED = compiled(
    _OWED_DELETION.select(_OWED_DELETION.id, F.file_id)
    .join(F, JOIN.INNER, on=F.id == _OWED_DELETION.file_row)
    .order_by(_OWED_DELETION.id)
    .limit(_LIMIT)
)


def owed_deletions(connection: Connection, limit: int) -> Sequence[OwedDeletion]:
    """Read the oldest deletions owed."""
    return [OwedDeletion(row, file_id) for row, file_id in connection.rows(_OWED, {"limit": limit})]


_DUE = f"""
    SELECT file_id, owner, fence, cancel_due_at, cancel_due_reason FROM file
    WHERE cancel_due_at IS NOT NULL AND status = '{FileStatus.UPLOADING}' ORDER BY cancel_due_at LIMIT %(limit)s"""  # noqa: S608


def due_cancels(connection: Connection, limit: int) -> Sequence[DueCancel]:
    """Read the cancels that lost pages owe, the earliest first."""
    return [
        DueCancel(file_id, owner, fence, due_at, reason)
        for file_id, owner, fence, due_at, reason in connection.rows(_DUE, {"limit": limit})
    ]


# Reads all that are open: an index of when they were active would have to follow every byte.
_IDLE = f"""
    SELECT f.id FROM file AS f
    WHERE f.status IN ({OPEN_FILE}) AND f.active_served < %(served)s AND f.active_at < %(at)s
        AND f.file_id <> ALL(ARRAY(SELECT jsonb_array_elements_text(%(open_files)s::jsonb)))
    ORDER BY f.active_served LIMIT %(limit)s"""  # noqa: S608 - the domain's own words


def idle_rows(connection: Connection, idle_since: Moment, open_files: Sequence[str], limit: int) -> list[int]:
    """Find files that are not final, not open and had no byte of their own since ``idle_since``."""
    wanted = {"at": idle_since.at, "served": idle_since.served, "limit": limit}
    return [row[0] for row in connection.rows(_IDLE, {**wanted, "open_files": list(open_files)})]


_STATUS = compiled(F.select(F.file_id, F.status).where(is_item(F.file_id, Parameter("ids"))))


def status_of(connection: Connection, file_ids: Sequence[str]) -> dict[str, FileStatus]:
    """Read the status of files by id."""
    found = connection.rows(_STATUS, {"ids": list(file_ids)})
    return {file_id: FileStatus(status) for file_id, status in found}


# For the sealer ------------------------------------------------------------------------------------------------------

# This store did not give numbers above its last: sealed, they would keep the real ones out for ever.
_UNSEALED = compiled(
    EVENTS.where(A.change_no > Parameter("head"), A.change_no <= _INFO.select(_INFO.last_change))
    .order_by(A.change_no)
    .limit(_LIMIT)
)
_COUNT_UNSEALED = """
    SELECT count(*) FROM (
        SELECT 1 FROM audit_event WHERE change_no > (SELECT coalesce(max(change_no), 0) FROM audit_seal)
        LIMIT %(limit)s) AS unsealed"""


def read_unsealed(connection: Connection, limit: int) -> Unsealed:
    """Read the newest seal and the oldest events without one."""
    last = [Seal(*row) for row in connection.rows(READ_LAST_SEAL)]
    events = connection.rows(_UNSEALED, {"head": last[0].event_id if last else 0, "limit": limit})
    return Unsealed(last[0] if last else None, tuple(event_of(row) for row in events))


def count_unsealed(connection: Connection, limit: int) -> int:
    """Count the events behind the newest seal, up to ``limit``."""
    return int(connection.rows(_COUNT_UNSEALED, {"limit": limit})[0][0])
