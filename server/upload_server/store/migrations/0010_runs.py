"""Bytes are named by the fence of their run. What lies in the storage before this step keeps its name: fence 0."""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    "ALTER TABLE file ADD COLUMN run_fence INTEGER NOT NULL DEFAULT 0",
    """
    CREATE TABLE run (
        file_row INTEGER NOT NULL,
        fence INTEGER NOT NULL,
        upto INTEGER NOT NULL,
        PRIMARY KEY (file_row, fence)
    )""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Add the column and the table."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
