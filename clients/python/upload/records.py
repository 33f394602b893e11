"""Decides how the service's messages look to a program: frozen records, enums that are words, aware UTC datetimes.

Must not know calls. A field has the contract's name; a time that is not set is None.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.message import Message

R = TypeVar("R")


class UploadStatus(StrEnum):
    """The state of a file. Each is its word: ``file.status == "completed"``, and goes into filters as it came out."""

    UNSPECIFIED = "unspecified"
    PENDING = "pending"
    UPLOADING = "uploading"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self in {self.COMPLETED, self.FAILED, self.CANCELLED}


class BatchStatus(StrEnum):
    """The state of a batch, as a word."""

    UNSPECIFIED = "unspecified"
    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self in {self.COMPLETED, self.FAILED, self.CANCELLED}


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file as it was when the server answered. Sizes are bytes; ``bytes_received`` are durable."""

    file_id: str
    filename: str
    content_type: str
    size_bytes: int
    bytes_received: int
    status: UploadStatus
    batch_id: str
    owner: str
    sha256: str
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    cancelled_at: datetime | None
    cancelled_by: str
    cancel_reason: str
    failure_reason: str
    revision: int
    content_uri: str
    content_deleted_at: datetime | None
    content_deleted_by: str


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was when the server answered."""

    batch_id: str
    status: BatchStatus
    owner: str
    total_files: int
    completed_files: int
    failed_files: int
    cancelled_files_count: int
    created_at: datetime
    updated_at: datetime
    cancelled_at: datetime | None
    cancelled_by: str
    cancel_reason: str
    revision: int


@dataclasses.dataclass(frozen=True, slots=True)
class InitiatedBatch:
    """A batch that was announced; ``file_ids`` in the order of the request."""

    batch: Batch
    file_ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class AuditEvent:
    """A change of status; ``from_status`` is empty for a creation."""

    event_id: str
    file_id: str
    batch_id: str
    from_status: str
    to_status: str
    actor: str
    source: str
    reason: str
    request_id: str
    occurred_at: datetime
    credential: str
    peer: str
    filename: str


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Durable bytes of a file so far."""

    file_id: str
    bytes_received: int


@dataclasses.dataclass(frozen=True, slots=True)
class Bookmark:
    """The server has sent everything up to here; ``resynced``: it could not go on from the token it was given."""

    resynced: bool


@dataclasses.dataclass(frozen=True, slots=True)
class WatchEvent:
    """What a watch tells: exactly one of the first four is set. ``resume_token`` goes on right after it."""

    file: File | None
    batch: Batch | None
    progress: Progress | None
    bookmark: Bookmark | None
    resume_token: str

    @property
    def kind(self) -> str:
        """``file``, ``batch``, ``progress`` or ``bookmark``; empty for what only a newer client knows."""
        return next((name for name in ("file", "batch", "progress", "bookmark") if getattr(self, name)), "")


@dataclasses.dataclass(frozen=True, slots=True)
class FileCount:
    """How many files are in a state, and their sizes in all, in bytes."""

    status: UploadStatus
    files: int
    size_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class BatchCount:
    """How many batches are in a state."""

    status: BatchStatus
    batches: int


@dataclasses.dataclass(frozen=True, slots=True)
class StatisticsBucket:
    """What happened to files in one step of time."""

    start_at: datetime
    begun: int
    completed: int
    failed: int
    cancelled: int
    cancels_too_late: int


@dataclasses.dataclass(frozen=True, slots=True)
class Statistics:
    """Counts over the whole service, as far as the caller may see it."""

    files: tuple[FileCount, ...]
    batches: tuple[BatchCount, ...]
    cancels_too_late: int
    counted_since: datetime
    buckets: tuple[StatisticsBucket, ...]
    resume_token: str


@dataclasses.dataclass(frozen=True, slots=True)
class Quota:
    """A bound of a caller, and what it uses of it."""

    name: str
    limit: int
    used: int


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Who calls; without ``expires_at`` the credential is good for ever."""

    principal: str
    roles: tuple[str, ...]
    may: tuple[str, ...]
    credential: str
    expires_at: datetime | None
    quotas: tuple[Quota, ...]


_KINDS: Mapping[str, Any] = {
    "GetCallerResponse": Caller,
    "GetStatisticsResponse": Statistics,
    "InitiateBatchResponse": InitiatedBatch,
    "WatchStatusResponse": WatchEvent,
    **{
        kind.__name__: kind
        for kind in (
            *(File, Batch, AuditEvent, Progress, Bookmark),
            *(FileCount, BatchCount, StatisticsBucket, Quota, UploadStatus, BatchStatus),
        )
    },
}


_READERS: dict[type, tuple[Callable[[Message], object], ...]] = {}


def record(kind: type[R], message: Message) -> R:
    """Return a message of the service as a record."""
    readers = _READERS.get(kind)
    if readers is None:
        # By the record's fields: a message may have more of them, of a newer service.
        known = message.DESCRIPTOR.fields_by_name
        names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # every kind is a dataclass
        readers = _READERS[kind] = tuple(_reader(known[name]) for name in names)
    return kind(*(read(message) for read in readers))


def _reader(field: Any) -> Callable[[Message], object]:
    name, nested = field.name, field.message_type
    if nested is None:
        one: Callable[[Any], object] | None = _enum_reader(field.enum_type) if field.enum_type else None
    elif nested.name == "Timestamp":
        one = _datetime
    else:
        kind = _KINDS[nested.name]
        one = lambda message: record(kind, message)  # noqa: E731 - beside its siblings
    if field.is_repeated:
        return lambda message: tuple(map(one, getattr(message, name)) if one else getattr(message, name))
    if one is None:
        return lambda message: getattr(message, name)
    if nested is None:
        return lambda message: one(getattr(message, name))
    return lambda message: one(getattr(message, name)) if message.HasField(name) else None


def _datetime(timestamp: Any) -> datetime:
    moment: datetime = timestamp.ToDatetime(tzinfo=UTC)
    return moment


def _enum_reader(enum: Any) -> Callable[[int], object]:
    kind = _KINDS[enum.name]
    prefix = kind.UNSPECIFIED.value.upper()
    first = enum.values_by_number[0].name.removesuffix(prefix)
    words = {number: kind(value.name.removeprefix(first).lower()) for number, value in enum.values_by_number.items()}
    return lambda number: words.get(number, kind.UNSPECIFIED)
