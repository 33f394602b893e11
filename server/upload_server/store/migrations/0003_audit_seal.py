"""Seals of audit events, one after the other. Only adds: what was audited before is sealed when the service runs."""

from __future__ import annotations

from typing import Any

TABLE = """
    CREATE TABLE audit_seal (
        change_no INTEGER PRIMARY KEY,
        -- The event that the seal follows, 0 for the first: tells a removed event from a changed one.
        previous_no INTEGER NOT NULL,
        -- 32 bytes of SHA-256.
        hash BLOB NOT NULL
    )"""

# The trail is only ever added to, whatever the code does.
GUARDS = tuple(
    f"""
    CREATE TRIGGER {table}_{what}_refused BEFORE {what} ON {table}
    BEGIN
        SELECT RAISE(ABORT, '{table} is only added to');
    END"""
    for table in ("audit_event", "audit_seal")
    for what in ("update", "delete")
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the table, then the triggers."""
    for statement in (TABLE, *GUARDS):
        db.execute_sql(statement)
