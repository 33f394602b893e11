"""Cancellation, audit, change numbers, fences, stored answers. Only adds: an older program goes on working."""

from __future__ import annotations

import uuid
from typing import Any

from playhouse.migrations import MigrationError

# ALTER TABLE as text and not the migrator's `add_column`: that one rebuilds the table, which loses triggers, and leaves
# NOT NULL without DEFAULT, so that an older program's INSERT fails.
COLUMNS = {
    "file": (
        "owner TEXT NOT NULL DEFAULT ''",
        "bytes_received INTEGER NOT NULL DEFAULT 0",
        "sha256 TEXT NOT NULL DEFAULT ''",
        "expected_sha256 TEXT NOT NULL DEFAULT ''",
        "completed_at TEXT",
        "cancelled_at TEXT",
        "cancelled_by TEXT NOT NULL DEFAULT ''",
        "cancel_reason TEXT NOT NULL DEFAULT ''",
        "failure_reason TEXT NOT NULL DEFAULT ''",
        "revision INTEGER NOT NULL DEFAULT 1",
        "change_no INTEGER NOT NULL DEFAULT 0",
        # Raised by every claim, take-over, cancel and failure; 0: no stream ever opened.
        "fence INTEGER NOT NULL DEFAULT 0",
        # Last recorded byte, last claim or creation: what expiry counts from.
        "active_at TEXT NOT NULL DEFAULT ''",
        # `batch_id` as the integer that indexes can carry cheaply.
        "batch_row INTEGER",
    ),
    "batch": (
        "owner TEXT NOT NULL DEFAULT ''",
        "status TEXT NOT NULL DEFAULT 'pending'",
        "completed_files INTEGER NOT NULL DEFAULT 0",
        "failed_files INTEGER NOT NULL DEFAULT 0",
        "cancelled_files_count INTEGER NOT NULL DEFAULT 0",
        "updated_at TEXT NOT NULL DEFAULT ''",
        "cancelled_at TEXT",
        "cancelled_by TEXT NOT NULL DEFAULT ''",
        "cancel_reason TEXT NOT NULL DEFAULT ''",
        "revision INTEGER NOT NULL DEFAULT 1",
        "change_no INTEGER NOT NULL DEFAULT 0",
    ),
}

TABLES = (
    # One row. `last_commit` grows with every transaction, so that a commit whose answer was lost can be looked up.
    """
    CREATE TABLE store_info (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        store_id TEXT NOT NULL,
        last_change INTEGER NOT NULL,
        last_commit INTEGER NOT NULL
    )""",
    """
    CREATE TABLE audit_event (
        change_no INTEGER PRIMARY KEY,
        file_row INTEGER,
        batch_row INTEGER,
        from_status TEXT NOT NULL,
        to_status TEXT NOT NULL,
        actor TEXT NOT NULL,
        source TEXT NOT NULL,
        reason TEXT NOT NULL,
        request_id TEXT NOT NULL,
        occurred_at TEXT NOT NULL
    )""",
    """
    CREATE TABLE stored_answer (
        principal TEXT NOT NULL,
        method TEXT NOT NULL,
        request_id TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        answer TEXT NOT NULL,
        created_at TEXT NOT NULL,
        PRIMARY KEY (principal, method, request_id)
    )""",
    "CREATE TABLE owed_deletion (id INTEGER PRIMARY KEY, file_row INTEGER NOT NULL UNIQUE)",
)

BACKFILL = (
    "UPDATE file SET batch_row = (SELECT batch.id FROM batch WHERE batch.batch_id = file.batch_id)",
    """
    UPDATE file SET
        active_at = coalesce(strftime('%Y-%m-%d %H:%M:%f', updated_at), strftime('%Y-%m-%d %H:%M:%f', 'now')),
        completed_at = iif(status = 'completed', updated_at, NULL),
        bytes_received = iif(status = 'completed', size_bytes, 0)""",
    # Watchers rely on it: a batch is numbered after its files.
    """
    UPDATE file SET change_no = numbered.n
    FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM file) AS numbered WHERE numbered.id = file.id""",
    """
    UPDATE batch SET change_no = numbered.n
    FROM (SELECT id, (SELECT count(*) FROM file) + row_number() OVER (ORDER BY id) AS n FROM batch) AS numbered
    WHERE numbered.id = batch.id""",
    """
    UPDATE batch SET completed_files = counted.completed, failed_files = counted.failed
    FROM (SELECT batch_row, sum(status = 'completed') AS completed, sum(status = 'failed') AS failed
          FROM file GROUP BY batch_row) AS counted
    WHERE counted.batch_row = batch.id""",
    # As the roll-up decides. A file that is no longer pending was being sent, so its batch has been processing.
    """
    UPDATE batch SET
        status = CASE
            WHEN counted.open > 0 OR completed_files + failed_files < total_files THEN
                iif(counted.pending = counted.files, 'pending', 'processing')
            WHEN failed_files > 0 THEN 'failed'
            ELSE 'completed' END,
        updated_at = counted.updated_at
    FROM (SELECT batch_row, count(*) AS files, sum(status = 'pending') AS pending,
                 sum(status IN ('pending', 'uploading')) AS open, max(updated_at) AS updated_at
          FROM file GROUP BY batch_row) AS counted
    WHERE counted.batch_row = batch.id""",
    "UPDATE batch SET updated_at = created_at WHERE updated_at = '' OR status = 'pending'",
)

INDEXES = (
    # Two rows with one number would make watchers skip a change.
    "CREATE UNIQUE INDEX file_change_no ON file (change_no)",
    "CREATE UNIQUE INDEX batch_change_no ON batch (change_no)",
    # A watch of a batch's files, and their list.
    "CREATE INDEX file_batch_row_change_no ON file (batch_row, change_no) WHERE batch_row IS NOT NULL",
    "CREATE INDEX file_batch_row ON file (batch_row) WHERE batch_row IS NOT NULL",
    # Lists and counts by status.
    "CREATE INDEX file_status ON file (status)",
    # The opening state of a watch of everything, and expiry: only what is not final.
    "CREATE INDEX file_open ON file (change_no) WHERE status IN ('pending', 'uploading')",
    "CREATE INDEX batch_open ON batch (change_no) WHERE status IN ('pending', 'processing')",
    # An older program may insert files before their batch; the batch then finds them.
    """
    CREATE INDEX file_without_batch ON file (batch_id) WHERE batch_row IS NULL AND batch_id IS NOT NULL""",
    "CREATE INDEX audit_event_file_row ON audit_event (file_row) WHERE file_row IS NOT NULL",
    "CREATE INDEX audit_event_batch_row ON audit_event (batch_row) WHERE batch_row IS NOT NULL",
    "CREATE INDEX stored_answer_created_at ON stored_answer (created_at)",
)

# Whatever the code does, what is final stays what it is.
GUARDS = tuple(
    f"""
    CREATE TRIGGER {table}_final_stays BEFORE UPDATE OF {columns} ON {table}
    WHEN OLD.status IN ('completed', 'failed', 'cancelled') AND ({changed})
    BEGIN
        SELECT RAISE(ABORT, '{table} is final');
    END"""
    for table, columns, changed in (
        (
            "file",
            "status, cancelled_at, cancelled_by, sha256",
            (
                "NEW.status IS NOT OLD.status OR NEW.cancelled_at IS NOT OLD.cancelled_at"
                " OR NEW.cancelled_by IS NOT OLD.cancelled_by OR NEW.sha256 IS NOT OLD.sha256"
            ),
        ),
        (
            "batch",
            "status, cancelled_at, cancelled_by",
            (
                "NEW.status IS NOT OLD.status OR NEW.cancelled_at IS NOT OLD.cancelled_at"
                " OR NEW.cancelled_by IS NOT OLD.cancelled_by"
            ),
        ),
    )
)

# What follows from a file that an older program has written: number and time for watchers and expiry, then its batch.
_FOLLOW_FILE = """
        UPDATE store_info SET last_change = last_change + 1;
        UPDATE file SET
            change_no = (SELECT last_change FROM store_info),
            revision = revision + {revisions},
            active_at = strftime('%Y-%m-%d %H:%M:%f', 'now'),
            batch_row = coalesce(batch_row, (SELECT id FROM batch WHERE batch.batch_id = NEW.batch_id)),
            completed_at = iif(status = 'completed', updated_at, completed_at),
            bytes_received = iif(status = 'completed', size_bytes, bytes_received)
        WHERE id = NEW.id;
        UPDATE store_info SET last_change = last_change + 1
        WHERE NEW.status <> 'pending' AND (SELECT batch_row FROM file WHERE id = NEW.id) IS NOT NULL;
        UPDATE batch SET
            completed_files = counted.completed,
            failed_files = counted.failed,
            cancelled_files_count = counted.cancelled,
            revision = revision + 1,
            change_no = (SELECT last_change FROM store_info)
        FROM (SELECT batch_row, sum(status = 'completed') AS completed, sum(status = 'failed') AS failed,
                     sum(status = 'cancelled') AS cancelled
              FROM file WHERE batch_row = (SELECT batch_row FROM file WHERE id = NEW.id)) AS counted
        WHERE batch.id = counted.batch_row AND NEW.status <> 'pending';
        UPDATE batch SET
            status = CASE
                WHEN completed_files + failed_files + cancelled_files_count < total_files THEN 'processing'
                WHEN cancelled_files_count = total_files THEN 'cancelled'
                WHEN failed_files > 0 THEN 'failed'
                ELSE 'completed' END,
            updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now')
        WHERE id = (SELECT batch_row FROM file WHERE id = NEW.id)
            AND NEW.status <> 'pending' AND status IN ('pending', 'processing');
"""

# An older program's statements do not know the new columns; watchers see its changes all the same.
OLDER_PROGRAM = (
    f"""
    CREATE TRIGGER file_inserted_by_older_program AFTER INSERT ON file WHEN NEW.change_no = 0
    BEGIN {_FOLLOW_FILE.format(revisions=0)}
    END""",
    f"""
    CREATE TRIGGER file_updated_by_older_program AFTER UPDATE OF status ON file
    WHEN NEW.status IS NOT OLD.status AND NEW.change_no = OLD.change_no
    BEGIN {_FOLLOW_FILE.format(revisions=1)}
    END""",
    """
    CREATE TRIGGER batch_inserted_by_older_program AFTER INSERT ON batch WHEN NEW.change_no = 0
    BEGIN
        UPDATE file SET batch_row = NEW.id WHERE batch_row IS NULL AND batch_id = NEW.batch_id;
        UPDATE store_info SET last_change = last_change + 1;
        UPDATE batch SET change_no = (SELECT last_change FROM store_info), updated_at = NEW.created_at
        WHERE id = NEW.id;
    END""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add what cancellation needs, number what is there, and create the triggers last."""
    unknown = db.execute_sql(
        "SELECT DISTINCT status FROM file WHERE status NOT IN ('pending', 'uploading', 'completed', 'failed')"
    ).fetchall()
    if unknown:
        words = ", ".join(sorted(repr(row[0]) for row in unknown))
        raise MigrationError(f"the file table holds states this program does not know: {words}")
    for table, columns in COLUMNS.items():
        for column in columns:
            db.execute_sql(f"ALTER TABLE {table} ADD COLUMN {column}")
    for statement in (*TABLES, *BACKFILL, *INDEXES):
        db.execute_sql(statement)
    db.execute_sql(
        "INSERT INTO store_info (id, store_id, last_change, last_commit)"
        " VALUES (1, ?, (SELECT count(*) FROM file) + (SELECT count(*) FROM batch), 0)",
        (str(uuid.uuid4()),),
    )
    for statement in (*GUARDS, *OLDER_PROGRAM):
        db.execute_sql(statement)
