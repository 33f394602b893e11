"""What a caller can see of files, batches and the audit trail, in one shape whichever way it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

V = TypeVar("V", bound="FileView | BatchView | EventView")


@dataclass(frozen=True)
class FileView:
    """A file; ``status`` is the lower-case word, times are microseconds since the epoch, 0 for none."""

    file_id: str
    size_bytes: int
    bytes_received: int
    status: str
    batch_id: str
    sha256: str
    created_at: int
    updated_at: int
    completed_at: int
    cancelled_at: int
    cancelled_by: str
    cancel_reason: str
    failure_reason: str
    revision: int


@dataclass(frozen=True)
class BatchView:
    """A batch."""

    batch_id: str
    status: str
    total_files: int
    completed_files: int
    failed_files: int
    cancelled_files_count: int
    updated_at: int
    cancelled_at: int
    cancelled_by: str
    cancel_reason: str
    revision: int


@dataclass(frozen=True)
class EventView:
    """An audit event."""

    event_id: int
    file_id: str
    batch_id: str
    from_status: str
    to_status: str
    actor: str
    source: str
    reason: str
    request_id: str
    occurred_at: int


def micros(value: object) -> int:
    """A time in microseconds since the epoch: of a datetime, RFC 3339 text, or nothing."""
    if not value:
        return 0
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86400 + whole.seconds) * 1_000_000 + whole.microseconds


def _value(name: str, value: Any) -> Any:
    if name.endswith("_at"):
        return micros(value)
    if name == "status":
        return str(value).removeprefix("UPLOAD_STATUS_").removeprefix("BATCH_STATUS_").lower()
    if name in {"revision", "size_bytes", "bytes_received", "event_id"}:
        return int(value)
    return value


def of_json(kind: type[V], message: Mapping[str, Any]) -> V:
    """Make a view of proto JSON."""
    return kind(**{each.name: _value(each.name, message.get(each.name, "")) for each in fields(kind)})


def of_domain(kind: type[V], record: object) -> V:
    """Make a view of a domain value of the same field names."""
    return kind(**{each.name: _value(each.name, getattr(record, each.name)) for each in fields(kind)})
