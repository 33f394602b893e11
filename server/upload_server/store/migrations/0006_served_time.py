"""The service's own clock beside the wall's: seconds in which it ran. What is there counts from this step on."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE store_info ADD COLUMN served_seconds REAL NOT NULL DEFAULT 0.0",
    "ALTER TABLE file ADD COLUMN active_served REAL NOT NULL DEFAULT 0.0",
    "ALTER TABLE stored_answer ADD COLUMN created_served REAL NOT NULL DEFAULT 0.0",
    # Expiry and forgetting look for what is old by both clocks, without a walk through what is not.
    """
    CREATE INDEX file_idle ON file (active_served, active_at) WHERE status IN ('pending', 'uploading')""",
    "DROP INDEX stored_answer_created_at",
    "CREATE INDEX stored_answer_age ON stored_answer (created_served, created_at)",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the columns, then the indexes."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
