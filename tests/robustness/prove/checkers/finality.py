"""R2, R5, R6: after a cancel's OK nothing that starts later succeeds, no offset grows, its sender hears of it soon.

What is final stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History, Op

FINAL = frozenset({"completed", "failed", "cancelled"})
# A sender of a cancelled file hears of it within this, on the busiest machine; benchmarks tell how soon it is.
_HEAR_NS = 15_000_000_000
_LASTING = ("status", "cancelled_at", "cancelled_by", "cancel_reason", "sha256", "bytes_received", "revision")


def check(history: History) -> Iterable[Violation]:
    """Cancels first, then every final state anybody saw."""
    files_of = {
        op.answer["batch_id"]: op.answer["file_ids"] for op in history.named("initiate_batch") if op.outcome == "ok"
    }
    acks: dict[str, int] = {}
    for op in history.named("cancel", "cancel_batch"):
        if op.outcome == "ok":
            ids = [op.args["file_id"]] if op.name == "cancel" else files_of.get(op.args["batch_id"], ())
            for file_id in ids:
                acks[file_id] = min(acks.get(file_id, op.end), op.end)
    yield from _after_acks(history, acks)
    yield from _final_stays(history)
    for op in history.named("hear_stop", "hear_end", "hear_news", "hear_expiry"):
        if op.outcome != "ok" or (op.name != "hear_expiry" and op.end - op.start > _HEAR_NS):
            yield Violation("finality", f"whom a change concerns was not told at once: {op}")


def _after_acks(history: History, acks: Mapping[str, int]) -> Iterator[Violation]:
    cancelled = {f for f in acks if _ever_cancelled(history, f)}
    for op in history.named("open", "commit"):
        file_id = op.args["file_id"]
        if op.outcome == "ok" and op.start > acks.get(file_id, op.start):
            yield Violation("finality", f"{op} started after the cancel of {file_id} was answered")
    offsets: dict[str, set[int]] = {}
    for op, view in seen_files(history):
        if view["file_id"] in cancelled and op.start > acks[view["file_id"]]:
            offsets.setdefault(view["file_id"], set()).add(view["bytes_received"])
            if view["status"] not in FINAL:
                yield Violation("finality", f"{view['file_id']} is {view['status']} after its cancel: {op}")
    for file_id, found in offsets.items():
        if len(found) > 1:
            yield Violation("finality", f"the offset of {file_id} moved after its cancel: {sorted(found)}")
    for t, file_id, count in history.progress:
        if file_id in offsets and t > acks[file_id] and count > max(offsets[file_id]):
            yield Violation("finality", f"{count} bytes of {file_id} became durable after its cancel")


def _ever_cancelled(history: History, file_id: str) -> bool:
    row = history.tables.files.get(file_id)
    return row is None or row.status == "cancelled"


def seen_files(history: History) -> Iterator[tuple[Op, Mapping[str, Any]]]:
    """Every file that a read told of, by the read's start."""
    for op in history.named("get", "list"):
        if op.outcome == "ok":
            for view in op.answer["files"]:
                yield op, view


def _final_stays(history: History) -> Iterator[Violation]:
    seen: dict[str, Mapping[str, Any]] = {}
    views = [view for _, view in seen_files(history)]
    views += [h.view for watch in history.watches for stream in watch.streams for h in stream.heard if h.kind == "file"]
    views += [vars(row) for row in history.tables.files.values()]
    for view in views:
        if view["status"] in FINAL:
            first = seen.setdefault(view["file_id"], view)
            changed = [name for name in _LASTING if first[name] != view[name]]
            if changed:
                yield Violation("finality", f"final {view['file_id']} changed its {', '.join(changed)}")
