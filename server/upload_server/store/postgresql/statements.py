"""Decides what is written, as SQL: the statements of store/commands, under their names there.

Must not know who runs them. A list comes in as one JSON text, so that a statement takes one row or ten thousand.
Whoever writes is alone from the order lock to COMMIT; the conditions are there all the same: a change of status happens
only from a state that the domain allows. `status || ''` keeps the planner from walking the indexes that hold every open
file there is. A value that may be NULL says its type, which nothing else would tell.
"""

# ruff: noqa: S608 - put together from the domain's own words; what callers give are parameters

from __future__ import annotations

from collections.abc import Iterable

from upload_server.domain.states import NAMED_BY_SOURCE, NEXT_BATCH, BatchStatus, FileStatus, sources_of
from upload_server.store import models
from upload_server.store.postgresql.rows import BATCH_ROW_COLUMNS, FILE_ROW_COLUMNS, columns_of, items_of


def words(states: Iterable[str]) -> str:
    """Make the inside of an SQL ``IN (…)`` of words of the domain."""
    return ", ".join(f"'{state}'" for state in sorted(states))


def texts_of(name: str) -> str:
    """Return the items of a JSON list of texts, as rows of ``k (value)``."""
    return f"jsonb_array_elements_text(%({name})s::jsonb) AS k (value)"


def numbers_of(name: str) -> str:
    """Return the items of a JSON list of numbers, as rows of ``k (value, place)``."""
    return (
        f"(SELECT value::bigint, place FROM jsonb_array_elements_text(%({name})s::jsonb)"
        " WITH ORDINALITY AS t (value, place)) AS k"
    )


def rows_of(name: str) -> str:
    """Return the items of a JSON list of rows, as rows of ``v (value, place)``, whose ``value ->> 0`` is the first."""
    return f"jsonb_array_elements(%({name})s::jsonb) WITH ORDINALITY AS v (value, place)"


OPEN_FILE = words(status.value for status in FileStatus if not status.final)
OPEN_BATCH = words(status.value for status in BatchStatus if not status.final)
_MAY_CANCEL = words(sources_of(FileStatus.CANCELLED))
_MAY_FAIL = words(sources_of(FileStatus.FAILED))
_BATCH_MAY_CANCEL = words(old for old, new in NEXT_BATCH.items() if BatchStatus.CANCELLED in new)

# Transaction ---------------------------------------------------------------------------------------------------------

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
# The order lock. Whoever holds it is alone, so that numbers come in the order of commits; the next statement, which
# begins after it was taken, sees all that was committed before. Unlike a row's lock it writes nothing.
TAKE_ORDER_LOCK = "SELECT pg_advisory_xact_lock(1, 'store_info'::regclass::oid::integer)"
READ_COUNTERS = "SELECT last_change, served_seconds FROM store_info WHERE id = 1"
# Returns the transaction's own number, by which its commit can be looked up.
WRITE_COUNTERS = """
    UPDATE store_info SET last_change = %(last_change)s, served_seconds = %(served)s WHERE id = 1
    RETURNING pg_current_xact_id()::text"""
# A commit that changes nothing of ours.
FOLLOW = "UPDATE store_info SET last_change = last_change WHERE id = 1"
# Of a transaction whose session has ended: what became of it, and whether what it wrote last is there. A crash may lose
# a number that was given, and give it again.
READ_FATE = """
    SELECT CASE WHEN t.no >= pg_snapshot_xmax(pg_current_snapshot()) THEN 'aborted' ELSE pg_xact_status(t.no) END,
           i.last_change >= %(last_change)s AND i.served_seconds >= %(served)s
    FROM (SELECT %(transaction)s::xid8) AS t (no) CROSS JOIN store_info AS i WHERE i.id = 1"""

COUNT_OPEN = f"SELECT count(*) FROM file WHERE status IN ({OPEN_FILE})"
# Of the tables of a store with their indexes, whatever else is in the database.
DATABASE_BYTES = """
    SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class AS c
    WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'store_info'::regclass)"""

# Stored answers ------------------------------------------------------------------------------------------------------

READ_ANSWERS = f"""
    SELECT s.principal, s.method, s.request_id, s.fingerprint, s.answer
    FROM {rows_of("keys")} JOIN stored_answer AS s
    ON s.principal = v.value ->> 0 AND s.method = v.value ->> 1 AND s.request_id = v.value ->> 2"""
KEEP_ANSWERS = f"""
    INSERT INTO stored_answer ({columns_of(models.StoredAnswer)})
    SELECT {items_of(models.StoredAnswer)} FROM {rows_of("answers")}"""
FORGET_ANSWERS = """
    DELETE FROM stored_answer WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM stored_answer WHERE created_served < %(served)s AND created_at < %(before)s
        ORDER BY created_served LIMIT %(limit)s))"""

# Files ---------------------------------------------------------------------------------------------------------------

READ_FILES = f"SELECT {FILE_ROW_COLUMNS} FROM {texts_of('file_ids')} JOIN file AS f ON f.file_id = k.value"
READ_TO_CANCEL = f"""
    SELECT f.id, f.batch_row, f.file_id, f.filename, coalesce(f.batch_id, ''), f.status, f.owner, f.fence,
           f.fence > 0 OR f.bytes_received > 0
    FROM {texts_of("file_ids")} JOIN file AS f ON f.file_id = k.value"""
READ_IDS_OF_BATCH = "SELECT file_id FROM file WHERE batch_row = %(batch_row)s ORDER BY id"
# The first file has number %(first)s.
INSERT_FILES = f"""
    INSERT INTO file (file_id, filename, content_type, size_bytes, status, batch_id, batch_row, created_at, updated_at,
                      active_at, active_served, owner, expected_sha256, change_no)
    SELECT value ->> 0, value ->> 1, value ->> 2, (value ->> 3)::bigint, '{FileStatus.PENDING}', %(batch_id)s::text,
           %(batch_row)s::bigint, %(at)s, %(at)s, %(at)s, %(served)s, %(owner)s, value ->> 4, %(first)s + place - 1
    FROM {rows_of("files")} ORDER BY place"""
# Files that came whole: as their last event leaves them.
PUT_FILES = f"""
    INSERT INTO file (file_id, filename, content_type, size_bytes, bytes_received, status, created_at, updated_at,
                      completed_at, active_at, active_served, owner, expected_sha256, sha256, revision, change_no,
                      fence)
    SELECT value ->> 0, value ->> 1, value ->> 2, (value ->> 3)::bigint, (value ->> 3)::bigint,
           '{FileStatus.COMPLETED}', at, at, at, at, %(served)s, value ->> 5, value ->> 6, value ->> 7,
           (value ->> 8)::bigint, (value ->> 9)::bigint, (value ->> 10)::bigint
    FROM {rows_of("files")} CROSS JOIN LATERAL (SELECT (value ->> 4)::timestamptz) AS t (at)
    ORDER BY place
    RETURNING file_id, id"""
# One file from the state and fence that were read to what was decided.
WRITE_FILE = """
    UPDATE file SET status = %(status)s, bytes_received = %(bytes_received)s, sha256 = %(sha256)s,
        updated_at = %(updated_at)s, completed_at = %(completed_at)s, failure_reason = %(failure_reason)s,
        revision = %(revision)s, change_no = %(change_no)s, fence = %(fence)s, active_at = %(active_at)s,
        active_served = %(active_served)s, cancel_due_at = NULL
    WHERE id = %(row)s AND status = %(old_status)s AND fence = %(old_fence)s"""
# The same for files that came whole, from their announcement to their end.
COMPLETE_WHOLE = f"""
    UPDATE file SET status = '{FileStatus.COMPLETED}', bytes_received = size_bytes, sha256 = value ->> 2,
        updated_at = (value ->> 3)::timestamptz, completed_at = (value ->> 3)::timestamptz,
        revision = (value ->> 4)::bigint, change_no = (value ->> 5)::bigint, fence = (value ->> 6)::bigint,
        active_at = (value ->> 3)::timestamptz, active_served = %(served)s
    FROM {rows_of("files")}
    WHERE file.id = (value ->> 0)::bigint AND file.status || '' = '{FileStatus.PENDING}'
        AND file.fence = (value ->> 1)::bigint"""
# Recorded bytes never shrink and are no change: no number, no revision.
RECORD_PROGRESS = f"""
    UPDATE file SET bytes_received = greatest(file.bytes_received, (v.value ->> 2)::bigint), writer = v.value ->> 4,
        active_at = greatest(file.active_at, (v.value ->> 3)::timestamptz),
        active_served = greatest(file.active_served, %(served)s)
    FROM {rows_of("progress")}
    WHERE file.file_id = v.value ->> 0 AND file.fence = (v.value ->> 1)::bigint
        AND file.status || '' = '{FileStatus.UPLOADING}'
    RETURNING file.file_id, file.fence"""
# The page of a file was lost. No change either; a claim clears it, and after an end the index has it no more.
CANCEL_LATER = f"""
    UPDATE file SET cancel_due_at = %(due_at)s, cancel_due_reason = %(reason)s
    WHERE file_id = %(file_id)s AND fence = %(fence)s AND status || '' = '{FileStatus.UPLOADING}'"""

# Audit first, since its rows hold the state before; then the files from their audit rows first to last ----------------

INSERT_EVENTS = f"""
    INSERT INTO audit_event ({columns_of(models.AuditEvent)})
    SELECT {items_of(models.AuditEvent)} FROM {rows_of("events")}"""
INSERT_EVENTS_OF_NEW_BATCH = f"""
    INSERT INTO audit_event ({columns_of(models.AuditEvent)})
    SELECT change_no, id, batch_row, '', status, %(actor)s, %(source)s, %(reason)s, %(request_id)s, %(at)s
    FROM file WHERE batch_row = %(batch_row)s ORDER BY change_no"""
INSERT_EVENTS_OF_CANCELLED_BATCH = f"""
    INSERT INTO audit_event ({columns_of(models.AuditEvent)})
    SELECT %(before)s + row_number() OVER (ORDER BY id), id, batch_row, status, '{FileStatus.CANCELLED}', %(actor)s,
           %(source)s, %(reason)s, %(request_id)s, %(at)s
    FROM file WHERE batch_row = %(batch_row)s AND status || '' IN ({_MAY_CANCEL})"""
# Only what a stream ever touched has bytes to delete.
OWE_DELETIONS = """
    INSERT INTO owed_deletion (file_row)
    SELECT f.id FROM audit_event AS a JOIN file AS f ON f.id = a.file_row
    WHERE a.change_no BETWEEN %(first)s AND %(last)s AND (f.fence > 0 OR f.bytes_received > 0)
    ORDER BY a.change_no ON CONFLICT DO NOTHING"""
# The row becomes what `cancelled` in the domain makes of the file and its audit event.
CANCEL_FILES = f"""
    UPDATE file SET status = '{FileStatus.CANCELLED}', revision = revision + 1, fence = fence + 1,
        change_no = a.change_no, updated_at = a.occurred_at, cancelled_at = a.occurred_at, cancel_reason = a.reason,
        cancelled_by = CASE WHEN a.source IN ({words(NAMED_BY_SOURCE)}) THEN a.source ELSE a.actor END
    FROM audit_event AS a
    WHERE a.change_no BETWEEN %(first)s AND %(last)s AND file.id = a.file_row
        AND file.status || '' IN ({_MAY_CANCEL})"""
FAIL_FILES = f"""
    UPDATE file SET status = '{FileStatus.FAILED}', revision = revision + 1, fence = fence + 1, change_no = a.change_no,
        updated_at = a.occurred_at, failure_reason = %(failure_reason)s
    FROM audit_event AS a
    WHERE a.change_no BETWEEN %(first)s AND %(last)s AND file.id = a.file_row
        AND file.status || '' IN ({_MAY_FAIL})"""
# The rows were found by a reader: what has been sent to since then is left out.
READ_IDLE = f"""
    SELECT f.active_at, f.active_served, {FILE_ROW_COLUMNS}
    FROM {numbers_of("rows")} JOIN file AS f ON f.id = k.value
    WHERE f.status || '' IN ({OPEN_FILE}) AND f.active_served < %(served)s AND f.active_at < %(at)s ORDER BY k.place"""
READ_BATCH_ACTIVITY = f"""
    SELECT k.value, max(f.active_at), max(f.active_served), k.value = ANY(ARRAY(
        SELECT o.batch_row FROM jsonb_array_elements_text(%(open_files)s::jsonb) AS l (value)
        JOIN file AS o ON o.file_id = l.value WHERE o.batch_row IS NOT NULL))
    FROM {numbers_of("rows")} JOIN file AS f ON f.batch_row = k.value
    GROUP BY k.value"""
PROLONG_FILES = f"""
    UPDATE file SET active_at = greatest(file.active_at, (v.value ->> 1)::timestamptz),
        active_served = greatest(file.active_served, (v.value ->> 2)::double precision)
    FROM {rows_of("files")}
    WHERE file.id = (v.value ->> 0)::bigint"""
SETTLE_DELETIONS = f"DELETE FROM owed_deletion USING {numbers_of('rows')} WHERE owed_deletion.id = k.value"

# Batches -------------------------------------------------------------------------------------------------------------

READ_BATCH = f"SELECT {BATCH_ROW_COLUMNS} FROM batch AS b WHERE b.batch_id = %(batch_id)s"
READ_BATCHES_BY_ROW = f"""
    SELECT {BATCH_ROW_COLUMNS} FROM {numbers_of("rows")} JOIN batch AS b ON b.id = k.value ORDER BY k.place"""
INSERT_BATCH = f"""
    INSERT INTO batch (batch_id, total_files, created_at, owner, status, updated_at, change_no)
    VALUES (%(batch_id)s, %(total_files)s, %(at)s, %(owner)s, '{BatchStatus.PENDING}', %(at)s, %(change_no)s)
    RETURNING id"""
# From the state that was read to what the roll-up decided.
WRITE_BATCHES = f"""
    UPDATE batch SET status = value ->> 2, completed_files = (value ->> 3)::bigint,
        failed_files = (value ->> 4)::bigint, cancelled_files_count = (value ->> 5)::bigint,
        updated_at = (value ->> 6)::timestamptz, cancelled_at = (value ->> 7)::timestamptz, cancelled_by = value ->> 8,
        revision = (value ->> 9)::bigint, change_no = (value ->> 10)::bigint
    FROM {rows_of("batches")}
    WHERE batch.id = (value ->> 0)::bigint AND batch.status = value ->> 1"""
CANCEL_BATCH = f"""
    UPDATE batch SET status = '{BatchStatus.CANCELLED}', cancelled_files_count = cancelled_files_count + %(count)s,
        updated_at = %(at)s, cancelled_at = %(at)s, cancelled_by = %(cancelled_by)s, cancel_reason = %(reason)s,
        revision = revision + 1, change_no = %(change_no)s
    WHERE id = %(batch_row)s AND status IN ({_BATCH_MAY_CANCEL})"""

# Nodes ---------------------------------------------------------------------------------------------------------------

# Not the time at which the transaction began, which may have waited for the order lock.
NOW = "clock_timestamp()"
_LATER = f"{NOW} + make_interval(secs => %(seconds)s)"
BEAT = f"""
    INSERT INTO node (node_id, started_at, lives_until, version, address)
    VALUES (%(node)s, {NOW}, {_LATER}, %(version)s, %(address)s)
    ON CONFLICT (node_id) DO UPDATE SET lives_until = excluded.lives_until"""
LEAVE = "DELETE FROM node WHERE node_id = %(node)s"
TAKE_LEASE = f"""
    INSERT INTO lease (name, node_id, until) VALUES (%(name)s, %(node)s, {_LATER})
    ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, until = excluded.until
    WHERE lease.node_id = excluded.node_id OR lease.until < {NOW}"""
GIVE_UP_LEASES = "DELETE FROM lease WHERE node_id = %(node)s"
READ_OTHERS = f"SELECT node_id FROM node WHERE node_id <> %(node)s AND lives_until > {NOW} ORDER BY node_id"
FORGET_NODES = f"DELETE FROM node WHERE lives_until < {NOW} - make_interval(secs => %(seconds)s)"
FORGET_STOPS = "DELETE FROM stream_stop WHERE node_id NOT IN (SELECT node_id FROM node)"

# Seals ---------------------------------------------------------------------------------------------------------------

READ_LAST_SEAL = "SELECT change_no, previous_no, hash FROM audit_seal ORDER BY change_no DESC LIMIT 1"
# The hashes come as one value, 32 bytes each.
INSERT_SEALS = f"""
    INSERT INTO audit_seal ({columns_of(models.AuditSeal)})
    SELECT (value ->> 0)::bigint, (value ->> 1)::bigint, substr(%(hashes)s::bytea, (1 + 32 * (place - 1))::integer, 32)
    FROM {rows_of("numbers")}"""
