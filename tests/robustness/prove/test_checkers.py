"""The checkers are themselves tested: each lets a good history pass and complains of bad ones made by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from robustness.prove.checkers import CHECKERS, check
from robustness.prove.history import FAILS_OVER, History, Line, parse
from robustness.prove.views import BatchView, EventView, FileView

F, B = "f", "b"
_FILE: dict[str, Any] = {
    "file_id": F,
    "size_bytes": 3,
    "bytes_received": 0,
    "status": "cancelled",
    "batch_id": "",
    "sha256": "",
    "created_at": 1,
    "updated_at": 9,
    "completed_at": 0,
    "cancelled_at": 9,
    "cancelled_by": "user",
    "cancel_reason": "why",
    "failure_reason": "",
    "revision": 2,
}
_BATCH: dict[str, Any] = {
    "batch_id": B,
    "status": "cancelled",
    "total_files": 1,
    "completed_files": 0,
    "failed_files": 0,
    "cancelled_files_count": 1,
    "updated_at": 9,
    "cancelled_at": 9,
    "cancelled_by": "user",
    "cancel_reason": "",
    "revision": 2,
}
_REQUEST = {"file_ids": [F], "batch_ids": [], "with_files": False, "everything": False, "until_final": False}


def file(**changes: Any) -> dict[str, Any]:
    return vars(FileView(**{**_FILE, **changes}))


def pending(**changes: Any) -> dict[str, Any]:
    return file(
        **{"status": "pending", "revision": 1, "cancelled_at": 0, "cancelled_by": "", "cancel_reason": ""} | changes
    )


def batch(**changes: Any) -> dict[str, Any]:
    return vars(BatchView(**{**_BATCH, **changes}))


def event(no: int, from_status: str, to_status: str, **changes: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "file_id": F,
        "batch_id": "",
        "actor": "user",
        "source": "grpc",
        "reason": "",
        "request_id": "",
    }
    facts |= {"occurred_at": 1}
    return vars(EventView(**{**facts, "event_id": no, "from_status": from_status, "to_status": to_status, **changes}))


def born(no: int = 1, **changes: Any) -> dict[str, Any]:
    return event(no, "", "pending", **changes)


def died(no: int = 2, **changes: Any) -> dict[str, Any]:
    return event(no, "pending", "cancelled", **{"occurred_at": 9, "reason": "why"} | changes)


class Story:
    """Lines of a history, one tick apart."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._ids = 0

    def _add(self, kind: str, /, **facts: Any) -> None:
        self.lines.append({"t": 10_000_000_000 * (len(self.lines) + 1), "who": "w", "type": kind, **facts})

    def ttl(self, seconds: float) -> Story:
        self._add("ttl", seconds=seconds)
        return self

    def start(self, op: str, **args: Any) -> int:
        self._ids += 1
        self._add("invoke", id=self._ids, op=op, args=args)
        return self._ids

    def end(self, op_id: int, outcome: str = "ok", **answer: Any) -> Story:
        self._add(outcome, id=op_id, answer=answer)
        return self

    def did(self, op: str, outcome: str, answer: dict[str, Any], **args: Any) -> Story:
        return self.end(self.start(op, **args), outcome, **answer)

    def made(self) -> Story:
        return self.did("initiate", "ok", {"file_ids": [F]}, size=3, request_id="")

    def made_batch(self, *file_ids: str) -> Story:
        return self.did("initiate_batch", "ok", {"batch_id": B, "file_ids": list(file_ids)}, sizes=[3], request_id="")

    def cancelled(self, request_id: str = "", at: int = 9) -> Story:
        return self.did("cancel", "ok", {"cancelled_at": at}, file_id=F, reason="why", request_id=request_id)

    def got(self, **view: Any) -> Story:
        return self.did("get", "ok", {"files": [view]}, file_id=F)

    def opened(self, stream: str = "s1") -> Story:
        return self.did("open", "ok", {}, file_id=F, stream=stream)

    def committed(self, stream: str = "s1", sha256: str = "x") -> Story:
        return self.did("commit", "ok", {"sha256": sha256}, file_id=F, stream=stream, sha256="x")

    def told(self, count: int) -> Story:
        self._add("progress", file_id=F, count=count)
        return self

    def watch(self, token: int = -1, who: str = "w", **request: Any) -> Story:
        self._add("watch", token=token, request={**_REQUEST, **request})
        self.lines[-1]["who"] = who
        return self

    def heard(self, no: int, view: dict[str, Any] | None = None, who: str = "w", kind: str = "") -> Story:
        kind = kind or ("bookmark" if view is None else "file" if "file_id" in view else "batch")
        view = view or {}
        target = view.get("file_id", view.get("batch_id", F if kind == "progress" else ""))
        self._add("event", kind=kind, no=no, target=target, view=view)
        self.lines[-1]["who"] = who
        return self

    def at(self, server: str) -> Story:
        """The call before was made at one server of several."""
        for line in self.lines[-2:]:
            line["who"] = f"w{server}"
        return self

    def gone(self, stream: str = "s1") -> Story:
        self._add("left", file_id=F, stream=stream)
        return self

    def struck(self, server: str) -> Story:
        self._add("fault", what="freeze", at=server, since=self.lines[-1]["t"])
        return self

    def failed_over(self) -> Story:
        self._add("fault", what=FAILS_OVER, at="", since=self.lines[-1]["t"] + 1)
        return self

    def watched_anew(self) -> Story:
        """The watcher is told of a new history."""
        self._add("watch", token=-1, request=_REQUEST, after="w")
        self.lines[-1]["who"] = "w+1"
        return self

    def clock(self) -> Story:
        self._add("clock", micros=10_000_000 * (len(self.lines) + 1))
        return self

    def stopped(self, code: int) -> Story:
        self._add("stopped", code=code, seconds=0.1)
        return self

    def ended(self, code: str = "OK") -> Story:
        self._add("end", code=code)
        return self

    def left(
        self,
        files: list[dict[str, Any]] | None = None,
        events: list[dict[str, Any]] | None = None,
        batches: list[dict[str, Any]] | None = None,
        change_no: dict[str, int] | None = None,
        **facts: Any,
    ) -> Story:
        files, batches = files if files is not None else [file()], batches or []
        numbers = change_no or {
            str(row.get("file_id") or row["batch_id"]): 2 + i for i, row in enumerate([*files, *batches])
        }
        events = events if events is not None else [born(), died()]
        rest = {"owed": [], "disk": {}} | facts
        self._add("tables", files=files, batches=batches, events=events, change_no=numbers, **rest)
        return self

    def history(self) -> History:
        return parse(self.lines)


def story() -> Story:
    return Story()


WATCHED: Callable[[], Story] = lambda: story().watch().heard(1, pending()).heard(1).heard(2, file())  # noqa: E731

COMPLETED: dict[str, Any] = file(
    status="completed",
    revision=3,
    sha256="x",
    bytes_received=3,
    cancelled_at=0,
    cancelled_by="",
    cancel_reason="",
)


def raced() -> Story:
    told = story().made().opened()
    commit = told.start("commit", file_id=F, stream="s1", sha256="x")
    lost = {"reason": "FILE_NOT_CANCELLABLE", "status": "completed", "revision": 3}
    return told.did("cancel", "fail", lost, file_id=F, reason="why", request_id="").end(commit, "ok", sha256="x")


def slow(server: str = "") -> Story:
    """The sender at the first of several servers hears late of a cancel at the second; one server was struck."""
    told = story().made().opened().at("@0").cancelled().at("@1").got(**file(revision=3))
    return (told.struck(server) if server else told).gone()


def overtaken(server: str = "") -> Story:
    """A file expires 65 seconds after the story began, 15 after its stream at the first of several servers did."""
    told = story().ttl(1.0).clock().made().opened().at("@0")
    told = (told.struck(server) if server else told).gone()
    expired = event(3, "uploading", "failed", source="expiry", occurred_at=65_000_000)
    row = file(**EXPIRED | {"revision": 3, "updated_at": 65_000_000})
    moves = [born(), event(2, "pending", "uploading", source="grpc"), expired]
    return told.left([row], moves, change_no={F: 3})


EXPIRED: dict[str, Any] = pending(status="failed", revision=2, failure_reason="expired", updated_at=100_000_000_000)

GOOD: dict[str, Story] = {
    "told soon at another server": story().made().opened().at("@0").cancelled().at("@1").gone(),
    "told late by a server that was struck": slow("@0"),
    "expired under a stream of a server that was struck": overtaken("@0"),
    "cancelled": story().made().got(**pending()).cancelled().got(**file()).left(),
    "cancelled again by its request id": story()
    .made()
    .cancelled("r")
    .cancelled("r")
    .left([file()], [born(), died(request_id="r")]),
    "an answer that was lost, and did": story()
    .made()
    .did("cancel", "unknown", {}, file_id=F, reason="", request_id="")
    .got(**file())
    .left(),
    "an answer that was lost, and did not": story()
    .made()
    .did("cancel", "unknown", {}, file_id=F, reason="", request_id="")
    .got(**pending())
    .left([pending(updated_at=1)], [born()], change_no={F: 1}),
    "completed": story()
    .made()
    .opened()
    .committed()
    .left(
        [COMPLETED],
        [born(), event(2, "pending", "uploading"), event(3, "uploading", "completed", occurred_at=9)],
        change_no={F: 3},
        disk={F: [3, "x", True]},
    ),
    # Found in a history of the profile "expiry": the repeat comes after the file has failed.
    "expired, then announced again by its request id": story()
    .ttl(30)
    .made()
    .got(**EXPIRED)
    .made()
    .left(
        [file(**EXPIRED)],
        [born(), event(2, "pending", "failed", source="expiry", occurred_at=100_000_000_000)],
    ),
    # The first answer was lost; that the batch is final tells that it happened, the repeated answer tells when.
    "cancelled without an answer, then again by its request id": story()
    .made_batch(F)
    .did("cancel", "unknown", {}, file_id=F, reason="why", request_id="r")
    .did("cancel_batch", "fail", {"reason": "BATCH_NOT_CANCELLABLE"}, batch_id=B, reason="", request_id="")
    .cancelled("r")
    .got(**file(batch_id=B))
    .left(
        [file(batch_id=B)],
        [
            born(1, batch_id=B),
            event(2, "", "pending", file_id="", batch_id=B),
            died(3, batch_id=B, request_id="r"),
            event(4, "pending", "cancelled", file_id="", batch_id=B, occurred_at=9),
        ],
        [batch(cancelled_by="all_files")],
        change_no={F: 3, B: 4},
    ),
    # A page that is cut off, or cancelled for after its grace: at any time after it was cut.
    "a page that left": story()
    .made()
    .opened()
    .did("close", "unknown", {}, file_id=F, stream="s1")
    .got(**pending(status="uploading", revision=2))
    .got(**file(revision=3, cancelled_by="websocket_close"))
    .left(
        [file(revision=3, cancelled_by="websocket_close")],
        [born(), event(2, "pending", "uploading"), event(3, "uploading", "cancelled", occurred_at=9, reason="why")],
        change_no={F: 3},
    ),
    # Commit and cancel at once: the cancel's refusal is heard first, though the commit came before it.
    "completed, and told after the one who lost": raced().left(
        [COMPLETED],
        [born(), event(2, "pending", "uploading"), event(3, "uploading", "completed", occurred_at=9)],
        change_no={F: 3},
        disk={F: [3, "x", True]},
    ),
    "watched": WATCHED().heard(2).left(),
    "watched over a failover": WATCHED()
    .failed_over()
    .watched_anew()
    .heard(2, file(), "w+1")
    .heard(2, {"resynced": True}, "w+1", kind="bookmark")
    .left(),
    "merged": story().watch().heard(2, file()).heard(2).left(),
    "probed": WATCHED().heard(2).watch(1, "probe").heard(2, file(), "probe").heard(2, None, "probe").left(),
}

BAD: list[tuple[str, Story]] = [
    # linear
    ("linear", story().made().cancelled().got(**pending())),
    ("linear", story().made().cancelled(at=9).cancelled(at=9)),
    ("linear", story().made().opened().cancelled().committed()),
    ("linear", story().made().opened("s1").opened("s2").committed("s1")),
    ("linear", story().made().opened().committed(sha256="y")),
    ("linear", story().made().got(**file())),
    (
        "linear",
        story()
        .made()
        .did("cancel", "fail", {"reason": "FILE_NOT_CANCELLABLE", "status": "completed"}, file_id=F, request_id=""),
    ),
    # finality
    ("finality", story().made().opened().cancelled().committed()),
    ("finality", story().made().cancelled().got(**file(bytes_received=1)).got(**file(bytes_received=2))),
    ("finality", story().made().cancelled().got(**file()).told(2)),
    ("finality", story().got(**file()).got(**file(cancelled_at=10))),
    ("finality", story().did("hear_stop", "unknown", {}, file_id=F)),
    # reads
    ("reads", story().got(**pending(bytes_received=2)).got(**pending(bytes_received=1))),
    ("reads", story().got(**file(revision=1))),
    ("reads", story().told(3).left([pending(bytes_received=2)], [born()], change_no={F: 1})),
    ("reads", story().did("cancel", "fail", {"reason": "INTERNAL"}, file_id=F, request_id="")),
    ("reads", story().stopped(-9)),
    # requests
    ("requests", story().cancelled("r", 9).cancelled("r", 10)),
    (
        "requests",
        story().cancelled("r").did("cancel", "ok", {"cancelled_at": 9}, file_id="other", reason="why", request_id="r"),
    ),
    (
        "requests",
        story()
        .cancelled("r")
        .did("cancel", "fail", {"reason": "FILE_NOT_CANCELLABLE"}, file_id=F, reason="why", request_id="r"),
    ),
    # batches
    (
        "batches",
        story().did("list", "ok", {"files": [file(cancelled_by="batch_cancel"), pending(file_id="g")]}, batch_id=B),
    ),
    ("batches", story().did("get_batch", "ok", batch(total_files=2), batch_id=B)),
    ("batches", story().did("get_batch", "ok", batch(status="completed", cancelled_by=""), batch_id=B)),
    ("batches", story().left([file(batch_id=B)], [], [batch(cancelled_files_count=0, status="pending")])),
    (
        "batches",
        story()
        .did(
            "cancel_batch",
            "ok",
            {"cancelled_files_count": 0, "total_files_in_batch": 1, "cancelled_at": 9},
            batch_id=B,
            request_id="",
        )
        .left([file(batch_id=B, cancelled_by="batch_cancel")], [], [batch()]),
    ),
    # watches
    ("watch.ordered", story().watch().heard(2, file()).heard(1, pending()).left()),
    ("watch.ordered", story().watch(5).heard(5, file()).left()),
    ("watch.unique", WATCHED().watch(2).heard(3, file()).left()),
    ("watch.unique", story().watch().heard(1, pending()).heard(2, pending()).left()),
    (
        "watch.atomic",
        story()
        .watch(batch_ids=[B], file_ids=[], with_files=True)
        .heard(1, pending(batch_id=B))
        .heard(2, batch())
        .left([file(batch_id=B)], [], [batch()]),
    ),
    (
        "watch.atomic",
        story()
        .watch(batch_ids=[B], file_ids=[], with_files=True)
        .heard(2, batch())
        .left([file(batch_id=B)], [], [batch()]),
    ),
    ("watch.reliable", story().watch().heard(1, pending()).heard(1).left()),
    ("watch.reliable", story().watch().heard(1).left()),
    ("watch.reliable", story().watch(everything=True, file_ids=[]).heard(1).heard(2).left()),
    ("watch.resumable", WATCHED().watch(1, "probe").heard(2, None, "probe").left()),
    ("watch.resumable", WATCHED().watch(2, "probe").heard(3, file(), "probe").left()),
    ("watch.bookmarkable", story().watch().heard(1, pending()).heard(2).heard(2, file()).left()),
    ("watch.bookmarkable", WATCHED().left()),
    ("watch.bookmarkable", WATCHED().failed_over().watch(1).heard(2, file()).heard(2).left()),
    ("watch.bookmarkable", WATCHED().heard(2, {"resynced": True}, kind="bookmark").left()),
    ("watch.true", story().watch().heard(2, file()).left([pending()], [born()])),
    ("watch.true", story().watch().heard(2, file()).got(**pending())),
    ("watch.true", WATCHED().heard(2, {"file_id": F}, kind="progress").left()),
    ("watch.true", story().watch(until_final=True).heard(1, pending()).ended().left()),
    # audit
    ("audit", story().made().left([], [died(file_id="g")])),
    ("audit", story().left([file()], [born()])),
    ("audit", story().left([file()], [born(), died(), died(3)])),
    ("audit", story().left([file(revision=3)])),
    ("audit", story().left([file(cancelled_at=8)])),
    ("audit", story().left([file()], [born(), died(actor="")])),
    ("audit", story().left([], [born()])),
    ("audit", story().left([file()], [born(), died(occurred_at=8)])),
    ("audit", story().cancelled("r").left()),
    ("audit", story().left([file(status="failed")], [born(), event(2, "pending", "failed", source="expiry")])),
    # By the wall clock it was old enough, which was set meanwhile.
    (
        "audit",
        story()
        .made()
        .got(**EXPIRED)
        .left(
            [file(**EXPIRED)],
            [born(), event(2, "pending", "failed", source="expiry", occurred_at=100_000_000_000)],
        ),
    ),
    # nodes
    ("nodes.told", slow()),
    ("nodes.told", slow("@1")),
    ("nodes.living", overtaken()),
    ("nodes.living", overtaken("@1")),
    ("nodes.alarms", story().left(alarms=["event 7 was deleted"])),
    ("nodes.alarms", story().left([], [], alarms=["server 1: {'event': 'broken'}"])),
    # disk
    ("disk", story().left(disk={F: [3, "x", True]})),
    ("disk", story().left([file(status="completed", bytes_received=3, sha256="x")])),
    ("disk", story().left([file(status="completed", bytes_received=3, sha256="x")], disk={F: [3, "y", True]})),
    ("disk", story().left([pending(bytes_received=2)], disk={F: [1, "", True]})),
    ("disk", story().left([pending(bytes_received=2)], disk={F: [2, "", False]})),
    ("disk", story().left([], disk={"stranger": [1, "", True]})),
    ("disk", story().left(owed=[F])),
]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name: str) -> None:
    assert check(GOOD[name].history()) == []


@pytest.mark.parametrize(("checker", "bad"), [pytest.param(*each, id=f"{each[0]}-{i}") for i, each in enumerate(BAD)])
def test_a_bad_history_is_seen(checker: str, bad: Story) -> None:
    assert check(bad.history(), checker)


def test_each_checker_sees_two_kinds_of_bad_histories() -> None:
    seen = [checker for checker, _ in BAD]
    assert {name for name in CHECKERS if seen.count(name) < 2} == set()


def test_unknown_calls_do_not_make_the_search_endless() -> None:
    told = story().made()
    for _ in range(40):
        told.did("cancel", "unknown", {}, file_id=F, reason="", request_id="")
        told.got(**pending())
    assert check(told.history(), "linear") == []
