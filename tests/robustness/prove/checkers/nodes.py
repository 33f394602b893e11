"""What several servers must agree upon: whose sender hears of a cancel, whose stream lives, and one chain of seals.

A sender is at the server whose number its name ends with; what had struck that server excuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from robustness.prove.checkers.violation import Violation
from robustness.prove.history import History, Op

# On the busiest machine; the benchmark and the figures of a run tell how soon it is.
_HEAR_NS = 15_000_000_000
# A server that was stopped, or cut off, for longer than its lease, is dead to the others for so long at most.
_LEASE_NS = 15_000_000_000


@dataclass(frozen=True)
class Sending:
    """A stream that was open, in its times."""

    file_id: str
    stream: str
    at: str
    start: int
    end: int


def _at(who: str) -> str:
    name, sign, number = who.partition("@")
    return sign + number if name else ""


def sendings(history: History) -> Iterator[Sending]:
    """Streams that were open, and whose end is known."""
    for op in history.named("open"):
        if op.outcome == "ok" and (end := history.left.get(op.args["stream"])):
            yield Sending(op.args["file_id"], op.args["stream"], _at(op.who), op.end, end)


def _cancels(history: History) -> Iterator[tuple[str, Op]]:
    """Files whose cancel was answered OK, and by which call."""
    files_of = {
        op.answer["batch_id"]: op.answer["file_ids"] for op in history.named("initiate_batch") if op.outcome == "ok"
    }
    for op in history.named("cancel", "cancel_batch"):
        if op.outcome == "ok":
            files = [op.args["file_id"]] if op.name == "cancel" else files_of.get(op.args["batch_id"], ())
            yield from ((file_id, op) for file_id in files)


def told(history: History) -> Iterable[Violation]:
    """R6 at any server: the stream of a file that is cancelled at one of them ends soon, wherever it is."""
    acks: dict[str, int] = {}
    for file_id, op in _cancels(history):
        acks[file_id] = min(acks.get(file_id, op.end), op.end)
    for each in sendings(history):
        ack = acks.get(each.file_id)
        if ack is None or each.start > ack or each.end < ack + _HEAR_NS:
            continue
        if not history.struck(ack, each.end, each.at, _LEASE_NS):
            seconds = (each.end - ack) / 1e9
            yield Violation("nodes.told", f"{each} went on for {seconds:.1f} s after its file's cancel was answered")


def living(history: History) -> Iterable[Violation]:
    """Nothing expires under a stream that is open at a server that lives."""
    t, wall = history.clock
    open_on: dict[str, list[Sending]] = {}
    for each in sendings(history):
        open_on.setdefault(each.file_id, []).append(each)
    for event in history.tables.events:
        if event.source != "expiry":
            continue
        at = t + (event.occurred_at - wall) * 1000
        for each in open_on.get(event.file_id, ()):
            if each.start < at < each.end and not history.struck(at, at, each.at, _LEASE_NS):
                yield Violation("nodes.living", f"{event} under {each}")


def alarms(history: History) -> Iterable[Violation]:
    """One chain of seals, whoever sealed, and no server has logged an error that nothing explains."""
    return (Violation("nodes.alarms", text) for text in history.tables.alarms)


def delays(history: History) -> list[float]:
    """Seconds from a cancel's answer at one server to the word to a sender at another, where nothing had struck."""
    found = []
    heard: dict[str, dict[str, int]] = {}
    for t, who, file_id in reversed(history.told):
        heard.setdefault(file_id, {})[_at(who)] = t
    for file_id, op in _cancels(history):
        for at, t in heard.get(file_id, {}).items():
            if at != _at(op.who) and op.start < t and not history.struck(op.start, t):
                found.append(max(0, t - op.end) / 1e9)
    return sorted(found)
