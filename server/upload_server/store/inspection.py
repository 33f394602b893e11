"""Decides what can be asked of a store from outside the service, running or stopped: facts as they lie there.

Must not know what is right: a fact may be damaged, so states and times are the texts that were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from upload_server.domain.chain import Seal
from upload_server.domain.states import AuditEvent


class Damaged(Exception):
    """The database cannot be read where it was read; the message is the database's own."""


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
    # Status of its batch, empty when it has none.
    batch_status: str
    # Whether its bytes are owed deletion: 0 or 1.
    owed: int


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
    """A stored answer, with what it answered for: id, status and time of the cancel, None when that is not there."""

    method: str
    request_id: str
    answer: str
    # None: the answer is of no known form.
    names: str | None
    found_status: str | None
    found_cancelled_at: str | None
    said_cancelled_at: str | None


@dataclass(frozen=True, slots=True)
class Debt:
    """A deletion owed, with the file it is owed for: None when its row is not there."""

    row: int
    file_row: int
    file_id: str | None
    status: str | None
    # When the file became what it is.
    since: str | None


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """Something of the schema that is missing, different, or none of this program's."""

    # `step`, `table`, `column`, `index`, `trigger`.
    kind: str
    name: str
    # `missing`, `different`, `unknown`.
    what: str


class Inspection(Protocol):
    """Reads one database without changing or disturbing it. Blocking; every method may raise ``Damaged``."""

    def refresh(self) -> None:
        """Look at the newest state from here on; until then every answer is of one moment."""

    def close(self) -> None:
        """Close it."""

    def damage(self) -> Sequence[str]:
        """What the database itself finds wrong with its file; empty when nothing."""

    def schema_faults(self) -> Sequence[SchemaFault]:
        """What of the schema is not as this program makes it. Without steps or tables missing the rest can be read."""

    def store_id(self) -> str:
        """The store's identity; empty when it is lost."""

    def last_change(self) -> int:
        """The number of the last change, as the store keeps it."""

    def greatest_number(self) -> int:
        """The greatest change number that any row or event carries."""

    def seal_head(self) -> Seal | None:
        """The newest seal."""

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

    def close(self) -> None:
        """Close it."""
