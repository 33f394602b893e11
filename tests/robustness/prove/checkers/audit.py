"""R9, R30: one audit event per change of status; replayed from nothing, the trail gives the tables, and all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History
from robustness.prove.views import BatchView, EventView, FileView

_FILE_MOVES = {
    "": {"pending"},
    "pending": {"uploading", "failed", "cancelled"},
    "uploading": {"completed", "failed", "cancelled"},
}
_BATCH_MOVES = {
    "": {"pending"},
    "pending": {"processing", "failed", "cancelled"},
    "processing": {"completed", "failed", "cancelled"},
}


def check(history: History) -> Iterable[Violation]:
    """Replay."""
    tables = history.tables
    numbers = [event.event_id for event in tables.events]
    if numbers != sorted(set(numbers)):
        yield Violation("audit", "event ids do not grow")
    trails: dict[str, list[EventView]] = {}
    for event in tables.events:
        trails.setdefault(event.file_id or event.batch_id, []).append(event)
        if not event.actor or not event.source:
            yield Violation("audit", f"nobody made this change: {event}")
    for file_id, row in tables.files.items():
        yield from _file(row, trails.pop(file_id, []), tables.change_no.get(file_id, 0))
    for batch_id, batch in tables.batches.items():
        yield from _batch(batch, trails.pop(batch_id, []))
    yield from _expiries(history)
    for key in trails:
        yield Violation("audit", f"events of {key}, which is in no table")
    yield from _requests(history, {event.request_id for event in tables.events})


def _chain(key: str, trail: Sequence[EventView], moves: dict[str, set[str]], status: str) -> Iterator[Violation]:
    before = ""
    for event in trail:
        if event.from_status != before or event.to_status not in moves.get(before, ()):
            yield Violation("audit", f"{key} went from {before or 'nothing'} by {event}")
        before = event.to_status
    if before != status:
        yield Violation("audit", f"{key} is {status}, by its trail {before or 'nothing'}")


def _file(row: FileView, trail: Sequence[EventView], change_no: int) -> Iterator[Violation]:
    yield from _chain(row.file_id, trail, _FILE_MOVES, row.status)
    if len(trail) != row.revision:
        yield Violation("audit", f"{row.file_id} is at revision {row.revision} after {len(trail)} changes")
    if trail and row.updated_at != trail[-1].occurred_at:
        yield Violation("audit", f"{row.file_id} was updated at {row.updated_at}, by its trail {trail[-1].occurred_at}")
    if trail and change_no and trail[-1].event_id != change_no:
        yield Violation("audit", f"{row.file_id} has change {change_no}, by its trail {trail[-1].event_id}")
    if row.status == "cancelled" and trail:
        last = trail[-1]
        if (row.cancelled_at, row.cancel_reason) != (last.occurred_at, last.reason):
            yield Violation("audit", f"{row.file_id} was cancelled otherwise than its trail says: {last}")


def _batch(row: BatchView, trail: Sequence[EventView]) -> Iterator[Violation]:
    yield from _chain(row.batch_id, trail, _BATCH_MOVES, row.status)
    if row.revision < len(trail):
        yield Violation("audit", f"{row.batch_id} is at revision {row.revision} after {len(trail)} changes")
    if row.status == "cancelled" and trail and row.cancelled_at != trail[-1].occurred_at:
        yield Violation("audit", f"{row.batch_id} was cancelled otherwise than its trail says")


def _expiries(history: History) -> Iterator[Violation]:
    """Nothing expires sooner after its last change than it may, whatever the wall clock says of the time between."""
    long_enough = not history.ops or history.ops[-1].start - history.ops[0].start >= history.ttl * 1e9
    before: dict[str, EventView] = {}
    for event in history.tables.events:
        last = before.get(event.file_id)
        too_soon = last and event.occurred_at - last.occurred_at < history.ttl * 1e6
        if event.source == "expiry" and (too_soon or not long_enough):
            yield Violation("audit", f"expired too soon: {event} after {last}")
        before[event.file_id] = event


def _requests(history: History, audited: set[str]) -> Iterator[Violation]:
    if not history.tables.events:
        return
    for op in history.named("initiate", "initiate_batch", "cancel", "cancel_batch"):
        if lost := set(op.answer.get("file_ids", ())) - history.tables.files.keys():
            yield Violation("audit", f"announced, and in no table: {sorted(lost)} by {op}")
        request_id = op.args["request_id"]
        if op.outcome == "ok" and request_id and request_id not in audited:
            yield Violation("audit", f"no event of {op}")
