"""Decides what a transaction of SQLite is made of, and what is forgotten of nodes that were."""

from __future__ import annotations

from upload_server.store.sql.dialect import Sql

BEGIN = Sql("BEGIN IMMEDIATE")
# With the number of the node's last commit: `:commits` is its place.
READ_COUNTERS = Sql("SELECT last_change, coalesce(commits ->> :commits, 0), served_seconds FROM store_info")
WRITE_COUNTERS = Sql("""
    UPDATE store_info SET last_change = :last_change, served_seconds = :served,
        commits = json_set(commits, :commits, :commit_no)""")
# Without the pages that retention has left empty, which new rows take first.
DATABASE_BYTES = Sql("""
    SELECT (c.page_count - f.freelist_count) * s.page_size
    FROM pragma_page_count AS c, pragma_freelist_count AS f, pragma_page_size AS s""")

# Whoever has the file to itself knows that no node is left, and writes nothing where there was none.
ANY_NODE = Sql("""
    SELECT EXISTS (SELECT 1 FROM node) OR EXISTS (SELECT 1 FROM store_info, json_each(commits) WHERE key <> '')""")
FORGET_ALL_NODES = (
    Sql("DELETE FROM node"),
    Sql("DELETE FROM stream_stop"),
    Sql("DELETE FROM lease"),
    Sql("UPDATE store_info SET commits = json_object('', coalesce(commits ->> '$.\"\"', 0))"),
)
