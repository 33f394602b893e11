"""R3, R4: the calls on each file have an order, within their times, in which a single file would have answered so.

The search of Wing, Gong and Lowe with memory: take any call that no unfinished one surely preceded, try it on the
state, go on; give up a branch (set of calls done, state) that was tried before. A call whose answer is unknown may have
happened at any time after its start, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from robustness.prove.checkers.violation import Violation
from robustness.prove.history import NEVER, History, Op

FINAL = frozenset({"completed", "failed", "cancelled"})
# Of a cancel whose answer was lost: the first read, or the repeated answer, tells.
_UNTOLD = -1


@dataclass(frozen=True)
class State:
    """A file between two calls. ``writer`` is the stream that may write it."""

    status: str = "pending"
    revision: int = 1
    writer: str = ""
    cancelled_at: int = 0
    cancelled_by: str = ""
    request_id: str = ""

    @property
    def final(self) -> bool:
        """Whether nothing can follow."""
        return self.status in FINAL

    def moved(self, status: str, **changes: Any) -> State:
        """The state after a change of status."""
        return replace(self, status=status, revision=self.revision + 1, **changes)


# A call on one file: from a state to the state after it, or None where it cannot have answered so.
Step = Callable[[State], State | None]


@dataclass(frozen=True)
class Call:
    """A call on one file in its times. ``sure``: it has happened."""

    start: int
    end: int
    sure: bool
    step: Step
    text: str


def _sees(facts: Mapping[str, Any]) -> Step:
    """The call told of the file's state."""

    def step(state: State) -> State | None:
        if "cancelled_at" in facts and facts["cancelled_at"] and state.cancelled_at == _UNTOLD:
            state = replace(state, cancelled_at=int(facts["cancelled_at"]))
        for name in ("status", "revision", "cancelled_at", "cancelled_by"):
            if name in facts and facts[name] != getattr(state, name):
                return None
        return state

    return step


def _opens(stream: str) -> Step:
    def step(state: State) -> State | None:
        if state.final:
            return None
        return replace(state, writer=stream) if state.status == "uploading" else state.moved("uploading", writer=stream)

    return step


def _ends(stream: str, status: str) -> Step:
    def step(state: State) -> State | None:
        return state.moved(status) if state.status == "uploading" and state.writer == stream else None

    return step


def _cancels(at: int, by: str, request_id: str, stream: str = "") -> Step:
    def step(state: State) -> State | None:
        if not state.final:
            if stream and state.writer != stream:
                return None
            return state.moved("cancelled", cancelled_at=at, cancelled_by=by, request_id=request_id)
        if not request_id or state.request_id != request_id:
            return None
        # The first answer again; where that was lost, this one tells when it was.
        first = at if state.cancelled_at == _UNTOLD else state.cancelled_at
        return replace(state, cancelled_at=first) if at in {first, _UNTOLD} else None

    return step


def _batch_cancels(at: int, request_id: str) -> Step:
    def step(state: State) -> State | None:
        if state.final:
            return state
        return state.moved("cancelled", cancelled_at=at, cancelled_by="batch_cancel", request_id=f"batch {request_id}")

    return step


def _expires(state: State) -> State | None:
    """Nobody asks for it; it can come at any time, and takes the file from its writer."""
    return None if state.final else state.moved("failed", writer="")


def _is(condition: Callable[[State], bool]) -> Step:
    return lambda state: state if condition(state) else None


def _steps_of(op: Op, file_id: str) -> Iterator[tuple[Step, bool]]:
    """What a call did to a file and whether it surely did."""
    if op.name in _STEPS:
        yield from _STEPS[op.name](op, file_id)
    if op.answer.get("reason", "") in {"FILE_NOT_CANCELLABLE", "FILE_NOT_WRITABLE", "UPLOAD_CANCELLED"}:
        yield _sees(op.answer), True


Steps = Iterator[tuple[Step, bool]]


def _read(op: Op, file_id: str) -> Steps:
    for view in op.answer.get("files", ()):
        if view["file_id"] == file_id:
            yield _sees(view), True


def _cancel(op: Op, _: str) -> Steps:
    if op.outcome != "fail":
        yield _cancels(op.answer.get("cancelled_at", _UNTOLD), "user", op.args["request_id"]), op.outcome == "ok"


def _cancel_batch(op: Op, _: str) -> Steps:
    if op.outcome != "fail":
        yield _batch_cancels(op.answer.get("cancelled_at", _UNTOLD), op.args["request_id"]), op.outcome == "ok"
    elif op.answer["reason"] == "BATCH_NOT_CANCELLABLE":
        yield _is(lambda state: state.final), True


def _close(op: Op, _: str) -> Steps:
    yield _cancels(_UNTOLD, "websocket_close", "", op.args["stream"]), False


def _hear_stop(op: Op, _: str) -> Steps:
    if op.outcome == "ok":
        yield _sees({"status": "cancelled"}), True


def _open(op: Op, _: str) -> Steps:
    reason = op.answer.get("reason", "")
    if op.outcome == "ok":
        yield _opens(op.args["stream"]), True
    elif reason == "OFFSET_MISMATCH":
        yield _is(lambda state: not state.final), True
    elif reason != "FILE_NOT_WRITABLE":
        # Stopped or replaced as soon as it was open, or the answer was lost.
        yield _opens(op.args["stream"]), False


def _commit(op: Op, _: str) -> Steps:
    stream, reason = op.args["stream"], op.answer.get("reason", "")
    if op.outcome == "ok":
        right = op.answer["sha256"] == op.args["sha256"]
        yield (_ends(stream, "completed") if right else _is(lambda _: False)), True
    elif reason == "CHECKSUM_MISMATCH":
        yield _ends(stream, "failed"), True
    elif reason == "WRITER_REPLACED":
        yield _is(lambda state: state.writer != stream), True
    elif op.outcome == "unknown":
        yield _ends(stream, "completed"), False
        yield _ends(stream, "failed"), False


_STEPS: Mapping[str, Callable[[Op, str], Iterable[tuple[Step, bool]]]] = {
    "get": _read,
    "list": _read,
    "cancel": _cancel,
    "cancel_batch": _cancel_batch,
    "close": _close,
    "hear_stop": _hear_stop,
    "open": _open,
    "commit": _commit,
}


def calls_on(history: History, file_id: str, batch_id: str) -> list[Call]:
    """The calls that have to do with one file."""
    found = []
    for op in history.ops:
        concerns = op.args.get("file_id") == file_id or (batch_id and op.args.get("batch_id") == batch_id)
        if concerns or op.name == "list":
            found += [
                Call(op.start, op.end if sure else NEVER, sure, step, str(op)) for step, sure in _steps_of(op, file_id)
            ]
    return found


def linearizable(calls: list[Call], start: State) -> bool:
    """Whether there is an order of the calls, within their times, from ``start``."""
    calls = sorted(calls, key=lambda call: call.start)
    everything_sure = sum(1 << i for i, call in enumerate(calls) if call.sure)
    tried: set[tuple[int, State]] = set()
    branches = [(0, start)]
    while branches:
        done, state = branches.pop()
        if done & everything_sure == everything_sure:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        # What ended first of the calls still to come: nothing that started after it can come before it.
        horizon = min((call.end for i, call in enumerate(calls) if not done >> i & 1), default=NEVER)
        branches += _branches(calls, done, state, horizon)
    return False


def _branches(calls: list[Call], done: int, state: State, horizon: int) -> list[tuple[int, State]]:
    """Where the search can go on. A sure call that changes nothing can be taken at once: later it would fit no better.

    One that may have happened, and would change nothing, need not have. What is sure is tried first, so it comes last.
    """
    sure, unsure = [], []
    for i, call in enumerate(calls):
        if call.start > horizon:
            break
        if done >> i & 1 or (after := call.step(state)) is None:
            continue
        if call.sure and after == state:
            return [(done | 1 << i, state)]
        if call.sure:
            sure.append((done | 1 << i, after))
        elif after != state:
            unsure.append((done | 1 << i, after))
    return unsure + sure


def check(history: History) -> Iterable[Violation]:
    """Each file by itself: linearizability is local."""
    for op in history.named("initiate", "initiate_batch"):
        if op.outcome != "ok":
            continue
        for file_id in op.answer["file_ids"]:
            calls = calls_on(history, file_id, op.answer.get("batch_id", ""))
            row = history.tables.files.get(file_id)
            if row is not None and row.failure_reason == "expired":
                # From the beginning: a file can be read before the answer, or the repeat, that first tells of it.
                calls.append(Call(0, NEVER, sure=False, step=_expires, text="expiry"))
            if not linearizable(calls, State()):
                listing = "\n    ".join(call.text for call in sorted(calls, key=lambda call: call.start))
                yield Violation("linear", f"no order explains the calls on {file_id}:\n    {listing}")
