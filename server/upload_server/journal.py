"""Decides how a committed change of status is logged: one line each, one for a whole batch call.

Must not know where the lines go. It is told after the commit, so no line says what a restart forgets.
"""

from __future__ import annotations

import structlog

from upload_server.domain import AuditEvent
from upload_server.store import Audited, Store

log = structlog.get_logger("upload_server.status")

_PAGE = 1000


def log_changes(audited: Audited, seconds: float) -> None:
    """Write what a store write left in the audit trail; ``seconds`` is how long it took from request to commit."""
    latency = round(seconds * 1000, 3)
    for event in audited.events:
        extra = {}
        if audited.files and not event.file_id:
            extra = {
                "files": audited.files,
                "first_event_id": audited.first_event_id,
                "last_event_id": audited.last_event_id,
            }
        log.info("status.changed", **_facts(event), **extra, latency_ms=latency)


async def log_files(store: Store, batch_id: str, audited: Audited) -> None:
    """Write the lines of a batch call's files, which only a log at DEBUG has: they are read back from the trail."""
    cursor = audited.first_event_id - 1
    while audited.files and cursor < audited.last_event_id:
        page = await store.list_audit_events("", "", batch_id, cursor, _PAGE)
        if not page.rows:
            return
        for event in page.rows:
            if event.file_id and event.event_id <= audited.last_event_id:
                log.debug("status.changed", **_facts(event))
        cursor = page.rows[-1].event_id


def _facts(event: AuditEvent) -> dict[str, object]:
    facts = {
        "file_id": event.file_id,
        "batch_id": event.batch_id,
        "from": event.from_status,
        "to": event.to_status,
        "actor": event.actor,
        "source": event.source,
        "reason": event.reason,
        "request_id": event.request_id,
        "event_id": str(event.event_id),
    }
    # What is empty says nothing in a line.
    return {name: value for name, value in facts.items() if value}
