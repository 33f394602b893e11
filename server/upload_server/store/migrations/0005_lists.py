"""Lists by creation in either direction: their indexes, and every time in the one form that sorts as it reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

DROPPED = "DROP INDEX file_status"
INDEXES = (
    *(
        f"CREATE INDEX {table}_owner_{name} ON {table} (owner, {columns})"
        for table in ("file", "batch")
        for name, columns in (("created_at", "created_at"), ("status_created_at", "status, created_at"))
    ),
    "CREATE INDEX file_owner_without_batch ON file (owner, created_at) WHERE batch_row IS NULL",
    "CREATE INDEX audit_event_occurred_at ON audit_event (occurred_at)",
)
# A program before this one wrote a time with `T`, without microseconds, or with an offset.
TIMES = tuple(
    f"UPDATE {table} SET {column} = canonical_time({column}) WHERE {column} NOT GLOB '{pattern}'"  # noqa: S608
    for table in ("file", "batch")
    for column in ("created_at", "updated_at")
    for pattern in ("[0-9]*-[0-9]*-[0-9]* [0-9]*:[0-9]*:[0-9]*.[0-9][0-9][0-9][0-9][0-9][0-9]",)
)


def canonical_time(text: str) -> str:
    """Return a time as UTC without offset and with six digits; what is no time stays as it is."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(" ", "microseconds")


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Rewrite the times, then exchange the indexes."""
    db.register_function(canonical_time, "canonical_time", 1)
    for statement in (*TIMES, DROPPED, *INDEXES):
        db.execute_sql(statement)
