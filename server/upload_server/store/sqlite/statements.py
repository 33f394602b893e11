"""Decides what is written, as SQL: the statements of store/commands, under their names there.

Must not know who runs them. A list comes in as one JSON text, so that a statement takes one row or ten thousand.
The writer is alone between BEGIN IMMEDIATE and COMMIT; the conditions are there all the same: a change of status
happens only from a state that the domain allows. The plus before such a column keeps SQLite from walking its index,
which holds every open file there is.
"""

# ruff: noqa: S608 - put together from the domain's own words; what callers give are parameters

from __future__ import annotations

from collections.abc import Iterable

from upload_server.domain.states import NAMED_BY_SOURCE, NEXT_BATCH, BatchStatus, FileStatus, sources_of
from upload_server.store import models
from upload_server.store.sqlite.rows import BATCH_ROW_COLUMNS, FILE_ROW_COLUMNS, columns_of, items_of


def words(states: Iterable[str]) -> str:
    """Make the inside of an SQL ``IN (…)`` of words of the domain."""
    return ", ".join(f"'{state}'" for state in sorted(states))


OPEN_FILE = words(status.value for status in FileStatus if not status.final)
OPEN_BATCH = words(status.value for status in BatchStatus if not status.final)
_MAY_CANCEL = words(sources_of(FileStatus.CANCELLED))
_MAY_FAIL = words(sources_of(FileStatus.FAILED))
_BATCH_MAY_CANCEL = words(old for old, new in NEXT_BATCH.items() if BatchStatus.CANCELLED in new)

# Transaction ---------------------------------------------------------------------------------------------------------

BEGIN = "BEGIN IMMEDIATE"
# With the number of the node's last commit: `:commits` is its place.
READ_COUNTERS = "SELECT last_change, coalesce(commits ->> :commits, 0), served_seconds FROM store_info"
WRITE_COUNTERS = """
    UPDATE store_info SET last_change = :last_change, served_seconds = :served,
        commits = json_set(commits, :commits, :commit_no)"""

COUNT_OPEN = f"SELECT count(*) FROM file WHERE status IN ({OPEN_FILE})"
DATABASE_BYTES = "SELECT c.page_count * s.page_size FROM pragma_page_count AS c, pragma_page_size AS s"

# Stored answers ------------------------------------------------------------------------------------------------------

READ_ANSWERS = """
    SELECT s.principal, s.method, s.request_id, s.fingerprint, s.answer
    FROM json_each(:keys) AS k CROSS JOIN stored_answer AS s
    ON s.principal = k.value ->> 0 AND s.method = k.value ->> 1 AND s.request_id = k.value ->> 2"""
KEEP_ANSWERS = f"""
    INSERT INTO stored_answer ({columns_of(models.StoredAnswer)})
    SELECT {items_of(models.StoredAnswer)} FROM json_each(:answers)"""
FORGET_ANSWERS = """
    DELETE FROM stored_answer WHERE rowid IN (
        SELECT rowid FROM stored_answer WHERE created_served < :served AND created_at < :before
        ORDER BY created_served LIMIT :limit)"""

# Files ---------------------------------------------------------------------------------------------------------------

READ_FILES = f"""
    SELECT {FILE_ROW_COLUMNS} FROM json_each(:file_ids) AS k CROSS JOIN file AS f ON f.file_id = k.value"""
READ_TO_CANCEL = """
    SELECT f.id, f.batch_row, f.file_id, f.filename, coalesce(f.batch_id, ''), f.status, f.owner, f.fence,
           f.fence > 0 OR f.bytes_received > 0
    FROM json_each(:file_ids) AS k CROSS JOIN file AS f ON f.file_id = k.value"""
READ_IDS_OF_BATCH = "SELECT file_id FROM file WHERE batch_row = :batch_row ORDER BY id"
# The first file has number :first.
INSERT_FILES = f"""
    INSERT INTO file (file_id, filename, content_type, size_bytes, status, batch_id, batch_row, created_at, updated_at,
                      active_at, active_served, owner, expected_sha256, change_no)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, '{FileStatus.PENDING}', :batch_id, :batch_row, :at, :at,
           :at, :served, :owner, value ->> 4, :first + key
    FROM json_each(:files)"""
# Files that came whole: as their last event leaves them.
PUT_FILES = f"""
    INSERT INTO file (file_id, filename, content_type, size_bytes, bytes_received, status, created_at, updated_at,
                      completed_at, active_at, active_served, owner, expected_sha256, sha256, revision, change_no,
                      fence)
    SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 3, '{FileStatus.COMPLETED}', value ->> 4,
           value ->> 4, value ->> 4, value ->> 4, :served, value ->> 5, value ->> 6, value ->> 7, value ->> 8,
           value ->> 9, value ->> 10
    FROM json_each(:files)
    RETURNING file_id, id"""
# One file from the state and fence that were read to what was decided.
WRITE_FILE = """
    UPDATE file SET status = :status, bytes_received = :bytes_received, sha256 = :sha256, updated_at = :updated_at,
        completed_at = :completed_at, failure_reason = :failure_reason, revision = :revision, change_no = :change_no,
        fence = :fence, active_at = :active_at, active_served = :active_served, cancel_due_at = NULL
    WHERE id = :row AND status = :old_status AND fence = :old_fence"""
# The same for files that came whole, from their announcement to their end.
COMPLETE_WHOLE = f"""
    UPDATE file SET status = '{FileStatus.COMPLETED}', bytes_received = size_bytes, sha256 = v.sha256,
        updated_at = v.at, completed_at = v.at, revision = v.revision, change_no = v.change_no, fence = v.fence,
        active_at = v.at, active_served = :served
    FROM (SELECT value ->> 0 AS id, value ->> 1 AS old_fence, value ->> 2 AS sha256, value ->> 3 AS at,
                 value ->> 4 AS revision, value ->> 5 AS change_no, value ->> 6 AS fence
          FROM json_each(:files)) AS v
    WHERE file.id = v.id AND +file.status = '{FileStatus.PENDING}' AND file.fence = v.old_fence"""
# Recorded bytes never shrink and are no change: no number, no revision.
RECORD_PROGRESS = f"""
    UPDATE file SET bytes_received = max(file.bytes_received, p.bytes_received), writer = p.writer,
        active_at = max(file.active_at, p.at), active_served = max(file.active_served, :served)
    FROM (SELECT value ->> 0 AS file_id, value ->> 1 AS fence, value ->> 2 AS bytes_received, value ->> 3 AS at,
                 value ->> 4 AS writer
          FROM json_each(:progress)) AS p
    WHERE file.file_id = p.file_id AND file.fence = p.fence AND +file.status = '{FileStatus.UPLOADING}'
    RETURNING file_id, fence"""
# The page of a file was lost. No change either; a claim clears it, and after an end the index has it no more.
CANCEL_LATER = f"""
    UPDATE file SET cancel_due_at = :due_at, cancel_due_reason = :reason
    WHERE file_id = :file_id AND fence = :fence AND +status = '{FileStatus.UPLOADING}'"""

# Audit first, since its rows hold the state before; then the files from their audit rows :first to :last --------------

INSERT_EVENTS = f"""
    INSERT INTO audit_event ({columns_of(models.AuditEvent)})
    SELECT {items_of(models.AuditEvent)} FROM json_each(:events)"""
INSERT_EVENTS_OF_NEW_BATCH = f"""
    INSERT INTO audit_event ({columns_of(models.AuditEvent)})
    SELECT change_no, id, batch_row, '', status, :actor, :source, :reason, :request_id, :at
    FROM file WHERE batch_row = :batch_row ORDER BY change_no"""
INSERT_EVENTS_OF_CANCELLED_BATCH = f"""
    INSERT INTO audit_event ({columns_of(models.AuditEvent)})
    SELECT :before + row_number() OVER (ORDER BY id), id, batch_row, status, '{FileStatus.CANCELLED}', :actor, :source,
           :reason, :request_id, :at
    FROM file WHERE batch_row = :batch_row AND status IN ({_MAY_CANCEL})"""
# Only what a stream ever touched has bytes to delete.
OWE_DELETIONS = """
    INSERT OR IGNORE INTO owed_deletion (file_row)
    SELECT f.id FROM audit_event AS a CROSS JOIN file AS f ON f.id = a.file_row
    WHERE a.change_no BETWEEN :first AND :last AND (f.fence > 0 OR f.bytes_received > 0)"""
# The row becomes what `cancelled` in the domain makes of the file and its audit event.
CANCEL_FILES = f"""
    UPDATE file SET status = '{FileStatus.CANCELLED}', revision = revision + 1, fence = fence + 1,
        change_no = a.change_no, updated_at = a.occurred_at, cancelled_at = a.occurred_at, cancel_reason = a.reason,
        cancelled_by = iif(a.source IN ({words(NAMED_BY_SOURCE)}), a.source, a.actor)
    FROM audit_event AS a
    WHERE a.change_no BETWEEN :first AND :last AND file.id = a.file_row AND +file.status IN ({_MAY_CANCEL})"""
FAIL_FILES = f"""
    UPDATE file SET status = '{FileStatus.FAILED}', revision = revision + 1, fence = fence + 1, change_no = a.change_no,
        updated_at = a.occurred_at, failure_reason = :failure_reason
    FROM audit_event AS a
    WHERE a.change_no BETWEEN :first AND :last AND file.id = a.file_row AND +file.status IN ({_MAY_FAIL})"""
# The rows were found by a reader: what has been sent to since then is left out.
READ_IDLE = f"""
    SELECT f.active_at, f.active_served, {FILE_ROW_COLUMNS}
    FROM json_each(:rows) AS k CROSS JOIN file AS f ON f.id = k.value
    WHERE +f.status IN ({OPEN_FILE}) AND f.active_served < :served AND f.active_at < :at"""
READ_BATCH_ACTIVITY = """
    SELECT k.value, max(f.active_at), max(f.active_served), k.value IN (
        SELECT o.batch_row FROM json_each(:open_files) AS l CROSS JOIN file AS o ON o.file_id = l.value
        WHERE o.batch_row IS NOT NULL)
    FROM json_each(:rows) AS k CROSS JOIN file AS f ON f.batch_row = k.value
    GROUP BY k.key"""
PROLONG_FILES = """
    UPDATE file SET active_at = max(file.active_at, v.at), active_served = max(file.active_served, v.served)
    FROM (SELECT value ->> 0 AS id, value ->> 1 AS at, value ->> 2 AS served FROM json_each(:files)) AS v
    WHERE file.id = v.id"""
SETTLE_DELETIONS = "DELETE FROM owed_deletion WHERE id IN (SELECT value FROM json_each(:rows))"

# Batches -------------------------------------------------------------------------------------------------------------

READ_BATCH = f"SELECT {BATCH_ROW_COLUMNS} FROM batch AS b WHERE b.batch_id = :batch_id"
READ_BATCHES_BY_ROW = f"""
    SELECT {BATCH_ROW_COLUMNS} FROM json_each(:rows) AS k CROSS JOIN batch AS b ON b.id = k.value"""
INSERT_BATCH = f"""
    INSERT INTO batch (batch_id, total_files, created_at, owner, status, updated_at, change_no)
    VALUES (:batch_id, :total_files, :at, :owner, '{BatchStatus.PENDING}', :at, :change_no)
    RETURNING id"""
# From the state that was read to what the roll-up decided.
WRITE_BATCHES = """
    UPDATE batch SET status = v.status, completed_files = v.completed, failed_files = v.failed,
        cancelled_files_count = v.cancelled, updated_at = v.updated_at, cancelled_at = v.cancelled_at,
        cancelled_by = v.cancelled_by, revision = v.revision, change_no = v.change_no
    FROM (SELECT value ->> 0 AS id, value ->> 1 AS old_status, value ->> 2 AS status, value ->> 3 AS completed,
                 value ->> 4 AS failed, value ->> 5 AS cancelled, value ->> 6 AS updated_at,
                 value ->> 7 AS cancelled_at, value ->> 8 AS cancelled_by, value ->> 9 AS revision,
                 value ->> 10 AS change_no
          FROM json_each(:batches)) AS v
    WHERE batch.id = v.id AND batch.status = v.old_status"""
CANCEL_BATCH = f"""
    UPDATE batch SET status = '{BatchStatus.CANCELLED}', cancelled_files_count = cancelled_files_count + :count,
        updated_at = :at, cancelled_at = :at, cancelled_by = :cancelled_by, cancel_reason = :reason,
        revision = revision + 1, change_no = :change_no
    WHERE id = :batch_row AND status IN ({_BATCH_MAY_CANCEL})"""

# Nodes ---------------------------------------------------------------------------------------------------------------

# All on one machine, whose clock is the store's.
NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
_LATER = "strftime('%Y-%m-%d %H:%M:%f', 'now', :seconds || ' seconds')"
_EARLIER = "strftime('%Y-%m-%d %H:%M:%f', 'now', -:seconds || ' seconds')"
BEAT = f"""
    INSERT INTO node (node_id, started_at, lives_until, version, address)
    VALUES (:node, {NOW}, {_LATER}, :version, :address)
    ON CONFLICT (node_id) DO UPDATE SET lives_until = excluded.lives_until"""
LEAVE = "DELETE FROM node WHERE node_id = :node"
TAKE_LEASE = f"""
    INSERT INTO lease (name, node_id, until) VALUES (:name, :node, {_LATER})
    ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, until = excluded.until
    WHERE lease.node_id = excluded.node_id OR lease.until < {NOW}"""
GIVE_UP_LEASES = "DELETE FROM lease WHERE node_id = :node"
READ_OTHERS = f"SELECT node_id FROM node WHERE node_id <> :node AND lives_until > {NOW} ORDER BY node_id"
FORGET_NODES = f"DELETE FROM node WHERE lives_until < {_EARLIER}"
FORGET_STOPS = "DELETE FROM stream_stop WHERE node_id NOT IN (SELECT node_id FROM node)"
# Whoever has the file to itself knows that no node is left, and writes nothing where there was none.
ANY_NODE = """
    SELECT EXISTS (SELECT 1 FROM node) OR EXISTS (SELECT 1 FROM store_info, json_each(commits) WHERE key <> '')"""
FORGET_ALL_NODES = (
    "DELETE FROM node",
    "DELETE FROM stream_stop",
    "DELETE FROM lease",
    "UPDATE store_info SET commits = json_object('', coalesce(commits ->> '$.\"\"', 0))",
)

# Seals ---------------------------------------------------------------------------------------------------------------

READ_LAST_SEAL = """
    SELECT change_no, previous_no, hash FROM audit_seal WHERE change_no = (SELECT max(change_no) FROM audit_seal)"""
# The hashes come as one value, 32 bytes each.
INSERT_SEALS = f"""
    INSERT INTO audit_seal ({columns_of(models.AuditSeal)})
    SELECT value ->> 0, value ->> 1, substr(:hashes, 1 + 32 * key, 32) FROM json_each(:numbers)"""
