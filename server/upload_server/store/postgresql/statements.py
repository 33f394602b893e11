"""Decides what a transaction of PostgreSQL is made of, and how its fate is found out."""

from __future__ import annotations

from upload_server.store.sql.dialect import Sql

BEGIN = Sql("BEGIN ISOLATION LEVEL READ COMMITTED")
# The order lock. Whoever holds it is alone, so that numbers come in the order of commits; the next statement, which
# begins after it was taken, sees all that was committed before. Unlike a row's lock it writes nothing.
TAKE_ORDER_LOCK = Sql("SELECT pg_advisory_xact_lock(1, 'store_info'::regclass::oid::integer)")
READ_COUNTERS = Sql("SELECT last_change, served_seconds FROM store_info WHERE id = 1")
# Returns the transaction's own number, by which its commit can be looked up.
WRITE_COUNTERS = Sql("""
    UPDATE store_info SET last_change = :last_change, served_seconds = :served WHERE id = 1
    RETURNING pg_current_xact_id()::text""")
# A commit that changes nothing of ours.
FOLLOW = Sql("UPDATE store_info SET last_change = last_change WHERE id = 1")
# Of a transaction whose session has ended: what became of it, and whether what it wrote last is there. A crash may lose
# a number that was given, and give it again.
READ_FATE = Sql("""
    SELECT CASE WHEN t.no >= pg_snapshot_xmax(pg_current_snapshot()) THEN 'aborted' ELSE pg_xact_status(t.no) END,
           i.last_change >= :last_change AND i.served_seconds >= :served
    FROM (SELECT :transaction::xid8) AS t (no) CROSS JOIN store_info AS i WHERE i.id = 1""")

# Of the tables of a store with their indexes, whatever else is in the database.
DATABASE_BYTES = Sql("""
    SELECT sum(pg_total_relation_size(c.oid))::bigint
    FROM pg_class AS c JOIN pg_class AS i ON i.relnamespace = c.relnamespace
    WHERE c.relkind = 'r' AND i.oid = 'store_info'::regclass""")
