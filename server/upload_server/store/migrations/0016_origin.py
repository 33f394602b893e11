"""Where the trail begins: what lies before it was taken by retention, once it was exported, and may be deleted; so may
the rows that no later event is about. What is final goes on to be counted."""

# ruff: noqa: S608 - put together from the names of our own tables

from __future__ import annotations

from typing import Any

_ORIGIN = "(SELECT coalesce(max(change_no), 0) FROM audit_origin)"

STATEMENTS = (
    "CREATE TABLE audit_origin (change_no INTEGER NOT NULL PRIMARY KEY, hash BLOB NOT NULL)",
    """
    CREATE TABLE pruned_count (
        owner TEXT NOT NULL,
        kind TEXT NOT NULL,
        status TEXT NOT NULL,
        total INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY (owner, kind, status)
    )""",
    # A copy has no seal so old.
    """
    CREATE TRIGGER audit_origin_is_a_seal BEFORE INSERT ON audit_origin
    WHEN EXISTS (SELECT 1 FROM audit_seal WHERE change_no <= NEW.change_no)
        AND NOT EXISTS (SELECT 1 FROM audit_seal WHERE change_no = NEW.change_no AND hash = NEW.hash)
    BEGIN SELECT RAISE(ABORT, 'the trail begins behind a seal'); END""",
    """
    CREATE TRIGGER audit_origin_update_refused BEFORE UPDATE ON audit_origin
    BEGIN SELECT RAISE(ABORT, 'audit_origin is only added to'); END""",
    "DROP TRIGGER audit_event_delete_refused",
    "DROP TRIGGER audit_seal_delete_refused",
    *(
        f"""
    CREATE TRIGGER {table}_delete_refused BEFORE DELETE ON {table} WHEN OLD.change_no > {_ORIGIN}
    BEGIN SELECT RAISE(ABORT, '{table} is deleted from behind the origin of the trail'); END"""
        for table in ("audit_event", "audit_seal", "file", "batch")
    ),
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Create the tables, then the triggers."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
