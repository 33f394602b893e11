"""Decides how a committed change of status is logged: one line each, one for a whole batch call.

Must not know where the lines go. The store hands it a write after the commit, so no line says what a restart forgets.
"""

from __future__ import annotations

import asyncio

import structlog

from upload_server.domain.errors import UploadError
from upload_server.domain.states import AuditEvent
from upload_server.domain.tokens import Cursor
from upload_server.process import info_writer
from upload_server.store.protocol import Store
from upload_server.store.values import Audited, Commit, Trail

_PAGE = 1000
# Batch calls whose files' lines may wait; beyond, the journal leaves the files' lines out.
_MAX_WAITING = 1000


class Journal:
    """Writes a line for each committed change. ``run`` it beside the service until it is cancelled."""

    def __init__(self, store: Store, *, with_files: bool) -> None:
        """``with_files``: the log is at DEBUG, which also has a line for each file of a batch call."""
        self._store = store
        self._with_files = with_files
        self._waiting: asyncio.Queue[Audited] = asyncio.Queue(_MAX_WAITING)
        self._log = structlog.get_logger("upload_server.status")
        self._write_line = info_writer("status.changed")

    def write(self, commit: Commit) -> None:
        """Write what a committed write left in the audit trail."""
        audited, latency = commit.audited, round(commit.seconds * 1000, 3)
        for event in audited.events:
            facts = _facts(event)
            if audited.files and not event.file_id:
                facts["files"] = audited.files
                facts["first_event_id"] = audited.first_event_id
                facts["last_event_id"] = audited.last_event_id
            facts["latency_ms"] = latency
            self._write_line(facts)
        if audited.files and self._with_files:
            try:
                self._waiting.put_nowait(audited)
            except asyncio.QueueFull:
                self._log.warning("status.files_left_out", files=audited.files, reason="too many batch calls wait")

    async def run(self) -> None:
        """Write the lines of batch calls' files, one call after the other; at the end it leaves out those that wait."""
        while self._with_files:
            audited = await self._waiting.get()
            try:
                await self._write_files(audited)
            except UploadError as error:
                self._log.warning("status.files_left_out", files=audited.files, reason=error.reason)

    async def _write_files(self, audited: Audited) -> None:
        """Read the files' events back from the trail: a batch call does not carry 10,000 of them along."""
        batch_id, cursor = audited.events[0].batch_id, Cursor(audited.first_event_id - 1)
        while cursor.row < audited.last_event_id:
            page = await self._store.list_audit_events(Trail(batch_id=batch_id), cursor, _PAGE)
            if not page.rows:
                return
            for event in page.rows:
                if event.file_id and event.event_id <= audited.last_event_id:
                    self._log.debug("status.changed", **_facts(event))
            cursor = Cursor(page.rows[-1].event_id)


def _facts(event: AuditEvent) -> dict[str, object]:
    facts = {
        "file_id": event.file_id,
        "filename": event.filename,
        "batch_id": event.batch_id,
        "from": event.from_status,
        "to": event.to_status,
        "actor": event.actor,
        "source": event.source,
        "reason": event.reason,
        "request_id": event.request_id,
        "event_id": str(event.event_id),
        "credential": event.credential,
        "peer": event.peer,
    }
    # Empty facts say nothing.
    return {name: value for name, value in facts.items() if value}
