"""R7: one request id, one request, one answer."""

from __future__ import annotations

from collections.abc import Iterable

from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History, Op

_METHODS = ("initiate", "initiate_batch", "cancel", "cancel_batch")


def check(history: History) -> Iterable[Violation]:
    """Group calls by method and request id."""
    groups: dict[tuple[str, str], list[Op]] = {}
    for op in history.named(*_METHODS):
        if op.args["request_id"]:
            groups.setdefault((op.name, op.args["request_id"]), []).append(op)
    for group in groups.values():
        yield from _check(history, group)


def _check(history: History, group: list[Op]) -> Iterable[Violation]:
    answered = sorted((op for op in group if op.outcome == "ok"), key=lambda op: op.end)
    if not answered:
        return
    first = answered[0]
    for op in answered[1:]:
        if op.args != first.args:
            yield Violation("requests", f"two requests under one id were taken: {first} and {op}")
        elif op.answer != first.answer:
            yield Violation("requests", f"the answer was not repeated: {first} and {op}")
    for op in group:
        reason = op.answer.get("reason", "")
        again = op.args == first.args and op.start > first.end
        away = reason == "DATABASE_FAILURE" and history.struck(op.start, op.end)
        if op.outcome == "fail" and again and _ours(reason) and not away:
            yield Violation("requests", f"an answer that was given is refused: {op} after {first}")
        if reason == "REQUEST_ID_REUSED" and all(other.args == op.args for other in group):
            yield Violation("requests", f"the same request is called another one: {op}")


def _ours(reason: str) -> bool:
    return reason not in {"SHUTTING_DOWN", "OVERLOADED", ""}
