"""Decides what an installation is checked for, and in which order: schema, trail, rows, answers, debts, bytes.

Must not know which database or disk it is. What depends on something broken is left out, and said so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from upload_server.sink.protocol import Sink
from upload_server.store.inspection import BatchFacts, Damaged, FileFacts, Inspection, SchemaFault, Trail
from upload_server.upkeep.audit.verify import verify
from upload_server.upkeep.check.findings import Finding, Mend, Report
from upload_server.upkeep.check.rows import (
    BEFORE_AUDIT,
    PRUNED,
    before_audit,
    check_answer,
    check_batch,
    check_debt,
    check_file,
)
from upload_server.upkeep.check.storage import OWED, Storage

R = TypeVar("R", FileFacts, BatchFacts)

_OVERDUE = timedelta(minutes=10)
_UNSEALED = "audit events that are not sealed yet: the service does it, or will after its next start"
_DAMAGED = "stop the service, keep a copy, and restore a backup; SQLite's own `.recover` may save rows"


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """``running``: a service works on it now. ``pause``: seconds before something suspicious is looked at again."""

    running: bool
    hashes: bool = False
    pause: float = 0.5


def check(inspection: Inspection, sink: Sink, options: CheckOptions) -> Report:
    """Check everything; what cannot be read at all is a finding, too."""
    report = Report(running=options.running)
    try:
        if _schema(inspection, report):
            _trail(inspection, report)
            inspection.refresh()
            _rows(inspection, report)
            Storage(inspection, sink, report, options.pause).check(hashes=options.hashes)
    except Damaged as error:
        text = f"the database cannot be read: {error}; what follows was not checked"
        report.add(Finding("database.unreadable", text, _DAMAGED))
    return report


def _schema(inspection: Inspection, report: Report) -> bool:
    """Whether the rest can be read."""
    damage = inspection.damage()
    for text in damage:
        report.add(Finding("database.damaged", f"the database file is damaged: {text}", _DAMAGED))
    faults = inspection.schema_faults()
    report.add_all([_of_schema(fault) for fault in faults])
    fatal = any(fault.kind in ("table", "column") for fault in faults)
    if fatal:
        report.notes["the schema is not this program's, so nothing else was checked"] += 1
    return not fatal


def _of_schema(fault: SchemaFault) -> Finding:
    text = f"{fault.kind} {fault.name} of the schema is {fault.what}"
    if fault.kind in ("index", "trigger") and fault.what != "unknown":
        return Finding("schema", text, "`--repair` creates it", {"name": fault.name}, Mend.CREATE, fault=fault)
    if fault.what == "unknown":
        advice = "it is none of this program's: a newer one's, or somebody's own"
    else:
        advice = "`upload-server migrate` (or the next start) adds what is missing; else restore a backup"
    return Finding("schema", text, advice, {"name": fault.name})


def _trail(inspection: Inspection, report: Report) -> None:
    verdict = verify(inspection)
    report.counted["sealed"] = verdict.sealed
    if verdict.unsealed:
        report.notes[_UNSEALED] += verdict.unsealed
    if verdict.head is not None:
        report.anchor = f"{verdict.head.event_id}:{verdict.head.hash.hex()}"
    if verdict.broken is not None:
        ids = {"event_id": str(verdict.broken.event_id)}
        text = f"the audit chain is broken: {verdict.broken.text}"
        advice = "somebody changed the trail: keep a copy of it; `--repair` never touches it"
        report.add(Finding("audit.chain", text, advice, ids))


def _rows(inspection: Inspection, report: Report) -> None:
    """Compare all rows, seen in one moment."""
    begin = inspection.origin().event_id
    _numbers(inspection, report)
    _trails(inspection.file_trails(), "files", check_file, report, begin)
    _trails(inspection.batch_trails(), "batches", check_batch, report, begin)
    for event_id in inspection.stray_events():
        text = f"event {event_id} is about neither a file nor a batch"
        report.add(Finding("audit.no_row", text, "none of this service's doing", {"event_id": str(event_id)}))
    for answer in inspection.answers():
        report.counted["answers"] += 1
        report.add_all(list(check_answer(answer, pruned=begin > 0)))
    _debts(inspection, report)


def _trails(
    trails: Iterable[Trail[R]],
    rows: str,
    check_one: Callable[[Trail[R]], Iterator[Finding]],
    report: Report,
    begin: int,
) -> None:
    """Compare rows with what the trail behind ``begin`` tells of them."""
    for trail in trails:
        report.counted[rows] += trail.facts is not None
        report.counted["events"] += len(trail.events)
        if trail.facts is not None and _goes(trail.facts) and not trail.events and 0 < trail.facts.change_no <= begin:
            report.notes[PRUNED] += 1
            continue
        if trail.facts is not None and before_audit(trail):
            report.notes[BEFORE_AUDIT] += 1
        report.add_all(list(check_one(trail)))


def _goes(facts: FileFacts | BatchFacts) -> bool:
    """Whether a row may go once no event is about it; one from before there was a trail may not, for its bytes."""
    final = facts.status in ("completed", "failed", "cancelled")
    return final and not (isinstance(facts, FileFacts) and facts.has_content)


def _numbers(inspection: Inspection, report: Report) -> None:
    if not inspection.store_id():
        text = "the store has lost its identity (store_info is empty)"
        report.add(Finding("store.identity", text, "restore a backup: without it the service does not start"))
        return
    last, greatest = inspection.last_change(), inspection.greatest_number()
    if last < greatest:
        text = f"the last change is {last} by the store's counter, but number {greatest} is in use"
        advice = "the next changes would fail or be missed by watchers; `--repair` raises the counter"
        report.add(Finding("store.counter", text, advice, mend=Mend.LAST_CHANGE))


def _debts(inspection: Inspection, report: Report) -> None:
    overdue = ""
    if report.running:
        before = datetime.now(UTC) - _OVERDUE
        overdue = before.replace(tzinfo=None).isoformat(" ", "microseconds")
    for debt in inspection.debts():
        findings = list(check_debt(debt, overdue))
        report.add_all(findings)
        if not findings:
            report.notes[OWED] += 1
