"""Only this program writes now: drops the triggers that followed an older program's writes, and the index they used."""

from __future__ import annotations

from typing import Any

DROPPED = (
    "DROP TRIGGER file_inserted_by_older_program",
    "DROP TRIGGER file_updated_by_older_program",
    "DROP TRIGGER batch_inserted_by_older_program",
    # Led a batch to the files that were inserted before it.
    "DROP INDEX file_without_batch",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Drop them."""
    for statement in DROPPED:
        db.execute_sql(statement)
