"""R14 to R22, R24, by etcd's names. States between may be merged, so: every final state, no revision twice or back.

A watch and its resumptions are one chain, up to a failover of the database: then another one begins, as a new watch
does. ``probe`` watches were resumed from tokens heard earlier, when all was quiet.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence

from robustness.prove.checkers.finality import FINAL, seen_files
from robustness.prove.checkers.violation import Violation
from robustness.prove.history import FAILS_OVER, Fault, Heard, History, Watch

_CHANGES = frozenset({"file", "batch"})


def _chain(watch: Watch) -> Iterator[Heard]:
    for stream in watch.streams:
        yield from stream.heard


def _chains(history: History) -> Iterator[Watch]:
    return (watch for watch in history.watches if not watch.who.startswith("probe"))


def _covered(history: History, watch: Watch) -> set[str]:
    """The targets a watch is to hear of."""
    tables = history.tables
    if watch.everything:
        return {*tables.files, *tables.batches}
    with_files = set(watch.batch_ids) if watch.with_files else set()
    members = {file_id for file_id, row in tables.files.items() if row.batch_id in with_files}
    return {*watch.file_ids, *watch.batch_ids, *members} & {*tables.files, *tables.batches}


def _status(history: History, target: str) -> str:
    files, batches = history.tables.files, history.tables.batches
    return files[target].status if target in files else batches[target].status


def _revision(history: History, target: str) -> int:
    files, batches = history.tables.files, history.tables.batches
    return files[target].revision if target in files else batches[target].revision


def ordered(history: History) -> Iterable[Violation]:
    """R14: along a stream change numbers grow from its token on; of one target revisions grow, over resumptions too."""
    for watch in history.watches:
        revisions: dict[str, int] = {}
        for stream in watch.streams:
            last = stream.token
            for heard in stream.heard:
                if heard.no < last or (heard.kind in _CHANGES and heard.no == last):
                    yield Violation("watch.ordered", f"{watch.who} heard {heard} after change {last}")
                last = max(last, heard.no)
                if heard.kind in _CHANGES:
                    if heard.revision < revisions.get(heard.target, 0):
                        yield Violation("watch.ordered", f"{watch.who} heard {heard.target} go back: {heard}")
                    revisions[heard.target] = heard.revision


def unique(history: History) -> Iterable[Violation]:
    """R15, R22: no state twice."""
    for watch in history.watches:
        seen: set[tuple[str, int]] = set()
        for heard in _chain(watch):
            if heard.kind in _CHANGES:
                if (heard.target, heard.revision) in seen:
                    yield Violation("watch.unique", f"{watch.who} heard twice: {heard}")
                seen.add((heard.target, heard.revision))


def atomic(history: History) -> Iterable[Violation]:
    """R16: who hears that a batch is final has heard the same of its files; nothing of a commit is told in part."""
    for watch in _chains(history):
        last: dict[str, str] = {}
        for heard in _chain(watch):
            if heard.kind in _CHANGES:
                last[heard.target] = heard.view["status"]
            if heard.kind != "batch" or heard.view["status"] not in FINAL:
                continue
            for file_id, row in history.tables.files.items():
                if row.batch_id != heard.target:
                    continue
                named = watch.with_files and heard.target in watch.batch_ids
                found = last.get(file_id, "nothing" if named else "")
                if found and found not in FINAL:
                    yield Violation("watch.atomic", f"{watch.who} heard of {heard.target}, of its {file_id} {found}")


def reliable(history: History) -> Iterable[Violation]:
    """R17: the last state heard of each target is its state; no final state is missing."""
    for watch in _chains(history):
        if watch.ended_by_resync:
            continue
        last = {heard.target: heard for heard in _chain(watch) if heard.kind in _CHANGES}
        since = _final_before(watch)
        for target in _covered(history, watch):
            heard = last.get(target)
            if heard is None:
                skipped = watch.everything and _status(history, target) in FINAL
                if not skipped or history.tables.change_no[target] > since:
                    yield Violation("watch.reliable", f"{watch.who} never heard of {target}")
            elif heard.revision != _revision(history, target):
                now = f"{_status(history, target)} at revision {_revision(history, target)}"
                yield Violation("watch.reliable", f"{watch.who} last heard {heard}, it is {now}")


def _final_before(watch: Watch) -> int:
    """What was final up to this change may be left out of a watch of everything."""
    return next((heard.no for heard in _chain(watch) if heard.kind == "bookmark"), 0) if watch.everything else -1


def resumable(history: History) -> Iterable[Violation]:
    """R18, R20: resumed from a token, a stream tells exactly the rows changed since, then a bookmark."""
    for watch in history.watches:
        # Who watches everything anew is told of nothing that is over.
        if not watch.who.startswith("probe") or watch.ended_by_resync or (watch.everything and "+" in watch.who):
            continue
        for stream in watch.streams:
            found = {heard.target for heard in stream.heard if heard.kind in _CHANGES}
            numbers = history.tables.change_no
            expected = {target for target in _covered(history, watch) if numbers[target] > stream.token}
            if found != expected:
                missing, extra = sorted(expected - found), sorted(found - expected)
                yield Violation("watch.resumable", f"from {stream.token}: missing {missing}, too many {extra}")


def bookmarkable(history: History) -> Iterable[Violation]:
    """R19: a bookmark at a number promises that all up to it was sent; a watch that stays gets one that covers all."""
    newest = max(history.tables.change_no.values(), default=0)
    failovers = [fault for fault in history.faults if fault.what == FAILS_OVER]
    for watch in _chains(history):
        yield from _went_on(watch, failovers)
        heard_upto: dict[str, int] = {}
        covered = _covered(history, watch)
        since = _final_before(watch)
        latest = -1
        for heard in _chain(watch):
            if heard.kind in _CHANGES:
                heard_upto[heard.target] = heard.no
            if heard.kind != "bookmark":
                continue
            latest = heard.no
            if heard.view.get("resynced") and not any(each.start < heard.t for each in failovers):
                yield Violation("watch.bookmarkable", f"{watch.who} was resynced in a store that was never replaced")
            for target in covered:
                no = history.tables.change_no[target]
                left_out = since >= no and target not in heard_upto and _status(history, target) in FINAL
                if no <= heard.no and heard_upto.get(target) != no and not left_out:
                    yield Violation("watch.bookmarkable", f"{watch.who}: {heard} came without change {no} of {target}")
        if latest < newest and not (watch.until_final or watch.ended_by_resync):
            yield Violation("watch.bookmarkable", f"{watch.who} was told of {latest} of {newest} changes")


def _went_on(watch: Watch, failovers: Sequence[Fault]) -> Iterator[Violation]:
    last = 0
    for stream in watch.streams:
        if last and stream.heard and any(last < each.start and each.end < stream.started for each in failovers):
            yield Violation("watch.bookmarkable", f"{watch.who} went on after a failover with a token of before")
        last = max((heard.t for heard in stream.heard), default=last)


def true(history: History) -> Iterable[Violation]:
    """R24: what is told is committed: the audit has it, and who asks afterwards sees no less. Ends and progress too."""
    trails: dict[str, list[str]] = {}
    for event in history.tables.events:
        trails.setdefault(event.file_id or event.batch_id, []).append(event.to_status)
    told: dict[str, list[tuple[int, int]]] = {}
    for watch in history.watches:
        yield from _progress_and_end(watch)
        for heard in _chain(watch):
            if heard.kind not in _CHANGES:
                continue
            trail, status = trails.get(heard.target, []), heard.view["status"]
            known = trail[heard.revision - 1 : heard.revision] == [status] if heard.kind == "file" else status in trail
            if trails and not known:
                yield Violation("watch.true", f"{watch.who} heard what was never committed: {heard}")
            told.setdefault(heard.target, []).append((heard.t, heard.revision))
    yield from _reads_after(history, told)


def _reads_after(history: History, told: dict[str, list[tuple[int, int]]]) -> Iterator[Violation]:
    for times in told.values():
        times.sort()
    for op, view in seen_files(history):
        before = told.get(view["file_id"], [])
        heard = max((revision for _, revision in before[: bisect.bisect_left(before, (op.start, 0))]), default=0)
        if view["revision"] < heard:
            yield Violation("watch.true", f"revision {heard} was told to a watcher before it could be read: {op}")


def _progress_and_end(watch: Watch) -> Iterator[Violation]:
    final: set[str] = set()
    for heard in _chain(watch):
        if heard.kind in _CHANGES and heard.view["status"] in FINAL:
            final.add(heard.target)
        if heard.kind == "progress" and heard.target in final:
            yield Violation("watch.true", f"{watch.who} heard progress after the final state: {heard}")
    if watch.until_final and watch.streams[-1].ended == "OK":
        for target in {*watch.file_ids, *watch.batch_ids} - final:
            yield Violation("watch.true", f"{watch.who} ended before the final state of {target}")
