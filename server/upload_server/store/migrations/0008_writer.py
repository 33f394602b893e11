"""Through which door the last bytes of a file came: only tus uploads have an end of their own, without a commit."""

from __future__ import annotations

from typing import Any

# Of what was sent before this step nothing is known, so nothing of it is completed by asking.
COLUMN = "ALTER TABLE file ADD COLUMN writer TEXT NOT NULL DEFAULT ''"


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the column."""
    db.execute_sql(COLUMN)
