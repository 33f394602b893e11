"""Decides how numbers that a transaction counted for itself become those that it was committed with.

Must not know which write an outcome is of.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from upload_server.domain.errors import NotInState
from upload_server.domain.states import AuditEvent, Batch, File
from upload_server.store.commands.writes import Outcome
from upload_server.store.postgresql.dialect import UNKNOWN
from upload_server.store.values import Audited, Claim, Expired, Result


def moved(outcome: Outcome, by: int) -> Outcome:
    """Return an outcome with its unknown numbers moved ``by`` so much; what it has of others stays."""
    match outcome:
        case Result(answer, audited, replayed):
            return Result(moved(answer, by), _audited(audited, by), replayed)
        case File() | Batch() if outcome.change_no > UNKNOWN:
            return replace(outcome, change_no=outcome.change_no + by)
        case Claim():
            return replace(outcome, file=moved(outcome.file, by))
        case Expired():
            return replace(outcome, files=tuple(moved(file, by) for file in outcome.files))
        case Batch() as batch, file_ids:
            return moved(batch, by), file_ids
        case NotInState() if outcome.found.change_no > UNKNOWN:
            found: Any = moved(outcome.found, by)
            return type(outcome)(found)  # type: ignore[call-arg]
    return outcome


def _audited(audited: Audited, by: int) -> Audited:
    events = tuple(_event(event, by) for event in audited.events)
    if not audited.files:
        return audited._replace(events=events)
    first, last = audited.first_event_id + by, audited.last_event_id + by
    return audited._replace(events=events, first_event_id=first, last_event_id=last)


def _event(event: AuditEvent, by: int) -> AuditEvent:
    return event._replace(event_id=event.event_id + by)
