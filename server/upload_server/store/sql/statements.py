"""Decides what is written, as SQL: the statements of store/commands, under their names there.

Must not know who runs them. A list comes in as one value, so that a statement takes one row or ten thousand. Whoever
writes has the rows to itself until its COMMIT; the conditions are there all the same: a change of status happens only
from a state that the domain allows. A number that a transaction gave is written `moved`. Where a column is unindexed, a
database would else walk the index that holds every open file.
"""

# ruff: noqa: S608 - put together from the domain's own words; what callers give are parameters

from __future__ import annotations

from collections.abc import Iterable

from upload_server.domain.states import NAMED_BY_SOURCE, NEXT_BATCH, BatchStatus, FileStatus, sources_of
from upload_server.store import models
from upload_server.store.sql.dialect import Dialect, Sql
from upload_server.store.sql.rows import BATCH_ROW_COLUMNS, FILE_ROW_COLUMNS, columns_of, kinds_of


def words(states: Iterable[str]) -> str:
    """Make the inside of an SQL ``IN (…)`` of words of the domain."""
    return ", ".join(f"'{state}'" for state in sorted(states))


OPEN_FILE = words(status.value for status in FileStatus if not status.final)
OPEN_BATCH = words(status.value for status in BatchStatus if not status.final)
_MAY_CANCEL = words(sources_of(FileStatus.CANCELLED))
_MAY_FAIL = words(sources_of(FileStatus.FAILED))
_BATCH_MAY_CANCEL = words(old for old, new in NEXT_BATCH.items() if BatchStatus.CANCELLED in new)


_EVENT_COLUMNS = columns_of(models.AuditEvent)


def held_elsewhere(dialect: Dialect) -> str:
    """Return the condition that a node that lives has the file ``f`` open, another one than ``:node``."""
    return f"""(f.holder IS NOT NULL AND f.holder <> :node AND EXISTS (
        SELECT 1 FROM node AS n WHERE n.node_id = f.holder AND n.lives_until > {dialect.now}))"""


# For transactions ----------------------------------------------------------------------------------------------------

COUNT_OPEN = Sql(f"SELECT count(*) FROM file WHERE status IN ({OPEN_FILE})")

# Stored answers ------------------------------------------------------------------------------------------------------

READ_ANSWERS = Sql(
    lambda d: (
        f"""
    SELECT s.principal, s.method, s.request_id, s.fingerprint, s.answer
    FROM {d.rows("keys", "principal, method, request_id")} CROSS JOIN stored_answer AS s
    WHERE s.principal = v.principal AND s.method = v.method AND s.request_id = v.request_id"""
    )
)
_ANSWER_COLUMNS = columns_of(models.StoredAnswer)
KEEP_ANSWERS = Sql(
    lambda d: (
        f"""
    INSERT INTO stored_answer ({_ANSWER_COLUMNS})
    SELECT {_ANSWER_COLUMNS} FROM {d.rows("answers", kinds_of(models.StoredAnswer))}"""
    )
)
_OLDEST = (
    "FROM stored_answer WHERE created_served < :served AND created_at < :before ORDER BY created_served LIMIT :limit"
)
FORGET_ANSWERS = Sql(
    lambda d: f"DELETE FROM stored_answer WHERE {d.is_one(d.row_place, f'SELECT {d.row_place} {_OLDEST}')}"
)

# Tickets -------------------------------------------------------------------------------------------------------------

KEEP_TICKET = Sql(
    lambda d: (
        f"""
    INSERT INTO ticket ({columns_of(models.Ticket)})
    VALUES (:sha256, :identity, {d.from_now(":seconds")})"""
    )
)
TAKE_TICKET = Sql(lambda d: f"DELETE FROM ticket WHERE sha256 = :sha256 AND expires_at > {d.now} RETURNING identity")
FORGET_TICKETS = Sql(lambda d: f"DELETE FROM ticket WHERE expires_at <= {d.now}")

# Files ---------------------------------------------------------------------------------------------------------------

READ_FILES = Sql(
    lambda d: f"SELECT {FILE_ROW_COLUMNS} FROM {d.items('file_ids')} CROSS JOIN file AS f WHERE f.file_id = k.value"
)
READ_TO_CANCEL = Sql(
    lambda d: (
        f"""
    SELECT f.id, f.batch_row, f.file_id, f.filename, coalesce(f.batch_id, ''), f.status, f.owner, f.fence,
           f.fence > 0 OR f.bytes_received > 0
    FROM {d.items("file_ids")} CROSS JOIN file AS f WHERE f.file_id = k.value"""
    )
)
READ_IDS_OF_BATCH = Sql("SELECT file_id FROM file WHERE batch_row = :batch_row ORDER BY id")
# The first file has number :first.
INSERT_FILES = Sql(
    lambda d: (
        f"""
    INSERT INTO file (file_id, filename, content_type, size_bytes, status, batch_id, batch_row, created_at, updated_at,
                      active_at, active_served, owner, expected_sha256, change_no)
    SELECT v.file_id, v.filename, v.content_type, v.size_bytes, '{FileStatus.PENDING}', {d.typed(":batch_id", "text")},
           (SELECT id FROM batch WHERE batch.batch_id = {d.typed(":batch_id", "text")}), :at, :at, :at, :served, :owner,
           v.expected_sha256, {d.moved(":first")} + v.key
    FROM {d.rows("files", "file_id, filename, content_type, size_bytes bigint, expected_sha256")}"""
    )
)
# Files that came whole: as their last event leaves them.
_PUT = (
    "file_id, filename, content_type, size_bytes bigint, at timestamptz, owner, expected_sha256, sha256,"
    " revision bigint, change_no bigint, fence bigint"
)
PUT_FILES = Sql(
    lambda d: (
        f"""
    INSERT INTO file (file_id, filename, content_type, size_bytes, bytes_received, status, created_at, updated_at,
                      completed_at, active_at, active_served, owner, expected_sha256, sha256, revision, change_no,
                      fence)
    SELECT v.file_id, v.filename, v.content_type, v.size_bytes, v.size_bytes, '{FileStatus.COMPLETED}', v.at, v.at,
           v.at, v.at, :served, v.owner, v.expected_sha256, v.sha256, v.revision, {d.moved("v.change_no")}, v.fence
    FROM {d.rows("files", _PUT)}"""
    )
)
# Apart from the two before: files of other doors have none, and cost nothing for it.
KEEP_TUS_METADATA = Sql(
    lambda d: (
        f"""
    UPDATE file SET tus_metadata = v.tus_metadata FROM {d.rows("files", "file_id, tus_metadata")}
    WHERE file.file_id = v.file_id"""
    )
)
# One file from the state and fence that were read to what was decided.
WRITE_FILE = Sql(
    lambda d: (
        f"""
    UPDATE file SET status = :status, bytes_received = :bytes_received, sha256 = :sha256, updated_at = :updated_at,
        completed_at = :completed_at, failure_reason = :failure_reason, revision = :revision,
        change_no = {d.moved(":change_no")}, fence = :fence, active_at = :active_at, active_served = :active_served,
        cancel_due_at = NULL, run_fence = :run_fence, holder = coalesce({d.typed(":holder", "text")}, holder)
    WHERE id = :row AND status = :old_status AND fence = :old_fence"""
    )
)
# The same for files that came whole, from their announcement to their end.
_COMPLETED = "id bigint, old_fence bigint, sha256, at timestamptz, revision bigint, change_no bigint, fence bigint"
COMPLETE_WHOLE = Sql(
    lambda d: (
        f"""
    UPDATE file SET status = '{FileStatus.COMPLETED}', bytes_received = size_bytes, sha256 = v.sha256,
        updated_at = v.at, completed_at = v.at, revision = v.revision, change_no = {d.moved("v.change_no")},
        fence = v.fence,
        active_at = v.at, active_served = :served
    FROM {d.rows("files", _COMPLETED)}
    WHERE file.id = v.id AND {d.unindexed("file.status")} = '{FileStatus.PENDING}' AND file.fence = v.old_fence"""
    )
)
END_RUN = Sql("INSERT INTO run (file_row, fence, upto) VALUES (:file_row, :fence, :upto)")
READ_RUNS = Sql("SELECT fence, upto FROM run WHERE file_row = :file_row")
# Recorded bytes never shrink and are no change: no number, no revision.
RECORD_PROGRESS = Sql(
    lambda d: (
        f"""
    UPDATE file SET bytes_received = {d.greatest}(file.bytes_received, v.bytes_received), writer = v.writer,
        active_at = {d.greatest}(file.active_at, v.at), active_served = {d.greatest}(file.active_served, :served)
    FROM {d.rows("progress", "file_id, fence bigint, bytes_received bigint, at timestamptz, writer")}
    WHERE file.file_id = v.file_id AND file.fence = v.fence
        AND {d.unindexed("file.status")} = '{FileStatus.UPLOADING}'
    RETURNING file.file_id, file.fence"""
    )
)
# The page of a file was lost. No change either; a claim clears it, and after an end the index has it no more.
CANCEL_LATER = Sql(
    lambda d: (
        f"""
    UPDATE file SET cancel_due_at = :due_at, cancel_due_reason = :reason
    WHERE file_id = :file_id AND fence = :fence AND {d.unindexed("status")} = '{FileStatus.UPLOADING}'"""
    )
)

RELEASE_FILE = Sql(
    lambda d: (
        f"""
    UPDATE file SET holder = NULL
    WHERE file_id = :file_id AND holder = :node
        AND (fence = :fence OR {d.unindexed("status")} <> '{FileStatus.UPLOADING}')"""
    )
)


def _audited(dialect: Dialect) -> str:
    """Return the condition that an audit event is one of the events :first to :last."""
    return f"a.change_no BETWEEN {dialect.moved(':first')} AND {dialect.moved(':last')}"


# Audit first, since its rows hold the state before; then the files from their audit rows :first to :last --------------

INSERT_EVENTS = Sql(
    lambda d: (
        f"""
    INSERT INTO audit_event ({_EVENT_COLUMNS})
    SELECT {_EVENT_COLUMNS.replace("change_no", d.moved("change_no"))}
    FROM {d.rows("events", kinds_of(models.AuditEvent))}"""
    )
)
# Of files and their batch that have just been inserted with the numbers :first to :last.
INSERT_EVENTS_OF_NEW = Sql(
    lambda d: (
        f"""
    INSERT INTO audit_event ({_EVENT_COLUMNS})
    SELECT change_no, id, batch_row, '', status, :actor, :source, :reason, :request_id, {d.typed(":at", "timestamptz")},
           :credential, :peer, filename
    FROM file WHERE change_no BETWEEN {d.moved(":first")} AND {d.moved(":last")}
    UNION ALL
    SELECT change_no, NULL, id, '', status, :actor, :source, :reason, :request_id, {d.typed(":at", "timestamptz")},
           :credential, :peer, ''
    FROM batch WHERE change_no BETWEEN {d.moved(":first")} AND {d.moved(":last")}"""
    )
)
# Of files that came whole, by the number that each of them has.
_PUT_EVENT = (
    "change_no bigint, file_no bigint, from_status, to_status, actor, source, reason, request_id,"
    " occurred_at timestamptz, credential, peer"
)
INSERT_EVENTS_OF_PUT = Sql(
    lambda d: (
        f"""
    INSERT INTO audit_event ({_EVENT_COLUMNS})
    SELECT {d.moved("v.change_no")}, f.id, NULL, v.from_status, v.to_status, v.actor, v.source, v.reason, v.request_id,
           v.occurred_at, v.credential, v.peer, CASE WHEN v.from_status = '' THEN f.filename ELSE '' END
    FROM {d.rows("events", _PUT_EVENT)} CROSS JOIN file AS f WHERE f.change_no = {d.moved("v.file_no")}"""
    )
)
INSERT_EVENTS_OF_CANCELLED_BATCH = Sql(
    lambda d: (
        f"""
    INSERT INTO audit_event ({_EVENT_COLUMNS})
    SELECT {d.moved(":first")} - 1 + row_number() OVER (ORDER BY id), id, batch_row, status, '{FileStatus.CANCELLED}',
           :actor, :source, :reason, :request_id, :at, :credential, :peer, ''
    FROM file WHERE batch_row = :batch_row AND {d.unindexed("status")} IN ({_MAY_CANCEL})"""
    )
)
# Only what a stream ever touched has bytes to delete.
OWE_DELETIONS = Sql(
    lambda d: (
        f"""
    INSERT INTO owed_deletion (file_row)
    SELECT f.id FROM audit_event AS a CROSS JOIN file AS f
    WHERE {_audited(d)} AND f.id = a.file_row AND (f.fence > 0 OR f.bytes_received > 0)
    ORDER BY a.change_no ON CONFLICT DO NOTHING"""
    )
)
# The streams of other nodes, by the fences that they have still.
STOP_STREAMS = Sql(
    lambda d: (
        f"""
    INSERT INTO stream_stop (node_id, file_row, fence)
    SELECT f.holder, f.id, f.fence FROM audit_event AS a CROSS JOIN file AS f
    WHERE {_audited(d)} AND f.id = a.file_row AND f.holder <> :node
        AND f.holder IN (SELECT node_id FROM node)
    ON CONFLICT DO NOTHING"""
    )
)
# The row becomes what `cancelled` in the domain makes of the file and its audit event.
CANCEL_FILES = Sql(
    lambda d: (
        f"""
    UPDATE file SET status = '{FileStatus.CANCELLED}', revision = revision + 1, fence = fence + 1,
        change_no = a.change_no, updated_at = a.occurred_at, cancelled_at = a.occurred_at, cancel_reason = a.reason,
        cancelled_by = CASE WHEN a.source IN ({words(NAMED_BY_SOURCE)}) THEN a.source ELSE a.actor END
    FROM audit_event AS a
    WHERE {_audited(d)} AND file.id = a.file_row
        AND {d.unindexed("file.status")} IN ({_MAY_CANCEL})"""
    )
)
# As `without_content` in the domain.
DELETE_CONTENT = Sql(
    lambda d: (
        f"""
    UPDATE file SET revision = revision + 1, change_no = a.change_no, content_deleted_at = a.occurred_at,
        content_deleted_by = CASE WHEN a.source IN ({words(NAMED_BY_SOURCE)}) THEN a.source ELSE a.actor END
    FROM audit_event AS a
    WHERE {_audited(d)} AND file.id = a.file_row AND file.content_deleted_at IS NULL
        AND {d.unindexed("file.status")} = '{FileStatus.COMPLETED}'"""
    )
)
FAIL_FILES = Sql(
    lambda d: (
        f"""
    UPDATE file SET status = '{FileStatus.FAILED}', revision = revision + 1, fence = fence + 1, change_no = a.change_no,
        updated_at = a.occurred_at, failure_reason = :failure_reason
    FROM audit_event AS a
    WHERE {_audited(d)} AND file.id = a.file_row
        AND {d.unindexed("file.status")} IN ({_MAY_FAIL})"""
    )
)
# The rows were found by a reader: what has been sent to since then is left out.
READ_IDLE = Sql(
    lambda d: (
        f"""
    SELECT f.active_at, f.active_served, {FILE_ROW_COLUMNS}
    FROM {d.items("rows", "bigint")} CROSS JOIN file AS f
    WHERE f.id = k.value AND {d.unindexed("f.status")} IN ({OPEN_FILE})
        AND f.active_served < :served AND f.active_at < :at AND NOT {held_elsewhere(d)}"""
    )
)
_BATCH_OF_OPEN = "CROSS JOIN file AS o WHERE o.file_id = k.value AND o.batch_row IS NOT NULL"
READ_BATCH_ACTIVITY = Sql(
    lambda d: (
        f"""
    SELECT k.value, max(f.active_at), max(f.active_served),
           max(CASE WHEN {held_elsewhere(d)} THEN 1 ELSE 0 END) = 1
           OR {d.is_one("k.value", f"SELECT o.batch_row FROM {d.items('open_files')} {_BATCH_OF_OPEN}")}
    FROM {d.items("rows", "bigint")} CROSS JOIN file AS f WHERE f.batch_row = k.value
    GROUP BY k.value"""
    )
)
PROLONG_FILES = Sql(
    lambda d: (
        f"""
    UPDATE file SET active_at = {d.greatest}(file.active_at, v.at),
        active_served = {d.greatest}(file.active_served, v.served)
    FROM {d.rows("files", "id bigint, at timestamptz, served double precision")} WHERE file.id = v.id"""
    )
)
FORGET_RUNS = Sql(lambda d: f"DELETE FROM run WHERE {d.is_item('file_row', 'rows', 'bigint')}")
# By the file: a debt's own number may be another's by the time that the second of two nodes settles it.
SETTLE_DELETIONS = Sql(lambda d: f"DELETE FROM owed_deletion WHERE {d.is_item('file_row', 'rows', 'bigint')}")
# The same of files that kept bytes, unless those were let go meanwhile.
SETTLE_LEFT_OVER = Sql(
    lambda d: (
        f"""
    DELETE FROM owed_deletion WHERE {d.is_item("file_row", "rows", "bigint")} AND file_row NOT IN (
        SELECT f.id FROM {d.items("rows", "bigint")} CROSS JOIN file AS f
        WHERE f.id = k.value AND f.content_deleted_at IS NOT NULL)"""
    )
)

# Batches -------------------------------------------------------------------------------------------------------------

READ_BATCH = Sql(f"SELECT {BATCH_ROW_COLUMNS} FROM batch AS b WHERE b.batch_id = :batch_id")
READ_BATCHES_BY_ROW = Sql(
    lambda d: (
        f"""
    SELECT {BATCH_ROW_COLUMNS} FROM {d.items("rows", "bigint")} CROSS JOIN batch AS b WHERE b.id = k.value"""
    )
)
COUNT_OPEN_OF_BATCH = Sql(
    lambda d: (
        f"SELECT count(*) FROM file AS f WHERE f.batch_row = :batch_row AND {d.unindexed('f.status')} IN ({OPEN_FILE})"
    )
)
INSERT_BATCH = Sql(
    lambda d: (
        f"""
    INSERT INTO batch (batch_id, total_files, created_at, owner, status, updated_at, change_no)
    VALUES (:batch_id, :total_files, :at, :owner, '{BatchStatus.PENDING}', :at, {d.moved(":change_no")})"""
    )
)
# From the state that was read to what the roll-up decided.
_ROLLED_UP = (
    "id bigint, old_status, status, completed bigint, failed bigint, cancelled bigint, updated_at timestamptz,"
    " cancelled_at timestamptz, cancelled_by, revision bigint, change_no bigint"
)
WRITE_BATCHES = Sql(
    lambda d: (
        f"""
    UPDATE batch SET status = v.status, completed_files = v.completed, failed_files = v.failed,
        cancelled_files_count = v.cancelled, updated_at = v.updated_at, cancelled_at = v.cancelled_at,
        cancelled_by = v.cancelled_by, revision = v.revision, change_no = {d.moved("v.change_no")}
    FROM {d.rows("batches", _ROLLED_UP)}
    WHERE batch.id = v.id AND batch.status = v.old_status"""
    )
)
CANCEL_BATCH = Sql(
    lambda d: (
        f"""
    UPDATE batch SET status = '{BatchStatus.CANCELLED}', cancelled_files_count = cancelled_files_count + :count,
        updated_at = :at, cancelled_at = :at, cancelled_by = :cancelled_by, cancel_reason = :reason,
        revision = revision + 1, change_no = {d.moved(":change_no")}
    WHERE id = :batch_row AND status IN ({_BATCH_MAY_CANCEL})"""
    )
)

# Nodes ---------------------------------------------------------------------------------------------------------------

BEAT = Sql(
    lambda d: (
        f"""
    INSERT INTO node (node_id, started_at, lives_until, version, address)
    VALUES (:node, {d.now}, {d.from_now(":seconds")}, :version, :address)
    ON CONFLICT (node_id) DO UPDATE SET lives_until = excluded.lives_until"""
    )
)
LEAVE = Sql("DELETE FROM node WHERE node_id = :node")
READ_LEASE_OF_OTHER = Sql(lambda d: f"SELECT 1 FROM lease WHERE name = :name AND node_id <> :node AND until >= {d.now}")
TAKE_LEASE = Sql(
    lambda d: (
        f"""
    INSERT INTO lease (name, node_id, until) VALUES (:name, :node, {d.from_now(":seconds")})
    ON CONFLICT (name) DO UPDATE SET node_id = excluded.node_id, until = excluded.until
    WHERE lease.node_id = excluded.node_id OR lease.until < {d.now}"""
    )
)
GIVE_UP_LEASES = Sql("DELETE FROM lease WHERE node_id = :node")
READ_OTHERS = Sql(
    lambda d: f"SELECT node_id FROM node WHERE node_id <> :node AND lives_until > {d.now} ORDER BY node_id"
)
# For an operator: all that are remembered, each with what it holds.
READ_NODES = Sql(
    lambda d: (
        f"""
    SELECT n.node_id, n.address, n.version, {d.seconds("n.started_at")}, n.lives_until > {d.now},
        EXISTS (SELECT 1 FROM lease AS l WHERE l.node_id = n.node_id AND l.until > {d.now}),
        (SELECT count(*) FROM file AS f WHERE f.holder = n.node_id AND f.status IN ({OPEN_FILE}))
    FROM node AS n ORDER BY n.started_at, n.node_id"""
    )
)
FORGET_NODES = Sql(lambda d: f"DELETE FROM node WHERE lives_until < {d.from_now(':seconds')}")
STOP_STREAM = Sql("""
    INSERT INTO stream_stop (node_id, file_row, fence)
    SELECT holder, id, fence FROM file
    WHERE id = :row AND holder <> :node AND holder IN (SELECT node_id FROM node)
    ON CONFLICT DO NOTHING""")
SETTLE_STOPS = Sql(
    lambda d: (
        f"""
    DELETE FROM stream_stop WHERE node_id = :node AND (file_row, fence) IN (
        SELECT v.file_row, v.fence FROM {d.rows("stops", "file_row bigint, fence bigint")})"""
    )
)
FORGET_STOPS = Sql("DELETE FROM stream_stop WHERE node_id NOT IN (SELECT node_id FROM node)")

# Seals ---------------------------------------------------------------------------------------------------------------

READ_LAST_SEAL = Sql("""
    SELECT change_no, previous_no, hash FROM audit_seal WHERE change_no = (SELECT max(change_no) FROM audit_seal)""")
# The hashes come as one value, 32 bytes each.
INSERT_SEALS = Sql(
    lambda d: (
        f"""
    INSERT INTO audit_seal ({columns_of(models.AuditSeal)})
    SELECT v.change_no, v.previous_no, substr({d.typed(":hashes", "bytea")}, CAST(1 + 32 * v.key AS integer), 32)
    FROM {d.rows("numbers", "change_no bigint, previous_no bigint")}"""
    )
)

# Retention -----------------------------------------------------------------------------------------------------------

# As a seal that follows none.
READ_ORIGIN = Sql("SELECT change_no, 0, hash FROM audit_origin ORDER BY change_no DESC LIMIT 1")
MOVE_ORIGIN = Sql("""
    INSERT INTO audit_origin (change_no, hash) SELECT change_no, hash FROM audit_seal WHERE change_no = :upto""")
# What lies before the origin is gone already.
PRUNE_EVENTS = Sql("DELETE FROM audit_event WHERE change_no <= :upto")
PRUNE_SEALS = Sql("DELETE FROM audit_seal WHERE change_no <= :upto")
FORGET_ORIGINS = Sql("DELETE FROM audit_origin WHERE change_no < :upto")


def _count_pruned(table: str, size_bytes: str) -> Sql:
    return Sql(
        lambda d: (
            f"""
    INSERT INTO pruned_count (owner, kind, status, total, size_bytes)
    SELECT t.owner, '{table}', t.status, count(*), {size_bytes}
    FROM {d.items("rows", "bigint")} CROSS JOIN {table} AS t WHERE t.id = k.value GROUP BY t.owner, t.status
    ON CONFLICT (owner, kind, status) DO UPDATE SET total = pruned_count.total + excluded.total,
        size_bytes = pruned_count.size_bytes + excluded.size_bytes"""
        )
    )


COUNT_PRUNED_FILES = _count_pruned("file", "sum(CASE WHEN t.content_deleted_at IS NULL THEN t.size_bytes ELSE 0 END)")
COUNT_PRUNED_BATCHES = _count_pruned("batch", "0")
DELETE_FILES = Sql(lambda d: f"DELETE FROM file WHERE {d.is_item('id', 'rows', 'bigint')}")
DELETE_BATCHES = Sql(lambda d: f"DELETE FROM batch WHERE {d.is_item('id', 'rows', 'bigint')}")
