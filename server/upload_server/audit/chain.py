"""Decides what a link of the audit chain is: the canonical form of an event, and its SHA-256.

Must not know where links are kept. The form is documented in docs/operations.md; it is a promise to those who kept
hashes or exports, so it never changes: another form would need another format number in the chain's origin.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC

from upload_server.domain import AuditEvent
from upload_server.store import Seal

_FORMAT = 1
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


def canonical(fields: dict[str, object]) -> bytes:
    """Write fields as JSON: keys sorted, no white space, UTF-8 unescaped, control characters escaped."""
    # What a damaged database holds instead of UTF-8 is hashed as it is; it then matches nothing.
    return _encode(fields).encode("utf-8", "surrogateescape")


def origin(store_id: str) -> bytes:
    """Return what the first event carries as the hash before it: it binds the chain to its store."""
    return hashlib.sha256(canonical({"format": _FORMAT, "store_id": store_id})).digest()


def fields_of(event: AuditEvent, previous: bytes) -> dict[str, object]:
    """Return what is hashed: the fields as the API shows them, and the hash of the event before."""
    at = event.occurred_at.astimezone(UTC).replace(tzinfo=None)
    return {
        "event_id": str(event.event_id),
        "file_id": event.file_id,
        "batch_id": event.batch_id,
        "from_status": event.from_status,
        "to_status": event.to_status,
        "actor": event.actor,
        "source": event.source,
        "reason": event.reason,
        "request_id": event.request_id,
        "occurred_at": f"{at.isoformat(timespec='microseconds')}Z",
        "previous_hash": previous.hex(),
    }


def link(event: AuditEvent, previous: bytes) -> bytes:
    """Return the hash of an event that follows the one with hash ``previous``."""
    return hashlib.sha256(canonical(fields_of(event, previous))).digest()


def seals_of(events: Iterable[AuditEvent], head: Seal | None, store_id: str) -> list[Seal]:
    """Return the seals of events that follow ``head``, in order."""
    previous = head or Seal(0, 0, origin(store_id))
    seals = []
    for event in events:
        previous = Seal(event.event_id, previous.event_id, link(event, previous.hash))
        seals.append(previous)
    return seals
