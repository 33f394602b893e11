"""Decides in which values the service and its database speak: what is asked for, and what comes back.

Must not know which database it is, nor what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

from upload_server.domain.caller import Caller
from upload_server.domain.chain import Seal
from upload_server.domain.runs import Run, left_over
from upload_server.domain.states import AuditEvent, Batch, File, FileStatus
from upload_server.domain.tokens import Cursor

T = TypeVar("T")
_FINAL = frozenset(status for status in FileStatus if status.final)


# Those of each write are tuples: they are made in a fifth of a frozen dataclass's time.
class Command(NamedTuple):
    """Who wants a change, when and why: what every write carries into the audit trail.

    ``request_id`` (optional) makes the write repeatable within (principal, ``method``); ``fingerprint`` is a digest of
    the request's other fields: the same id with another fingerprint is refused with ``RequestIdReused``.
    """

    caller: Caller
    method: str
    at: datetime
    reason: str = ""
    request_id: str = ""
    fingerprint: bytes = b""


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment by both clocks: by the wall's, which people set, and by the seconds in which a service ran on the store.

    What is older than a moment is older by both: a clock that is set forward makes nothing old, nor does a long stop.
    """

    at: datetime
    served: float

    def earlier(self, seconds: float) -> Moment:
        """Return the moment that lies so long before."""
        return Moment(self.at - timedelta(seconds=seconds), self.served - seconds)


@dataclass(frozen=True, slots=True)
class Expired:
    """What one call of ``expire`` came to. ``looked_at``: idle files that it found; at its limit there may be more."""

    files: tuple[File, ...] = ()
    looked_at: int = 0


class Audited(NamedTuple):
    """What a write left in the audit trail, for the log: single events, and for mass changes a range."""

    events: tuple[AuditEvent, ...] = ()
    # First and last event_id and number of the files of a batch call; they are not in `events`.
    files: int = 0
    first_event_id: int = 0
    last_event_id: int = 0
    # Whether completed files leave bytes that are owed deletion.
    leaves_bytes: bool = False

    @property
    def opened(self) -> int:
        """How many files more are open since; below 0 when more have come to their end than were announced."""
        opened = 0
        for event in self.events:
            # A batch call changes all its files as it does the batch.
            files = 1 if event.file_id else self.files
            if not event.from_status:
                opened += files
            elif event.to_status in _FINAL and event.from_status not in _FINAL:
                opened -= files
        return opened


class Commit(NamedTuple):
    """A committed write that changed something: what it left in the audit trail, and seconds from call to commit."""

    audited: Audited
    seconds: float


# Hears of one database commit, with the writes of ours that it holds.
Listener = Callable[[Sequence[Commit]], None]


class Result(NamedTuple, Generic[T]):
    """The answer of a write. ``replayed``: an earlier call's answer, by its request id; nothing changed."""

    answer: T
    audited: Audited = Audited()
    replayed: bool = False


# Hears on the event loop, once, what a write came to: its Result, or the error that its caller gets. Before its caller
# does, and also when that has left. It must not block or raise.
Heard = Callable[[Any], None]


# Tells whether what a node has begun still counts, see ``Store.life``.
Alive = Callable[[], bool]


def always() -> bool:
    """Answer for a node that is alone: nobody takes it for dead."""
    return True


@dataclass(frozen=True, slots=True)
class Aged:
    """Files that were completed before a moment and have their bytes, by the trail from one change to ``upto``.

    ``more``: the trail behind that may be as old.
    """

    file_ids: tuple[str, ...]
    upto: int
    more: bool


class SealedEvent(NamedTuple):
    """An audit event and its seal."""

    event: AuditEvent
    seal: Seal


class AgedTrail(NamedTuple):
    """What of the trail may go, from its old end on. ``origin``: what the first of these events follows.

    ``more``: there may be others behind them.
    """

    origin: Seal
    events: Sequence[SealedEvent]
    more: bool


class PrunedRows(NamedTuple):
    """Rows that no event of the trail is about any more."""

    files: list[int]
    batches: list[int]


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write a file, valid as long as the row carries ``file.fence``."""

    file: File
    # Announced SHA-256 in hex, or empty.
    expected_sha256: str
    # Where its bytes lie; the newest is the one to write to.
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A row in its newest state, in the order of ``no``: the number of its last change."""

    no: int
    record: File | Batch


@dataclass(frozen=True, slots=True)
class Targets:
    """What a watcher watches: named files and batches (and those batches' files), or all."""

    file_ids: frozenset[str] = frozenset()
    batch_ids: frozenset[str] = frozenset()
    include_batch_files: bool = False
    all: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """A page of changes in ascending order. ``complete``: nothing else had changed up to ``last_change``."""

    changes: tuple[Change, ...]
    complete: bool
    # The store's last change number in the snapshot that was read.
    last_change: int
    # Up to there the trail was pruned, with rows that were told of before; of named targets only.
    origin: int = 0


@dataclass(frozen=True, slots=True)
class Listing:
    """Which files or batches of ``owner``, or of everybody, a list shows, in order of creation; an empty filter takes
    all."""

    owner: str | None = None
    # Words of `FileStatus`, or of `BatchStatus`.
    statuses: Sequence[str] = ()
    # Of files only.
    batch_id: str = ""
    without_batch: bool = False
    # Of a batch: of one of its files.
    filename_prefix: str = ""
    # All three excluded.
    created_after: datetime | None = None
    created_before: datetime | None = None
    updated_after: datetime | None = None
    cancelled_by: str = ""
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class Trail:
    """Which audit events of what ``owner``, or everybody, has a list shows, in the order of their commits; an empty
    filter takes all."""

    owner: str | None = None
    file_id: str = ""
    # Its files' events too.
    batch_id: str = ""
    actor: str = ""
    source: str = ""
    to_status: str = ""
    # Both excluded.
    occurred_after: datetime | None = None
    occurred_before: datetime | None = None
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows after a cursor; ``next_cursor`` is None on the last page. A page of long rows holds fewer than asked for."""

    rows: tuple[T, ...]
    next_cursor: Cursor | None


@dataclass(frozen=True, slots=True)
class OwedDeletion:
    """Bytes that are to be deleted; ``row``, the file's, settles it."""

    row: int
    file_id: str


class Named(NamedTuple):
    """What the row of a file says of the names of its bytes."""

    status: FileStatus
    # Of the newest run.
    run_fence: int
    # Of all runs that were ever begun.
    fences: tuple[int, ...]
    # Whether the bytes of a completed file were let go.
    let_go: bool = False

    @property
    def kept(self) -> int | None:
        """The fence of the bytes that stay, where the file is completed and has them."""
        return self.run_fence if self.status is FileStatus.COMPLETED and not self.let_go else None

    def keeps(self, fence: int) -> bool:
        """Whether bytes under this fence are all that the file has, and stay."""
        return self.kept == fence

    def left_over(self, found: Iterable[int]) -> tuple[int, ...]:
        """Return those fences, of the ``found`` ones, whose bytes the file has no use for."""
        return left_over(found, self.status, self.run_fence, self.fences, let_go=self.let_go)


@dataclass(frozen=True, slots=True)
class DueCancel:
    """A cancel that is owed by a page that was lost: at ``due_at``, for ``reason``, while the row carries ``fence``."""

    file_id: str
    owner: str
    fence: int
    due_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class StreamStop:
    """A stream of this node, by its ``fence``, that has to end because of what another node committed; ``file`` is as
    its row is now. ``row`` and ``fence`` settle it."""

    row: int
    fence: int
    file: File


@dataclass(frozen=True, slots=True)
class News:
    """What a look at the store found. ``changed``: something was committed since the last look, by whomever."""

    changed: bool
    stops: tuple[StreamStop, ...]


@dataclass(frozen=True, slots=True)
class Unsealed:
    """The newest seal, None before the first, and the oldest events that have none, in order."""

    head: Seal | None
    events: tuple[AuditEvent, ...]
