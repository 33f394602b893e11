"""Several nodes on one store: which live, which of them holds a file open, what ends its streams, and whose turn it is.

A commit is known by its node and a number of that node's: a number of the store's alone another node would move on.
"""

from __future__ import annotations

from typing import Any

STATEMENTS = (
    """
    CREATE TABLE node (
        node_id TEXT NOT NULL PRIMARY KEY,
        started_at TEXT NOT NULL,
        lives_until TEXT NOT NULL,
        version TEXT NOT NULL,
        address TEXT NOT NULL
    )""",
    """
    CREATE TABLE stream_stop (
        node_id TEXT NOT NULL,
        file_row INTEGER NOT NULL,
        fence INTEGER NOT NULL,
        PRIMARY KEY (node_id, file_row, fence)
    )""",
    """
    CREATE TABLE lease (
        name TEXT NOT NULL PRIMARY KEY,
        node_id TEXT NOT NULL,
        until TEXT NOT NULL
    )""",
    "ALTER TABLE file ADD COLUMN holder TEXT",
    "ALTER TABLE store_info ADD COLUMN commits TEXT NOT NULL DEFAULT '{}'",
    "ALTER TABLE store_info DROP COLUMN last_commit",
    # A node that is gone looks up no commit any more.
    """
    CREATE TRIGGER node_gone AFTER DELETE ON node BEGIN
        UPDATE store_info SET commits = json_remove(commits, '$."' || OLD.node_id || '"');
    END""",
)


def up(migrator: Any, db: Any) -> None:  # noqa: ARG001
    """Create the tables, then the columns."""
    for statement in STATEMENTS:
        db.execute_sql(statement)
