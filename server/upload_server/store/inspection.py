"""Decides what an operator's command can ask of a store, while a server runs on it or not: facts as they lie there.

Must not know what is right: a fact may be damaged, so states and times are the texts that the store holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from upload_server.domain.chain import Seal
from upload_server.domain.errors import CannotStart
from upload_server.domain.runs import Run, left_over, runs_of, whole
from upload_server.domain.states import AuditEvent, FileStatus


class Damaged(Exception):
    """The database failed to read a part of itself; the message is the database's own."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file's row."""

    row: int
    file_id: str
    status: str
    batch_id: str
    batch_row: int | None
    size_bytes: int
    bytes_received: int
    sha256: str
    updated_at: str
    completed_at: str | None
    cancelled_at: str | None
    cancelled_by: str
    cancel_reason: str
    failure_reason: str
    revision: int
    change_no: int
    fence: int
    # Fence of its newest run; and of those before it fence and end, as `fence:end` with commas, None without any.
    run_fence: int
    runs_before: str | None
    # Status of its batch, empty when it has none.
    batch_status: str
    # Whether bytes are owed deletion: 0 or 1.
    owed: int
    # Whether its batch has another owner: 0 or 1.
    strange: int
    # Of a completed file whose bytes were let go.
    content_deleted_at: str | None
    content_deleted_by: str

    @property
    def runs(self) -> tuple[Run, ...]:
        """Where its bytes lie: of a completed file all in its newest run."""
        return whole(self.run_fence) if self.status == FileStatus.COMPLETED else runs_of(self._ended, self.run_fence)

    @property
    def has_content(self) -> bool:
        """Whether it has to have all its bytes."""
        return self.status == FileStatus.COMPLETED and self.content_deleted_at is None

    def left_over(self, found: Iterable[int]) -> tuple[int, ...]:
        """Return those fences, of the ``found`` ones, whose bytes the file has no use for."""
        begun = (*(fence for fence, _ in self._ended), self.run_fence)
        return left_over(found, self.status, self.run_fence, begun, let_go=self.content_deleted_at is not None)

    @property
    def _ended(self) -> list[tuple[int, int]]:
        pairs = (pair.split(":") for pair in self.runs_before.split(",")) if self.runs_before else ()
        return [(int(fence), int(end)) for fence, end in pairs if fence.isdigit() and end.isdigit()]


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """A batch's row, and its files counted."""

    row: int
    batch_id: str
    status: str
    total_files: int
    completed_files: int
    failed_files: int
    cancelled_files_count: int
    updated_at: str
    cancelled_at: str | None
    cancelled_by: str
    revision: int
    change_no: int
    # Files by what their rows say.
    files: int
    pending: int
    uploading: int
    completed: int
    failed: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class EventFacts:
    """An audit event of a known row."""

    event_id: int
    from_status: str
    to_status: str
    actor: str
    source: str
    reason: str
    occurred_at: str


# Values in the order of the model's columns, the same from every database: a time is a text without offset.
TableRow = tuple[Any, ...]

R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Trail(Generic[R_co]):
    """A row with its audit events in order; ``facts`` is None when events name row ``row``, which is not there."""

    row: int
    facts: R_co | None
    events: tuple[EventFacts, ...]


@dataclass(frozen=True, slots=True)
class AuditLink:
    """A place in the audit chain: an event, a seal, or both. ``problem`` says why the event cannot be read."""

    event_id: int
    event: AuditEvent | None
    seal: Seal | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class AnswerFacts:
    """A stored answer beside the row that it names; what the store holds of neither is None."""

    method: str
    request_id: str
    answer: str
    # Id of the file or batch; None: the answer has no known form.
    named_id: str | None
    row_status: str | None
    row_cancelled_at: str | None
    answer_cancelled_at: str | None


@dataclass(frozen=True, slots=True)
class Debt:
    """A deletion owed, beside its file; the file's fields are None when its row is gone."""

    file_row: int
    file_id: str | None
    status: str | None
    # When the file was last updated, or its bytes were let go.
    since: str | None


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """A node that serves from the store, or that died and is remembered."""

    node_id: str
    # The machine and the process.
    address: str
    version: str
    # Seconds since 1970.
    started_at: int
    # Whether others take it for alive, and whether it does what one does for all: 0 or 1.
    lives: int
    leads: int
    # Files that its streams have open, or had when it died.
    uploads: int


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A part of the schema that is missing, different, or unknown to this program."""

    # `step`, `table`, `column`, `index`, `trigger`.
    kind: str
    name: str
    # `missing`, `different`, `unknown`.
    what: str


class Inspection(Protocol):
    """Reads one database without changing or disturbing it. Blocking; every method may raise ``Damaged``."""

    def refresh(self) -> None:
        """Begin a new snapshot; all answers until the next call are of one moment."""

    def close(self) -> None:
        """Close it."""

    def damage(self) -> Sequence[str]:
        """Faults that the database itself finds in its file."""

    def schema_faults(self) -> Sequence[SchemaFault]:
        """Differences from this program's own schema. All else can be read unless a step or table is missing."""

    def store_id(self) -> str:
        """The store's identity; empty when it is lost."""

    def last_change(self) -> int:
        """The number of the last change, as the store keeps it."""

    def greatest_number(self) -> int:
        """The greatest change number that any row or event carries."""

    def seal_head(self) -> Seal | None:
        """The newest seal."""

    def origin(self) -> Seal:
        """What the trail begins behind: the last seal that retention took, or that of no event, made of the store's
        identity."""

    def links(self, after: int, limit: int) -> Sequence[AuditLink]:
        """Places of the audit chain after an event id, in order."""

    def file_trails(self) -> Iterator[Trail[FileFacts]]:
        """All files by row, with their events."""

    def batch_trails(self) -> Iterator[Trail[BatchFacts]]:
        """All batches by row, with their own events."""

    def stray_events(self) -> Iterator[int]:
        """Ids of events that name neither file nor batch."""

    def answers(self) -> Iterator[AnswerFacts]:
        """All stored answers."""

    def debts(self) -> Iterator[Debt]:
        """All deletions owed."""

    def files_after(self, row: int, limit: int) -> Sequence[FileFacts]:
        """Files by row, after ``row``."""

    def files_named(self, file_ids: Sequence[str]) -> dict[str, FileFacts]:
        """Files by id; unknown ids are missing from the answer."""

    def nodes(self) -> Sequence[NodeFacts]:
        """All nodes that the store remembers; a server that has the store to itself is none."""

    def tables(self) -> Iterator[tuple[str, Iterator[TableRow]]]:
        """Every table that says more than which nodes live, by its name, with all its rows as `Filling` takes them."""


class Filling(Protocol):
    """One transaction that gives an empty, stopped store the rows of another one; nothing of it is there before
    ``commit``. Blocking; every method may raise ``Damaged``."""

    def add(self, table: str, rows: Iterable[TableRow]) -> int:
        """Add rows to a table, of the store's own identity the one row there is; returns how many."""

    def commit(self) -> None:
        """Have all of it there at once."""

    def close(self) -> None:
        """Close it; what was not committed never was."""


class CannotAdopt(CannotStart):
    """What was named cannot be given an owner; the message says why."""


class Adopted(NamedTuple):
    """How many rows have got an owner."""

    files: int
    batches: int
    answers: int


class Mending(Protocol):
    """Changes to a stopped store that lose nothing. Blocking; each method is one transaction and may raise
    ``Damaged``."""

    def create(self, faults: Sequence[SchemaFault]) -> None:
        """Create missing indexes and triggers, and those that are different anew."""

    def raise_last_change(self) -> None:
        """Bring the last change number up to the greatest that is carried."""

    def recount(self, batch_rows: Sequence[int]) -> None:
        """Count batches' files anew, and give open batches whose files are all final the status that follows."""

    def forget_debts(self, rows: Sequence[int]) -> None:
        """Forget deletions owed; deletes no bytes."""

    def adopt(self, owner: str, *, batch_id: str = "", file_id: str = "") -> Adopted:
        """Give ``owner`` a batch or a file that has none, or, with neither, all that have none; answers go along.

        Raises ``CannotAdopt``, and then has changed nothing.
        """

    def close(self) -> None:
        """Close it."""
