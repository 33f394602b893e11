"""Decides what of the trail, and which rows, are old enough to go: from the old end on, up to the first event whose row
stays.

Must not know when that is asked, nor where an export goes. A batch goes with all its files, a file with its bytes gone.
"""

# ruff: noqa: S608 - put together from the domain's own words; what callers give are parameters

from __future__ import annotations

import itertools

from upload_server.domain.chain import Seal
from upload_server.domain.chain import origin as origin_of
from upload_server.domain.states import BatchStatus, FileStatus
from upload_server.store.sql.connection import Connection
from upload_server.store.sql.dialect import Sql
from upload_server.store.sql.queries import read_origin, read_store_id
from upload_server.store.sql.rows import EVENT_COLUMNS, event_of
from upload_server.store.sql.statements import words
from upload_server.store.values import AgedTrail, Moment, PrunedRows, SealedEvent

_FINAL_FILE = words(status.value for status in FileStatus if status.final)
_FINAL_BATCH = words(status.value for status in BatchStatus if status.final)

# Whether a file has nothing any more but its row.
_BARE = f"""(f.status IN ({_FINAL_FILE})
        AND (f.status <> '{FileStatus.COMPLETED}' OR f.content_deleted_at IS NOT NULL)
        AND NOT EXISTS (SELECT 1 FROM owed_deletion AS o WHERE o.file_row = f.id))"""
# Whether it is so for long: by the wall clock since its last change, by the time served since it was last sent to.
_FILE_GOES = (
    f"({_BARE} AND f.updated_at < :at AND coalesce(f.content_deleted_at < :at, true) AND f.active_served < :served)"
)
_BATCH_GOES = f"(b.status IN ({_FINAL_BATCH}) AND b.updated_at < :at)"
# The newest seal stays, with its event: the next one follows it.
_AGED = Sql(f"""
    SELECT {EVENT_COLUMNS}, s.previous_no, s.hash, a.batch_row,
        (a.file_row IS NOT NULL OR a.batch_row IS NOT NULL)
        AND (a.file_row IS NULL OR {_FILE_GOES}) AND (a.batch_row IS NULL OR {_BATCH_GOES})
    FROM audit_event AS a LEFT JOIN audit_seal AS s ON s.change_no = a.change_no
        LEFT JOIN file AS f ON f.id = a.file_row LEFT JOIN batch AS b ON b.id = a.batch_row
    WHERE a.change_no > :after AND a.change_no < (SELECT max(change_no) FROM audit_seal)
    ORDER BY a.change_no LIMIT :limit""")
_STAY_FOR_A_FILE = Sql(
    lambda d: (
        f"""
    SELECT DISTINCT f.batch_row FROM {d.items("batches", "bigint")} CROSS JOIN file AS f
    WHERE f.batch_row = k.value AND NOT {_FILE_GOES}"""
    )
)


def aged_trail(connection: Connection, before: Moment, limit: int) -> AgedTrail:
    """Read where the trail begins, and at most ``limit`` events from there on whose rows all go."""
    begin = read_origin(connection) or Seal(0, 0, origin_of(read_store_id(connection)))
    moment = {"at": before.at, "served": before.served}
    # What nobody has read for long lies on the disk; a page that is given up would never get smaller.
    with connection.patiently():
        found = connection.rows(_AGED, {**moment, "after": begin.event_id, "limit": limit})
        old = list(itertools.takewhile(lambda row: row[-1] and row[-3] is not None, found))
        batches = list({row[-2] for row in old} - {None})
        of_files = connection.rows(_STAY_FOR_A_FILE, {**moment, "batches": batches}) if batches else ()
        stay = {row[0] for row in of_files}
    going = itertools.takewhile(lambda row: row[-2] not in stay, old)
    events = [SealedEvent(event_of(row), Seal(row[0], row[-4], bytes(row[-3]))) for row in going]
    return AgedTrail(begin, events, len(events) == limit)


# Rows of which the trail tells nothing more. Those from before there was one may have their bytes still, and stay.
_BEHIND = "(SELECT max(change_no) FROM audit_origin)"
_GOING_BATCHES = f"""
    SELECT b.id FROM batch AS b WHERE b.change_no <= {_BEHIND} AND b.status IN ({_FINAL_BATCH})
        AND NOT EXISTS (
            SELECT 1 FROM file AS f WHERE f.batch_row = b.id AND NOT (f.change_no <= {_BEHIND} AND {_BARE}))"""
_PRUNED_FILES = Sql(f"""
    SELECT f.id FROM file AS f WHERE f.change_no <= {_BEHIND} AND {_BARE}
        AND (f.batch_row IS NULL OR f.batch_row IN ({_GOING_BATCHES}))
    ORDER BY f.change_no LIMIT :limit""")
_PRUNED_BATCHES = Sql(f"""
    {_GOING_BATCHES} AND NOT EXISTS (SELECT 1 FROM file AS f WHERE f.batch_row = b.id)
    ORDER BY b.change_no LIMIT :limit""")


def pruned_rows(connection: Connection, limit: int) -> PrunedRows:
    """Read which rows go: at most ``limit`` files, and batches that have none any more."""
    found = ([row[0] for row in connection.rows(sql, {"limit": limit})] for sql in (_PRUNED_FILES, _PRUNED_BATCHES))
    return PrunedRows(*found)
