"""Lists by name, by who cancelled, and of the audit trail by actor, source and status: their indexes."""

from __future__ import annotations

from typing import Any

INDEXES = (
    *(
        f"CREATE INDEX {table}_owner_cancelled_by_created_at ON {table} (owner, cancelled_by, created_at) WHERE {which}"
        for table, which in (
            # Files cancelled with their batch come by the thousand.
            ("file", "cancelled_by != '' AND cancelled_by != 'batch_cancel'"),
            ("batch", "cancelled_by != ''"),
        )
    ),
    "CREATE INDEX file_owner_filename ON file (owner, substr(filename, 1, 255))",
    "CREATE INDEX audit_event_source_to_status ON audit_event (source, to_status)",
    # Callers who are not authenticated are all `user`.
    "CREATE INDEX audit_event_actor ON audit_event (actor) WHERE actor != 'user'",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Create them."""
    for statement in INDEXES:
        db.execute_sql(statement)
