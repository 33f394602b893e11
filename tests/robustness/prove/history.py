"""What happened, as JSON lines: calls with their start and end, what watchers heard, and how everything was left.

Lines have ``t`` (nanoseconds of one monotonic clock), ``who`` and ``type``:
``invoke`` and, with the same ``id``, one of ``ok``, ``fail``, ``unknown`` (it may have happened or not);
``progress`` (durable bytes told); ``told``, ``left`` (a sender hears of its file's cancel; its stream is over);
``fault`` (what struck which server of several, until now); ``clock`` (the wall clock's microseconds now);
``watch``, ``event``, ``end`` (a watcher's streams); ``stopped`` (a drain); ``tables``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustness.prove.views import BatchView, EventView, FileView

Line = dict[str, Any]
NEVER = 1 << 62
# What is said to strike when the database of several servers fails over to a standby.
FAILS_OVER = "database fails over"


@dataclass(frozen=True)
class Op:
    """One call. ``end`` is NEVER for one whose answer was lost; ``answer`` holds the reason and facts of a refusal."""

    op_id: int
    who: str
    name: str
    args: Mapping[str, Any]
    start: int
    end: int
    outcome: str
    answer: Mapping[str, Any]

    def __str__(self) -> str:
        return f"#{self.op_id} {self.name} {dict(self.args)} -> {self.outcome} {dict(self.answer)}"


@dataclass(frozen=True)
class Heard:
    """One message of a watch; ``no`` is the change number in its token. ``view`` is set for files and batches."""

    t: int
    kind: str
    no: int
    target: str
    view: Mapping[str, Any]

    @property
    def revision(self) -> int:
        """The target's revision; 0 for what is none."""
        return int(self.view.get("revision", 0))


@dataclass
class Stream:
    """One opening of a watch: from a token (-1: fresh) to its end."""

    token: int
    started: int
    heard: list[Heard] = field(default_factory=list)
    ended: str = ""


@dataclass
class Watch:
    """A watcher: its targets, and its streams, each resumed where the one before broke."""

    who: str
    file_ids: Sequence[str]
    batch_ids: Sequence[str]
    with_files: bool
    everything: bool
    until_final: bool
    streams: list[Stream] = field(default_factory=list)
    # Whether the watcher began anew, told of a new history: another chain goes on.
    ended_by_resync: bool = False


@dataclass(frozen=True)
class Fault:
    """What struck a server of several; ``at`` is `@1` for the second of them, empty when it struck all."""

    what: str
    at: str
    start: int
    end: int


@dataclass
class Tables:
    """Rows, audit and disk after all calls have ended and the janitor is done. Empty maps when they were not read."""

    files: dict[str, FileView] = field(default_factory=dict)
    batches: dict[str, BatchView] = field(default_factory=dict)
    events: list[EventView] = field(default_factory=list)
    change_no: dict[str, int] = field(default_factory=dict)
    owed: list[str] = field(default_factory=list)
    # Of what lies on disk: its size, its SHA-256, and whether it starts with the bytes its sender has.
    disk: dict[str, tuple[int, str, bool]] = field(default_factory=dict)
    # What is wrong with the chain of seals, and what servers logged as errors that no fault explains.
    alarms: list[str] = field(default_factory=list)


@dataclass
class History:
    """Everything a checker can look at."""

    ops: list[Op] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    # (time, file, durable bytes) as streams were told.
    progress: list[tuple[int, str, int]] = field(default_factory=list)
    # (exit code, seconds) of servers that were asked to stop.
    stops: list[tuple[int, float]] = field(default_factory=list)
    # Seconds after which an upload that nobody sends to expires.
    ttl: float = 86_400.0
    tables: Tables = field(default_factory=Tables)
    # (time, who, file) as senders heard of a cancel.
    told: list[tuple[int, str, str]] = field(default_factory=list)
    # When a sender's stream was over, by the stream's name.
    left: dict[str, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    # The same moment by the history's clock and by the wall clock, in nanoseconds and microseconds.
    clock: tuple[int, int] = (0, 0)

    def struck(self, start: int, end: int, at: str | None = None, margin: int = 5_000_000_000, what: str = "") -> bool:
        """Whether something had struck between these times, or ``margin`` before: the server ``at``, or any.

        ``what``: how its name begins.
        """
        return any(
            fault.start <= end and start <= fault.end + margin and (at is None or fault.at in {"", at})
            for fault in self.faults
            if fault.what.startswith(what)
        )

    def named(self, *names: str) -> list[Op]:
        """The calls of these names, by start."""
        return [op for op in self.ops if op.name in names]


class Recorder:
    """Takes lines in the order they happen; used on one event loop."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._ids = 0

    def invoke(self, who: str, name: str, /, **args: Any) -> int:
        """A call starts; returns its id."""
        self._ids += 1
        self.line(who, "invoke", id=self._ids, op=name, args=args)
        return self._ids

    def answered(self, who: str, op_id: int, outcome: str, **answer: Any) -> None:
        """A call has ended: ``ok``, ``fail`` or ``unknown``."""
        self.line(who, outcome, id=op_id, answer=answer)

    def line(self, who: str, kind: str, /, **facts: Any) -> None:
        """Take any line."""
        self.lines.append({"t": time.monotonic_ns(), "who": who, "type": kind, **facts})

    def forget(self, prefix: str) -> None:
        """Drop what watchers of these names have heard."""
        self.lines = [line for line in self.lines if not line["who"].startswith(prefix)]

    def save(self, path: Path) -> None:
        """Write the lines for somebody to look at."""
        path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))


def load(path: Path) -> History:
    """Read a history back."""
    return parse(json.loads(text) for text in path.read_text().splitlines())


def parse(lines: Iterable[Line]) -> History:
    """Put lines together."""
    history = History()
    started: dict[int, Line] = {}
    watches: dict[str, Watch] = {}
    for line in lines:
        kind = line["type"]
        if kind == "invoke":
            started[line["id"]] = line
        elif kind in {"ok", "fail", "unknown"}:
            history.ops.append(_op(started.pop(line["id"]), line))
        elif kind == "progress":
            history.progress.append((line["t"], line["file_id"], line["count"]))
        elif kind == "stopped":
            history.stops.append((line["code"], line["seconds"]))
        elif kind == "ttl":
            history.ttl = line["seconds"]
        elif kind in {"told", "left", "fault", "clock"}:
            _line_of_several(history, line)
        elif kind == "tables":
            history.tables = _tables(line)
        elif kind in {"watch", "event", "end"}:
            _watch_line(watches, line)
    history.ops += [_op(line, None) for line in started.values()]
    history.ops.sort(key=lambda op: op.start)
    history.watches = list(watches.values())
    return history


def _line_of_several(history: History, line: Line) -> None:
    kind, t = line["type"], line["t"]
    if kind == "told":
        history.told.append((t, line["who"], line["file_id"]))
    elif kind == "left":
        history.left.setdefault(line["stream"], t)
    elif kind == "clock":
        history.clock = (t, line["micros"])
    else:
        history.faults.append(Fault(line["what"], line["at"], line["since"], t))


def _op(start: Line, end: Line | None) -> Op:
    lost = end is None or end["type"] == "unknown"
    return Op(
        op_id=start["id"],
        who=start["who"],
        name=start["op"],
        args=start["args"],
        start=start["t"],
        end=NEVER if lost or end is None else end["t"],
        outcome="unknown" if end is None else end["type"],
        answer={} if end is None else end["answer"],
    )


def _watch_line(watches: dict[str, Watch], line: Line) -> None:
    if line["type"] == "watch":
        if line.get("after"):
            watches[line["after"]].ended_by_resync = True
        watch = watches.setdefault(line["who"], Watch(line["who"], **line["request"]))
        watch.streams.append(Stream(line["token"], line["t"]))
    elif line["type"] == "event":
        heard = Heard(line["t"], line["kind"], line["no"], line["target"], line["view"])
        watches[line["who"]].streams[-1].heard.append(heard)
    elif line["type"] == "end":
        watches[line["who"]].streams[-1].ended = line["code"]


def _tables(line: Line) -> Tables:
    return Tables(
        files={row["file_id"]: FileView(**row) for row in line["files"]},
        batches={row["batch_id"]: BatchView(**row) for row in line["batches"]},
        events=[EventView(**row) for row in line["events"]],
        change_no=line["change_no"],
        owed=line["owed"],
        disk={key: (value[0], value[1], value[2]) for key, value in line["disk"].items()},
        alarms=line.get("alarms", []),
    )
