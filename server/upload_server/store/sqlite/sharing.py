"""Decides what the only process that may use a database file does about nodes that were on it before.

Must not know who holds the lock.
"""

from __future__ import annotations

from pathlib import Path

from upload_server.store.options import StoreOptions
from upload_server.store.sqlite import statements
from upload_server.store.sqlite.connection import connect


def forget_nodes(path: Path) -> None:
    """Forget all nodes: none can live. Writes nothing where there is none, so that a full disk keeps nobody out."""
    connection = connect(path, StoreOptions(), writes=True)
    try:
        if connection.rows(statements.ANY_NODE)[0][0]:
            connection.execute(statements.BEGIN)
            for statement in statements.FORGET_ALL_NODES:
                connection.execute(statement)
            connection.execute("COMMIT")
    finally:
        connection.close()
