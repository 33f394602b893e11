"""R1, R26, R33: only legal states are seen, revisions and durable offsets never go back, no fault is ours."""

from __future__ import annotations

from collections.abc import Iterable

from robustness.prove.checkers.finality import seen_files
from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History

# How many changes lead to a state: a file's revision says the same as its status.
_REVISIONS = {"pending": {1}, "uploading": {2}, "completed": {3}, "failed": {2, 3}, "cancelled": {2, 3}}

_OUR_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "DATABASE_FAILURE", "STORAGE_FAILURE", "STORAGE_FULL"})
_STORE_NS = 20_000_000_000
# Grace 0 and two seconds, on the busiest machine.
_STOP_SECONDS = 15.0


def check(history: History) -> Iterable[Violation]:
    """A read that started after another had ended sees no less."""
    latest: dict[str, list[tuple[int, int, int]]] = {}
    for op, view in sorted(seen_files(history), key=lambda each: each[0].end):
        file_id, revision, count = view["file_id"], view["revision"], view["bytes_received"]
        if revision not in _REVISIONS[view["status"]]:
            yield Violation("reads", f"{file_id} is {view['status']} at revision {revision}")
        for end, old_revision, old_count in latest.get(file_id, ()):
            if end < op.start and (revision < old_revision or count < old_count):
                yield Violation("reads", f"{file_id} went back to revision {revision}, {count} bytes: {op}")
                break
        latest.setdefault(file_id, []).append((op.end, revision, count))
    yield from _progress(history)
    yield from _faults(history)


def _progress(history: History) -> Iterable[Violation]:
    for t, file_id, count in history.progress:
        row = history.tables.files.get(file_id)
        if row is not None and count > row.bytes_received:
            yield Violation("reads", f"{count} bytes of {file_id} were called durable at {t}, {row.bytes_received} are")


def _faults(history: History) -> Iterable[Violation]:
    for code, seconds in history.stops:
        if code or seconds > _STOP_SECONDS:
            yield Violation("reads", f"a server that was asked to stop ended with {code} after {seconds:.1f} s")
    for op in history.ops:
        reason = op.answer.get("reason")
        # With a database that is away, or holds its locks for a server that was stopped, this is what to say.
        honest = reason == "DATABASE_FAILURE" and history.struck(op.start, op.end)
        # Bytes are waited for as long as a store may be away.
        honest |= reason == "STORAGE_FAILURE" and history.struck(op.start, op.end, margin=_STORE_NS, what="store ")
        if reason in _OUR_FAULTS and not honest:
            yield Violation("reads", f"failed by our own fault: {op}")
