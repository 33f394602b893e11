"""When an upload is cancelled whose page was lost. The index holds those that wait, however many files there are."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE file ADD COLUMN cancel_due_at TEXT",
    "ALTER TABLE file ADD COLUMN cancel_due_reason TEXT NOT NULL DEFAULT ''",
    """
    CREATE INDEX file_cancel_due ON file (cancel_due_at)
    WHERE cancel_due_at IS NOT NULL AND status = 'uploading'""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the columns, then the index."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
