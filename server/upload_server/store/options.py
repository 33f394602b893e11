"""Decides which bounds a store keeps to; every one is named with its unit.

Must not know where the values come from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from upload_server.process.room import Room


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Bounds and knobs of a store; the defaults suit one process on a small machine."""

    # Writes that may wait for the writer; beyond it callers get `Overloaded`.
    queued_writes: int = 4096
    # Places on top of that which only cancels may take.
    queued_cancels_reserve: int = 1024
    # Batch calls that may wait; each runs in a transaction of its own.
    queued_batch_calls: int = 64
    # An initiate of more files than this counts as a batch call, a smaller one goes with the small writes.
    small_batch_files: int = 64
    # Writes that share one transaction, at most.
    group_writes: int = 256
    # How long the writer waits for company before it commits, only when the last group had company; 0: never.
    linger_seconds: float = 0.003
    # Threads (and connections) that read.
    readers: int = 3
    # Reads that may run or wait; beyond it callers get `Overloaded`.
    queued_reads: int = 8192
    # How long a statement waits for a lock that another program holds on the database.
    busy_timeout_seconds: float = 5.0
    # How long a statement may take on a server; one that says nothing for some seconds more is given up.
    statement_timeout_seconds: float = 10.0
    # The write-ahead log is cut back to this when it was longer.
    wal_size_limit_bytes: int = 64 * 1024 * 1024
    # Announcements are refused when the database would outgrow this; 0: as large as its disk allows.
    max_database_bytes: int = 0
    # What is left of the disks; the store keeps some of the database's for the files that are open.
    room: Room = field(default_factory=Room)
    # What is given up at a start on a disk that is full to its last byte; 0: nothing.
    ballast_bytes: int = 0
    # One of several nodes on a SQLite file, which share its lock: somebody else holds it, and has migrated the file.
    # A store on PostgreSQL always is one of several.
    shared: bool = False
    # What the other nodes, and an operator, are told of this one.
    version: str = ""
    address: str = ""
    # A node that has said nothing for so long is taken for dead.
    lease_seconds: float = 10.0
    # How long an `Overloaded` asks its caller to wait.
    retry_after_seconds: float = 1.0
