"""Decides which statements a dialect has to bring, by name, and what their rows come as.

Must not know SQL. A dialect takes and returns values: datetimes, lists of values, and the rows below. What a statement
takes is written where it is run; what it does, in the dialect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from upload_server.domain.chain import Seal
from upload_server.domain.states import AuditEvent, Batch, File
from upload_server.store.values import Moment

R = TypeVar("R")

# Rows ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file with what only the store knows of it."""

    row: int
    batch_row: int | None
    expected_sha256: str
    file: File


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch with what only the store knows of it."""

    row: int
    batch: Batch


class EventRow(NamedTuple):
    """An audit event with the rows that it is about."""

    event: AuditEvent
    file_row: int | None
    batch_row: int | None


class IdleFile(NamedTuple):
    """A file that nobody sends to, and since when."""

    found: FileRow
    active: Moment


class BatchActivity(NamedTuple):
    """When one of a batch's files was last sent to; by either clock it may have been another one."""

    batch_row: int
    active: Moment
    # Whether a stream of a node that lives has one of them open.
    open: int


class FileToCancel(NamedTuple):
    """What a cancel has to know of a file: no more, since cancels come in masses."""

    row: int
    batch_row: int | None
    file_id: str
    filename: str
    batch_id: str
    status: str
    owner: str
    fence: int
    # Whether a stream ever opened, so that the sink may hold bytes of it.
    touched: int


class AnswerRow(NamedTuple):
    """A stored answer: its key, the fingerprint of its request in hex, and itself."""

    principal: str
    method: str
    request_id: str
    fingerprint: str
    # The public id of what was announced, a CancelledFile or a CancelledBatch, as the method has it.
    answer: Any


# Names ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of the dialect, by its name there."""

    name: str


@dataclass(frozen=True, slots=True)
class Query(Statement, Generic[R]):
    """A statement that returns rows; each comes as an ``R``."""

    row: type[R]


Columns = tuple[Any, ...]

READ_ANSWERS = Query("READ_ANSWERS", AnswerRow)
KEEP_ANSWERS = Statement("KEEP_ANSWERS")
FORGET_ANSWERS = Statement("FORGET_ANSWERS")

KEEP_TICKET = Statement("KEEP_TICKET")
TAKE_TICKET: Query[Columns] = Query("TAKE_TICKET", tuple)
FORGET_TICKETS = Statement("FORGET_TICKETS")

READ_FILES = Query("READ_FILES", FileRow)
READ_TO_CANCEL = Query("READ_TO_CANCEL", FileToCancel)
READ_IDLE = Query("READ_IDLE", IdleFile)
READ_BATCH_ACTIVITY = Query("READ_BATCH_ACTIVITY", BatchActivity)
READ_IDS_OF_BATCH: Query[Columns] = Query("READ_IDS_OF_BATCH", tuple)
INSERT_FILES = Statement("INSERT_FILES")
PUT_FILES = Statement("PUT_FILES")
KEEP_TUS_METADATA = Statement("KEEP_TUS_METADATA")
WRITE_FILE = Statement("WRITE_FILE")
COMPLETE_WHOLE = Statement("COMPLETE_WHOLE")
PROLONG_FILES = Statement("PROLONG_FILES")
END_RUN = Statement("END_RUN")
READ_RUNS: Query[Columns] = Query("READ_RUNS", tuple)
CANCEL_LATER = Statement("CANCEL_LATER")
RELEASE_FILE = Statement("RELEASE_FILE")
RECORD_PROGRESS: Query[Columns] = Query("RECORD_PROGRESS", tuple)

INSERT_EVENTS = Statement("INSERT_EVENTS")
# Of rows that were just inserted, by their numbers.
INSERT_EVENTS_OF_NEW = Statement("INSERT_EVENTS_OF_NEW")
INSERT_EVENTS_OF_PUT = Statement("INSERT_EVENTS_OF_PUT")
INSERT_EVENTS_OF_CANCELLED_BATCH = Statement("INSERT_EVENTS_OF_CANCELLED_BATCH")
# These five find their files by the audit events `first` to `last`.
OWE_DELETIONS = Statement("OWE_DELETIONS")
STOP_STREAMS = Statement("STOP_STREAMS")
CANCEL_FILES = Statement("CANCEL_FILES")
FAIL_FILES = Statement("FAIL_FILES")
DELETE_CONTENT = Statement("DELETE_CONTENT")
SETTLE_DELETIONS = Statement("SETTLE_DELETIONS")
SETTLE_LEFT_OVER = Statement("SETTLE_LEFT_OVER")
FORGET_RUNS = Statement("FORGET_RUNS")

READ_BATCH = Query("READ_BATCH", BatchRow)
READ_BATCHES_BY_ROW = Query("READ_BATCHES_BY_ROW", BatchRow)
COUNT_OPEN_OF_BATCH: Query[Columns] = Query("COUNT_OPEN_OF_BATCH", tuple)
INSERT_BATCH = Statement("INSERT_BATCH")
WRITE_BATCHES = Statement("WRITE_BATCHES")
CANCEL_BATCH = Statement("CANCEL_BATCH")

BEAT = Statement("BEAT")
LEAVE = Statement("LEAVE")
READ_LEASE_OF_OTHER: Query[Columns] = Query("READ_LEASE_OF_OTHER", tuple)
TAKE_LEASE = Statement("TAKE_LEASE")
GIVE_UP_LEASES = Statement("GIVE_UP_LEASES")
READ_OTHERS: Query[Columns] = Query("READ_OTHERS", tuple)
FORGET_NODES = Statement("FORGET_NODES")
FORGET_STOPS = Statement("FORGET_STOPS")
STOP_STREAM = Statement("STOP_STREAM")
SETTLE_STOPS = Statement("SETTLE_STOPS")

READ_LAST_SEAL = Query("READ_LAST_SEAL", Seal)
INSERT_SEALS = Statement("INSERT_SEALS")

READ_ORIGIN = Query("READ_ORIGIN", Seal)
# Up to an event that is sealed.
MOVE_ORIGIN = Statement("MOVE_ORIGIN")
PRUNE_EVENTS = Statement("PRUNE_EVENTS")
PRUNE_SEALS = Statement("PRUNE_SEALS")
FORGET_ORIGINS = Statement("FORGET_ORIGINS")
COUNT_PRUNED_FILES = Statement("COUNT_PRUNED_FILES")
COUNT_PRUNED_BATCHES = Statement("COUNT_PRUNED_BATCHES")
DELETE_FILES = Statement("DELETE_FILES")
DELETE_BATCHES = Statement("DELETE_BATCHES")
