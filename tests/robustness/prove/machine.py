"""Model and service driven side by side: rules are calls; after each step everything that can be seen must agree."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from robustness.prove.model import FINAL, Batch, File, Model, Refused
from robustness.prove.systems import System, digest
from robustness.prove.views import BatchView, EventView, FileView

T = TypeVar("T")

PICK = st.integers(0, 7)
SIZES = st.sampled_from([0, 1, 3, 10])
# Few, so that they meet again; empty for calls that ask for no replay.
REQUEST_IDS = st.sampled_from(["", "", "r1", "r2", "r3"])
REASONS = st.sampled_from(["", "over"])


@dataclass
class Writer:
    """An open stream on both sides."""

    file_id: str
    number: int
    stream: Any
    sent: int


class Conformance(RuleBasedStateMachine):
    """Subclasses say which system; everything else is the same."""

    def make_system(self, folder: Path) -> System:
        """Return the system to be driven."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self._runner = asyncio.Runner()
        self._folder = tempfile.TemporaryDirectory(prefix="prove-")
        self.system = self.make_system(Path(self._folder.name))
        self.model = Model()
        self.writers: list[Writer] = []
        self.final: dict[str, FileView | BatchView] = {}
        self.recorded: dict[str, int] = {}
        self.token = ""

    def teardown(self) -> None:
        self._run(self.system.stop())
        self._runner.close()
        self._folder.cleanup()

    # Both sides ----------------------------------------------------------------------------------------------------

    def _run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await work

        return self._runner.run(bounded())

    def _both(self, ours: Callable[[], Any], theirs: Callable[[], Awaitable[T]]) -> T | None:
        """Do it on the model and on the system: both refuse for the same reason and with the same facts, or neither."""
        self.model.tick += 1
        try:
            ours()
            expected = None
        except Refused as refusal:
            expected = refusal
        answer = refused = None
        try:
            answer = self._run(theirs())
        except Refused as refusal:
            refused = refusal
        _same_refusal(expected, refused)
        return answer

    def _pick_file(self, pick: int) -> File:
        return list(self.model.files.values())[-1 - pick % len(self.model.files)]

    def _pick_batch(self, pick: int) -> Batch:
        return list(self.model.batches.values())[-1 - pick % len(self.model.batches)]

    # Rules ---------------------------------------------------------------------------------------------------------

    @rule(size=SIZES, request_id=REQUEST_IDS)
    def initiate(self, size: int, request_id: str) -> None:
        kept: list[object] = []
        view = self._both(
            lambda: kept.append(self.model.replay("InitiateUpload", request_id, size)),
            lambda: self.system.initiate(size, request_id),
        )
        if view is None:
            return
        if kept[0] is not None:
            assert view.file_id == kept[0], "a replay gives the first call's file"
            self._check_file(self.model.files[view.file_id], view)
            return
        assert view.file_id not in self.model.files
        self.model.initiate(view.file_id, size)
        self.model.keep("InitiateUpload", request_id, size, view.file_id)

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=4), request_id=REQUEST_IDS)
    def initiate_batch(self, sizes: list[int], request_id: str) -> None:
        kept: list[Any] = []
        answer = self._both(
            lambda: kept.append(self.model.replay("InitiateBatch", request_id, tuple(sizes))),
            lambda: self.system.initiate_batch(sizes, request_id),
        )
        if answer is None:
            return
        view, ids = answer
        if kept[0] is not None:
            assert (view.batch_id, ids) == kept[0]
            self._check_batch(self.model.batches[view.batch_id], view)
            return
        self.model.initiate_batch(view.batch_id, dict(zip(ids, sizes, strict=True)))
        self.model.keep("InitiateBatch", request_id, tuple(sizes), (view.batch_id, ids))

    @precondition(lambda self: self.model.files)
    @rule(pick=PICK, wrong=st.sampled_from([0, 0, 0, 0, 1, -1]))
    def open(self, pick: int, wrong: int) -> None:
        file = self._pick_file(pick)
        seen = self._run(self.system.file(file.file_id))
        self._settle(file, seen)
        offset = max(0, file.durable + wrong)
        number: list[int] = []
        stream = self._both(
            lambda: number.append(self.model.claim(file.file_id, offset)),
            lambda: self.system.open(seen, offset),
        )
        if stream is not None:
            self.writers.append(Writer(file.file_id, number[0], stream, offset))

    @precondition(lambda self: self.writers)
    @rule(pick=PICK, count=st.integers(1, 10))
    def send(self, pick: int, count: int) -> None:
        writer = self.writers[pick % len(self.writers)]
        file = self.model.files[writer.file_id]
        count = min(count, file.size - writer.sent)
        if count:
            writer.sent += count
            self._run(self.system.send(writer.stream, count))
            if file.writer == writer.number and file.status == "uploading":
                file.ceiling = writer.sent

    @precondition(lambda self: self.writers)
    @rule(pick=PICK)
    def leave(self, pick: int) -> None:
        writer = self.writers.pop(pick % len(self.writers))

        def ours() -> None:
            file = self.model.check_writer(writer.file_id, writer.number)
            file.durable = file.ceiling = writer.sent
            file.active = self.model.tick

        self._both(ours, lambda: self.system.leave(writer.stream))

    @precondition(lambda self: self.writers)
    @rule(pick=PICK, matches=st.sampled_from([True, True, True, False]), all_of_it=st.sampled_from([True, True, False]))
    def commit(self, pick: int, *, matches: bool, all_of_it: bool) -> None:
        writer = self.writers[pick % len(self.writers)]
        file = self.model.files[writer.file_id]
        if all_of_it:
            self.send(pick, 10)
        self.writers.remove(writer)
        view = self._both(
            lambda: self.model.commit(writer.file_id, writer.number, writer.sent, matches=matches),
            lambda: self.system.commit(writer.stream, matches=matches),
        )
        if view is not None:
            assert view.sha256 == digest(file.size)

    @precondition(lambda self: self.model.files)
    @rule(pick=PICK, reason=REASONS, request_id=REQUEST_IDS)
    def cancel(self, pick: int, reason: str, request_id: str) -> None:
        file_id = self._pick_file(pick).file_id
        self._repeatable(
            "CancelFile",
            request_id,
            (file_id, reason),
            lambda: self.model.cancel(file_id, reason),
            lambda: self.system.cancel(file_id, reason, request_id),
        )

    @precondition(lambda self: self.model.batches)
    @rule(pick=PICK, reason=REASONS, request_id=REQUEST_IDS)
    def cancel_batch(self, pick: int, reason: str, request_id: str) -> None:
        batch = self._pick_batch(pick)
        counted: list[int] = []
        answer = self._repeatable(
            "CancelBatch",
            request_id,
            (batch.batch_id, reason),
            lambda: counted.append(self.model.cancel_batch(batch.batch_id, reason)),
            lambda: self.system.cancel_batch(batch.batch_id, reason, request_id),
        )
        if counted and answer is not None:
            assert answer[:2] == (counted[0], len(batch.files))

    def _repeatable(
        self,
        method: str,
        request_id: str,
        request: object,
        ours: Callable[[], None],
        theirs: Callable[[], Awaitable[T]],
    ) -> T | None:
        kept: list[object] = []

        def step() -> None:
            found = self.model.replay(method, request_id, request)
            if found is None:
                ours()
            else:
                kept.append(found)

        answer = self._both(step, theirs)
        if answer is not None:
            if kept:
                assert answer == kept[0], "the first answer again"
            self.model.keep(method, request_id, request, answer)
        return answer

    @rule(file=st.booleans())
    def cancel_unknown(self, *, file: bool) -> None:
        unknown = "00000000-0000-4000-8000-000000000000"
        if file:
            self._both(lambda: self.model.cancel(unknown, ""), lambda: self.system.cancel(unknown, "", ""))
        else:
            self._both(lambda: self.model.cancel_batch(unknown, ""), lambda: self.system.cancel_batch(unknown, "", ""))

    @precondition(lambda self: self.system.can_expire)
    @rule(ago=st.integers(0, 8))
    def expire(self, ago: int) -> None:
        before = self.model.tick + 1 - ago
        open_files = frozenset(w.file_id for w in self.writers if self.model.files[w.file_id].writer == w.number)
        ours: list[set[str]] = []
        theirs = self._both(
            lambda: ours.append(self.model.expire(before, open_files)),
            lambda: self.system.expire(before, open_files),
        )
        assert theirs == ours[0]

    @rule(kill=st.booleans())
    def restart(self, *, kill: bool) -> None:
        """Streams end; what they brought is durable after a drain, and may be after a kill."""
        self._run(self.system.restart(kill=kill))
        self.writers.clear()

    # What must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def everything_agrees(self) -> None:
        if self.model.files:
            self._run(self._check())

    async def _check(self) -> None:
        files = {file_id: await self.system.file(file_id) for file_id in self.model.files}
        for file_id, view in files.items():
            self._check_file(self.model.files[file_id], view)
        for batch in self.model.batches.values():
            self._check_batch(batch, await self.system.batch(batch.batch_id))
            assert await self.system.files_of(batch.batch_id) == [files[f.file_id] for f in batch.files]
        for status in ("pending", "uploading", "completed", "failed", "cancelled"):
            expected = {file_id for file_id, file in self.model.files.items() if file.status == status}
            assert set(await self.system.listed(status)) == expected
        self._check_audit(await self.system.audit())
        await self._check_watch()

    def _settle(self, file: File, view: FileView) -> None:
        """Durable bytes grow by themselves while a stream is open; they never shrink and never exceed what was sent."""
        assert file.durable <= view.bytes_received <= file.ceiling, f"{view.bytes_received} bytes; {file}"
        file.durable = view.bytes_received

    def _check_file(self, file: File, view: FileView) -> None:
        assert view.bytes_received >= self.recorded.get(file.file_id, 0), "recorded bytes shrank"
        self.recorded[file.file_id] = view.bytes_received
        self._settle(file, view)
        assert (view.status, view.revision) == (file.status, file.revision)
        assert (view.cancelled_by, view.cancel_reason) == (file.cancelled_by, file.reason)
        assert view.failure_reason == file.failure
        assert view.batch_id == file.batch_id
        assert bool(view.cancelled_at) == (file.status == "cancelled")
        assert bool(view.completed_at) == (file.status == "completed")
        assert view.sha256 == (digest(file.size) if file.status == "completed" else "")
        if file.status in FINAL:
            assert self.final.setdefault(file.file_id, view) == view, "a final state has changed"

    def _check_batch(self, batch: Batch, view: BatchView) -> None:
        assert (view.status, view.revision) == (batch.status, batch.revision)
        counters = (view.completed_files, view.failed_files, view.cancelled_files_count)
        assert counters == tuple(batch.count(status) for status in ("completed", "failed", "cancelled"))
        assert view.total_files == len(batch.files)
        assert (view.cancelled_by, view.cancel_reason) == (batch.cancelled_by, batch.reason)
        if view.cancelled_by == "all_files":
            views = [self.final[file.file_id] for file in batch.files]
            assert view.cancelled_at == max(file.cancelled_at for file in views)
        if batch.status in FINAL:
            assert self.final.setdefault(batch.batch_id, view) == view, "a final state has changed"

    def _check_audit(self, events: list[EventView]) -> None:
        numbers = [event.event_id for event in events]
        assert numbers == sorted(set(numbers)), "event ids must grow"
        trails: dict[str, list[tuple[str, str, str]]] = {}
        for event in events:
            key = event.file_id or event.batch_id
            trails.setdefault(key, []).append((event.from_status, event.to_status, event.actor))
        expected = {one: file.trail for one, file in self.model.files.items()}
        expected |= {one: batch.trail for one, batch in self.model.batches.items()}
        assert trails == expected

    async def _check_watch(self) -> None:
        """A watch resumed after each step tells exactly what the step has changed, in its newest state."""
        fresh = not self.token
        found, self.token = await self.system.changes(self.token)
        changed, self.model.changed = self.model.changed, set()
        expected = {one for one in changed if not (fresh and one in self.final)} if fresh else changed
        assert set(found) == expected or (fresh and expected <= set(found) <= changed)
        for key, view in found.items():
            if isinstance(view, FileView):
                self._check_file(self.model.files[key], view)
            else:
                self._check_batch(self.model.batches[key], view)


def _same_refusal(expected: Refused | None, found: Refused | None) -> None:
    assert (found and found.reason) == (expected and expected.reason), f"{found!r} instead of {expected!r}"
    if expected is not None and found is not None:
        for name, value in expected.facts.items():
            assert found.facts.get(name, value) == value, f"{found.reason}: {name} is {found.facts[name]}"
