"""Tickets: what opens one WebSocket of a page that can send no header. Kept as a hash, for seconds, so they are few."""

from __future__ import annotations

from typing import Any

STATEMENT = """
    CREATE TABLE ticket (
        sha256 TEXT NOT NULL PRIMARY KEY,
        identity TEXT NOT NULL,
        expires_at TEXT NOT NULL
    )"""


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Create the table."""
    db.execute_sql(STATEMENT)
