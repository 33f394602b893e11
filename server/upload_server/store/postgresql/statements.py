"""Decides what a transaction of PostgreSQL is made of, and how its fate is found out."""

from __future__ import annotations

# ruff: noqa: S608 - put together from names of this program
import functools

from upload_server.store.sql import statements
from upload_server.store.sql.dialect import Sql

# Each statement sees all that was committed before it began.
BEGIN = Sql("BEGIN ISOLATION LEVEL READ COMMITTED")
# With the transaction's own number, by which its commit can be looked up.
READ_COUNTERS = Sql("SELECT last_change, served_seconds, pg_current_xact_id()::text FROM store_info WHERE id = 1")

# In the order of the list: the server might take locks before it sorts.
LOCK_KEYS = Sql(lambda d: f"SELECT pg_advisory_xact_lock(k.value) FROM {d.items('keys', 'bigint')}")
# The batches before the files. That is what the condition on their count is for, which the server looks at first. What
# batch a file is of never changes.
LOCK_ROWS = Sql(
    lambda d: (
        f"""
    WITH batches AS MATERIALIZED (
        SELECT b.id FROM batch AS b WHERE b.id = ANY(ARRAY(
            SELECT f.batch_row FROM {d.items("file_ids")} CROSS JOIN file AS f WHERE f.file_id = k.value
            UNION ALL SELECT f.batch_row FROM {d.items("rows", "bigint")} CROSS JOIN file AS f WHERE f.id = k.value
            UNION ALL SELECT n.id FROM {d.items("batch_ids")} CROSS JOIN batch AS n WHERE n.batch_id = k.value))
        ORDER BY b.id FOR NO KEY UPDATE)
    SELECT f.id FROM file AS f
    WHERE (SELECT count(*) FROM batches) >= 0 AND f.id = ANY(ARRAY(
        SELECT n.id FROM {d.items("file_ids")} CROSS JOIN file AS n WHERE n.file_id = k.value
        UNION ALL SELECT n.id FROM {d.items("uncounted")} CROSS JOIN file AS n WHERE n.file_id = k.value
        UNION ALL SELECT k.value FROM {d.items("rows", "bigint")}
        UNION ALL SELECT n.id
            FROM {d.items("batch_ids")} CROSS JOIN batch AS b CROSS JOIN file AS n
            WHERE b.batch_id = k.value AND n.batch_row = b.id
                AND {d.unindexed("n.status")} IN ({statements.OPEN_FILE})))
    ORDER BY f.id FOR NO KEY UPDATE"""
    )
)

# The order lock. Whoever holds it gives numbers alone until the COMMIT, so that they come in the order of commits; the
# next statement, which begins after it was taken, sees all that was committed before. Unlike a row's lock it writes
# nothing.
TAKE_ORDER_LOCK = Sql("SELECT pg_advisory_xact_lock(1, 'store_info'::regclass::oid::integer)")
# Gives numbers: tells the statements behind it what to move theirs by, and returns the first.
GIVE_NUMBERS = Sql("""
    UPDATE store_info SET last_change = last_change + :count, served_seconds = greatest(served_seconds, :served)
    WHERE id = 1
    RETURNING set_config('upload.moved_by', (last_change - :count - :unknown)::text, true)::bigint + :unknown + 1""")

# A block of numbers for a long transaction, which holds its row from before it writes until its COMMIT. Readers end
# before it.
TAKE_BLOCK = Sql("""
    WITH given AS (
        UPDATE store_info SET last_change = last_change + :count WHERE id = 1 RETURNING last_change)
    INSERT INTO open_block (first, last) SELECT last_change - :count + 1, last_change FROM given RETURNING first""")
HOLD_BLOCK = Sql("""
    SELECT set_config('upload.moved_by', (first - 1 - :unknown)::text, true) FROM open_block WHERE first = :first
    FOR UPDATE""")
CLOSE_BLOCK = Sql("DELETE FROM open_block WHERE first = :first")
# Of blocks that nobody holds. One that was just taken may be among them: then another one is taken.
CLEAR_BLOCKS = Sql("DELETE FROM open_block WHERE first IN (SELECT first FROM open_block FOR UPDATE SKIP LOCKED)")
# Where readers are allowed to go since.
LAST_CHANGE = Sql(lambda d: f"SELECT {d.last_change} FROM store_info WHERE id = 1")
KEEP_SERVED = Sql("UPDATE store_info SET served_seconds = greatest(served_seconds, :served) WHERE id = 1")


@functools.cache
def exactly(name: str) -> Sql:
    """Return a statement of commands that fails unless it changes as many rows as are expected."""
    sql: Sql = vars(statements)[name]
    return Sql(
        lambda d: (
            f"""
    WITH changed AS ({sql.made(d)} RETURNING 1)
    SELECT expect_rows(count(*), :rows_expected, '{name}') FROM changed"""
        )
    )


# A commit that changes nothing of ours.
FOLLOW = Sql("UPDATE store_info SET last_change = last_change WHERE id = 1")
# What this node tries to commit, by a number that it gives nothing else.
NOTE_ATTEMPT = Sql("UPDATE node SET attempt = :attempt WHERE node_id = :node")
# Of a transaction whose session has ended: what became of it, the node's last attempt, and the first change number of
# what it has written. A crash may lose a transaction's number that was given, and give it again to another node.
READ_FATE = Sql("""
    SELECT CASE WHEN t.no >= pg_current_xact_id() THEN 'aborted' ELSE pg_xact_status(t.no) END,
           (SELECT n.attempt FROM node AS n WHERE n.node_id = :node),
           (SELECT min(a.change_no) FROM audit_event AS a WHERE a.change_no > :began_at AND a.xmin = t.no::xid)
    FROM (SELECT :transaction::xid8) AS t (no)""")

# Of the tables of a store with their indexes, whatever else is in the database.
DATABASE_BYTES = Sql("""
    SELECT sum(pg_total_relation_size(c.oid))::bigint
    FROM pg_class AS c JOIN pg_class AS i ON i.relnamespace = c.relnamespace
    WHERE c.relkind = 'r' AND i.oid = 'store_info'::regclass""")
