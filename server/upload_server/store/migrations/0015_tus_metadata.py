"""Metadata of tus: the text that came with a file's creation, which its client gets back. Other files have none."""

from __future__ import annotations

from typing import Any

STATEMENT = "ALTER TABLE file ADD COLUMN tus_metadata TEXT"


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the column, the last of the row: who does not ask for it does not read it."""
    db.execute_sql(STATEMENT)
