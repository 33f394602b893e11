"""Owners: what has one is listed with everybody's by indexes of its own, and watched by its owner alone; the trail says
what callers proved their names by.

All indexes leave out what has no owner: while callers have no names they are empty.
"""

from __future__ import annotations

from typing import Any

_OWNED = "owner != ''"
_CANCELLED = {"file": "cancelled_by != '' AND cancelled_by != 'batch_cancel'", "batch": "cancelled_by != ''"}
_OPEN = {"file": "'pending', 'uploading'", "batch": "'pending', 'processing'"}

STATEMENTS = (
    "ALTER TABLE audit_event ADD COLUMN credential TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE audit_event ADD COLUMN peer TEXT NOT NULL DEFAULT ''",
    *(
        f"CREATE INDEX {table}_{name} ON {table} ({columns}) WHERE {where}"
        for table in ("file", "batch")
        for name, columns, where in (
            ("all_created_at", "created_at", _OWNED),
            ("all_status_created_at", "status, created_at", _OWNED),
            ("all_cancelled_by_created_at", "cancelled_by, created_at", f"{_CANCELLED[table]} AND {_OWNED}"),
            ("owner_change_no", "owner, change_no", _OWNED),
            ("owner_open", "owner, change_no", f"{_OWNED} AND status IN ({_OPEN[table]})"),
        )
    ),
    f"CREATE INDEX file_all_without_batch ON file (created_at) WHERE batch_row IS NULL AND {_OWNED}",
    f"CREATE INDEX file_all_filename ON file (substr(filename, 1, 255)) WHERE {_OWNED}",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the columns, then the indexes."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
