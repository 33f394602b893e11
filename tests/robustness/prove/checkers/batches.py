"""R10 to R13: a batch cancel is seen as a whole or not at all; a batch's state and counters follow from its files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History, Op

FINAL = frozenset({"completed", "failed", "cancelled"})
_COUNTERS = ("completed_files", "failed_files", "cancelled_files_count")


def check(history: History) -> Iterable[Violation]:
    """Snapshots, readings of batches, answers, and the tables."""
    for op in history.named("list"):
        if op.outcome == "ok":
            yield from _snapshot(op)
    yield from _readings(history)
    yield from _answers(history)
    yield from _tables(history)


def _snapshot(op: Op) -> Iterator[Violation]:
    files = op.answer["files"]
    touched = [view for view in files if view["cancelled_by"] == "batch_cancel"]
    if touched and any(view["status"] not in FINAL for view in files):
        yield Violation("batches", f"a batch cancel was seen half-done: {op}")
    if len({view["cancelled_at"] for view in touched}) > 1:
        yield Violation("batches", f"one batch cancel has several times: {op}")


def _batch_views(history: History) -> Iterator[Mapping[str, Any]]:
    for op in history.named("get_batch"):
        if op.outcome == "ok":
            yield op.answer
    for watch in history.watches:
        for stream in watch.streams:
            yield from (heard.view for heard in stream.heard if heard.kind == "batch")
    yield from (vars(row) for row in history.tables.batches.values())


def _readings(history: History) -> Iterator[Violation]:
    by_revision: dict[str, dict[int, Mapping[str, Any]]] = {}
    for view in _batch_views(history):
        done = sum(view[name] for name in _COUNTERS)
        if (view["status"] in FINAL) != (done == view["total_files"]):
            yield Violation("batches", f"{view['status']} with {done} of {view['total_files']} files final: {view}")
        if view["status"] in FINAL and view["cancelled_by"] in {"", "all_files"} and view["status"] != _rolled_up(view):
            yield Violation("batches", f"{view['status']} does not follow from the counters: {view}")
        same = by_revision.setdefault(view["batch_id"], {}).setdefault(view["revision"], view)
        if same != view:
            yield Violation("batches", f"two states at one revision: {same} and {view}")
    for batch_id, views in by_revision.items():
        ordered = [views[revision] for revision in sorted(views)]
        for before, after in pairwise(ordered):
            if any(after[name] < before[name] for name in _COUNTERS):
                yield Violation("batches", f"a counter of {batch_id} went back: {before} then {after}")


def _rolled_up(view: Mapping[str, Any]) -> str:
    if view["cancelled_files_count"] == view["total_files"]:
        return "cancelled"
    return "failed" if view["failed_files"] else "completed"


def _answers(history: History) -> Iterator[Violation]:
    for op in history.named("cancel_batch"):
        batch = history.tables.batches.get(op.args["batch_id"])
        if op.outcome != "ok" or batch is None:
            continue
        files = [row for row in history.tables.files.values() if row.batch_id == batch.batch_id]
        by_it = sum(row.cancelled_by == "batch_cancel" for row in files)
        if (op.answer["cancelled_files_count"], op.answer["total_files_in_batch"]) != (by_it, len(files)):
            yield Violation("batches", f"{op} but {by_it} of {len(files)} files were cancelled by it")
        if batch.status != "cancelled" or batch.cancelled_at != op.answer["cancelled_at"]:
            yield Violation("batches", f"{op} but the batch is {batch}")


def _tables(history: History) -> Iterator[Violation]:
    for batch in history.tables.batches.values():
        files = [row for row in history.tables.files.values() if row.batch_id == batch.batch_id]
        counted = tuple(sum(row.status == status for row in files) for status in ("completed", "failed", "cancelled"))
        found = (batch.completed_files, batch.failed_files, batch.cancelled_files_count)
        if counted != found or batch.total_files != len(files):
            yield Violation("batches", f"{batch.batch_id} counts {found} of {batch.total_files}, it has {counted}")
