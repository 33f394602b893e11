"""Content: a completed file may let go of its bytes, and what was let go stays so, whatever the code does. The trail
keeps what a file is called from its creation on."""

from __future__ import annotations

from typing import Any

_CHANGED = " OR ".join(f"NEW.{column} IS NOT OLD.{column}" for column in ("content_deleted_at", "content_deleted_by"))

STATEMENTS = (
    "ALTER TABLE file ADD COLUMN content_deleted_at TEXT",
    "ALTER TABLE file ADD COLUMN content_deleted_by TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE audit_event ADD COLUMN filename TEXT NOT NULL DEFAULT ''",
    f"""
    CREATE TRIGGER file_content_stays BEFORE UPDATE OF content_deleted_at, content_deleted_by ON file
    WHEN (NEW.status != 'completed' OR OLD.content_deleted_at IS NOT NULL) AND ({_CHANGED})
    BEGIN SELECT RAISE(ABORT, 'its content is let go of once, when it is completed'); END""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the columns, then the trigger."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
