"""Decides when bytes nobody may have any more are deleted, and when uploads nobody sends to are given up.

Must not know who cancelled, nor through which door. Rows decide what is deleted, never what lies in a folder;
only a draft that no row knows is deleted by its mark.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from typing import TypeVar, TypeVarTuple

import structlog

from upload_server.domain.caller import Caller
from upload_server.domain.errors import UploadError
from upload_server.domain.observer import Observer
from upload_server.domain.runs import WHOLE
from upload_server.domain.states import FileStatus, Source
from upload_server.ingest import Ingest
from upload_server.sink.protocol import Doomed, Sink, SinkError, Stored
from upload_server.store.protocol import Store
from upload_server.store.values import Command, Commit, Moment, OwedDeletion

log = structlog.get_logger(__name__)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# Rows taken at once: of deletions owed, of answers to forget, of files that the sink holds.
_PAGE = 500
# Files that expire in one transaction: a cancel that comes meanwhile waits for its end.
_EXPIRED_AT_ONCE = 200
# Files deleted by one hop to a thread: they share their syncs, and are settled together.
_DELETED_AT_ONCE = 100
# Deletions put aside at most; with more than that the disk is broken, and a round ends.
_MAX_ASIDE = 10_000
# A deletion waits so long for a stream that still holds the file, and then for its next turn.
_OPEN_SECONDS = 1.0
# All of the storage is looked through that often, and by each node that has begun to keep house for all.
_SWEEP_SECONDS = 3600.0
_BREATH_SECONDS = 0.1
# However short the TTL is, rounds are no closer.
_SHORTEST_ROUND = 1.0
# Whatever was sent of such a file is to go.
_GIVEN_UP = frozenset({FileStatus.CANCELLED, FileStatus.FAILED})


class Janitor:
    """Deletes what is owed deletion, expires stalled uploads, forgets old answers. ``run`` it until it is cancelled.

    Times are seconds. ``interval`` is how often it looks by itself; failed deletions are tried again that often. Of
    several nodes the one that leads sweeps the storage, at once and then every ``sweep_interval``.
    For ``expiry_grace`` after a start, and at most for the TTL, nothing expires: clients come back.
    """

    def __init__(
        self,
        store: Store,
        sink: Sink,
        ingest: Ingest,
        *,
        clock: Callable[[], datetime],
        upload_ttl: float,
        request_ttl: float,
        expiry_grace: float = 0.0,
        interval: float = 30.0,
        sweep_interval: float = _SWEEP_SECONDS,
        observer: Observer,
    ) -> None:
        self._store = store
        self._sink = sink
        self._ingest = ingest
        self._clock = clock
        self._upload_ttl = upload_ttl
        self._request_ttl = request_ttl
        self._expires_from = store.served + min(expiry_grace, upload_ttl)
        self._interval = interval
        self._sweep_interval = sweep_interval
        self._observer = observer
        self._nudged = asyncio.Event()
        self._first_deletions = asyncio.Event()
        # Deletions that have to wait, by row: when (loop time) they are tried again.
        self._aside: dict[int, float] = {}
        # Those of them that are carried out for the second time then.
        self._looked_at: set[int] = set()
        self._pool: ThreadPoolExecutor | None = None

    def nudge(self) -> None:
        """Say that deletions may be owed; they are carried out soon."""
        self._nudged.set()

    def nudge_if_owed(self, commits: Sequence[Commit]) -> None:
        """Nudge if one of these left bytes owed: a file or batch that nobody ever sent to owes none."""
        for commit in commits:
            if commit.audited.leaves_bytes:
                self.nudge()
                return
            for event in commit.audited.events:
                if event.to_status in _GIVEN_UP and event.from_status != FileStatus.PENDING:
                    self.nudge()
                    return

    async def run(self) -> None:
        """Keep house. An error of one step is logged; the step has its turn again in the next round."""
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="janitor")
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._deletions())
                group.create_task(self._rounds())
                group.create_task(self._sweep())
        finally:
            # What is under way there must not hold up the loop.
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _deletions(self) -> None:
        broken = False
        while True:
            # Whoever ended a file, or its stream, is nudged; what dead nodes have left is left to one of the others.
            if self._nudged.is_set() or self._aside or broken or self._store.leads:
                self._nudged.clear()
                broken = not await take_step("deletion", self.delete_owed())
            self._first_deletions.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_next_deletion()):
                    await self._nudged.wait()

    async def _rounds(self) -> None:
        while True:
            if self._store.leads:
                await take_step("expiry", self.expire())
                await take_step("forgetting of answers", self.forget_answers())
            await self._keep_served()
            await asyncio.sleep(self._seconds_to_next_round())

    async def _keep_served(self) -> None:
        # What a full disk does not take now, the next transaction keeps.
        with contextlib.suppress(UploadError):
            await self._store.keep_served()

    def _seconds_to_next_round(self) -> float:
        # With a short TTL as often as that; and as soon as the grace after a start is over.
        wait = min(self._interval, max(self._upload_ttl, _SHORTEST_ROUND))
        grace = self._expires_from - self._store.served
        return min(wait, grace + _SHORTEST_ROUND / 10) if grace > 0 else wait

    async def _sweep(self) -> None:
        # Owed deletions go first: somebody waits for them, and once done they are no orphans.
        await self._first_deletions.wait()
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            if not self._store.leads:
                due = now()
                self._observer.orphans_counted(0)
            elif now() >= due and await take_step("orphan sweep", self.sweep_orphans()):
                due = now() + self._sweep_interval
            await asyncio.sleep(min(self._interval, self._sweep_interval))

    # Deletions owed ------------------------------------------------------------------------------------------------

    async def delete_owed(self) -> int:
        """Delete what is owed now, as far as it can be; returns how many deletions were settled."""
        settled = 0
        while len(self._aside) < _MAX_ASIDE:
            self._forget_aside()
            owed = await self._store.owed_deletions(_PAGE + len(self._aside))
            due = [one for one in owed if one.row not in self._aside]
            if not due:
                break
            for first in range(0, len(due), _DELETED_AT_ONCE):
                settled += await self._delete(due[first : first + _DELETED_AT_ONCE])
        return settled

    async def _delete(self, due: Sequence[OwedDeletion]) -> int:
        deletable = await self._deletable(due)
        if not deletable:
            return 0
        outcomes = await self._hop(self._sink.delete_all, list(deletable.values()))
        done = [one for one in deletable if isinstance(outcomes[one.file_id], int) and not self._looks_again(one)]
        # Only now: a crash in between finds the row again, and nothing to delete.
        left_over = [one.row for one in done if deletable[one].kept is not None]
        await self._store.settle_deletions([one.row for one in done if deletable[one].kept is None], left_over)
        for one in deletable:
            outcome = outcomes[one.file_id]
            if isinstance(outcome, SinkError):
                self._put_aside(one, self._interval)
                log.error("bytes could not be deleted", file_id=one.file_id, reason=outcome.reason, error=repr(outcome))
        self._report(sum(outcome for outcome in outcomes.values() if isinstance(outcome, int)), len(done))
        return len(done)

    async def _deletable(self, due: Sequence[OwedDeletion]) -> dict[OwedDeletion, Doomed]:
        """Those whose row allows it and whose file no stream holds, with what is to go; the others are put aside."""
        names = await self._store.names_of([one.file_id for one in due])
        allowed: dict[OwedDeletion, Doomed] = {}
        for one in due:
            named = names.get(one.file_id)
            if named is None or not named.status.final:
                self._put_aside(one, self._interval)
                status = named and named.status
                log.error("a deletion is owed for a file that may keep its bytes", file_id=one.file_id, status=status)
            else:
                # A completed file that has content keeps the bytes that its row names, and no others.
                kept = named.kept
                # A node that died may have left a whole file, before a stream sent it once more.
                fences = named.fences if kept is not None else (*named.fences, WHOLE)
                allowed[one] = Doomed(one.file_id, fences, kept)
        await self._wait_closed([one.file_id for one in allowed if self._ingest.is_open(one.file_id)])
        for one in allowed:
            if self._ingest.is_open(one.file_id):
                self._put_aside(one, _OPEN_SECONDS)
        return {one: doomed for one, doomed in allowed.items() if one.row not in self._aside}

    def _looks_again(self, one: OwedDeletion) -> bool:
        """Whether what was deleted just now has to be deleted once more: what was sent before may still arrive."""
        if not self._sink.second_look or one.row in self._looked_at:
            self._looked_at.discard(one.row)
            return False
        self._looked_at.add(one.row)
        self._put_aside(one, self._sink.second_look)
        return True

    async def _wait_closed(self, file_ids: Sequence[str]) -> None:
        """Wait for streams that a cancel has just stopped: each has one more hop to a thread to finish."""
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                for file_id in file_ids:
                    await self._ingest.wait_closed(file_id)
        except TimeoutError:
            log.warning("cancelled files are still held by their streams", files=len(file_ids))

    def _put_aside(self, one: OwedDeletion, seconds: float) -> None:
        self._aside[one.row] = asyncio.get_running_loop().time() + seconds

    def _forget_aside(self) -> None:
        now = asyncio.get_running_loop().time()
        self._aside = {row: until for row, until in self._aside.items() if until > now}

    def _seconds_to_next_deletion(self) -> float:
        if not self._aside:
            return self._interval
        # At least a moment: a deletion that waits must not make this loop spin.
        wait = min(self._aside.values()) - asyncio.get_running_loop().time()
        return min(max(wait, 0.05), self._interval)

    def _report(self, freed: int, files: int) -> None:
        if files:
            self._observer.bytes_reclaimed(freed)
            log.info("bytes deleted", files=files, bytes=freed)

    # Expiry and answers --------------------------------------------------------------------------------------------

    async def expire(self) -> int:
        """Fail files nobody has sent to for ``upload_ttl`` by both clocks; returns how many."""
        expired = 0
        while self._store.served >= self._expires_from:
            now = self._now()
            command = Command(Caller(Source.EXPIRY), "Expire", now.at)
            open_files = self._ingest.open_file_ids()
            result = await self._store.expire(now.earlier(self._upload_ttl), open_files, _EXPIRED_AT_ONCE, command)
            expired += len(result.answer.files)
            if result.answer.looked_at < _EXPIRED_AT_ONCE:
                break
        return expired

    async def forget_answers(self) -> int:
        """Forget stored answers older than ``request_ttl`` by both clocks; returns how many."""
        forgotten = 0
        while True:
            count = await self._store.forget_answers(self._now().earlier(self._request_ttl), _PAGE)
            forgotten += count
            if count < _PAGE:
                break
        return forgotten

    def _now(self) -> Moment:
        return Moment(self._clock(), self._store.served)

    # Orphans -------------------------------------------------------------------------------------------------------

    async def sweep_orphans(self) -> int:
        """Delete what lies in the sink that no file keeps, as their rows say, and report how much stays; returns of how
        many it did.

        That is all of files that are cancelled or failed, and of others what no run of theirs is named by.

        Bytes without a row are left alone and logged, unless they are a draft: that is what a crash leaves between the
        bytes of a file and its row. Without a row it is deleted, with one it ceases to be a draft. No other crash of
        ours makes bytes without a row: it is there before its first byte and is never deleted. They mean that the
        database is an older backup, or not this folder's at all; they may be the only copy of a completed file then.
        """
        deleted = unknown = remaining = 0
        everything = self._sink.stored(_say_unreadable, unfinished=True)
        while page := await self._hop(_take, everything):
            file_ids = [one.file_id for one in page]
            # Asked before the rows are read: the row of a draft that nobody holds then does not come any more.
            drafts = {one for one in await self._hop(self._sink.drafts, file_ids) if not self._ingest.is_open(one)}
            deserted = await self._deserted(drafts)
            names = await self._store.names_of(file_ids)
            held = await self._store.held_elsewhere(file_ids)
            orphans, stays = list[Doomed](), list[Doomed]()
            for file_id, found in page:
                named = names.get(file_id)
                if named is None:
                    if file_id not in drafts and not self._ingest.is_open(file_id):
                        stays.append(Doomed(file_id, found))
                elif (left := named.left_over(found)) and not (self._ingest.is_open(file_id) or file_id in held):
                    orphans.append(Doomed(file_id, left))
            unknown += len(stays)
            # Those of a file that is announced make way for its next sender.
            undecided = [one for one in deserted if one not in names or names[one].status is FileStatus.PENDING]
            orphans += [Doomed(one, (WHOLE,)) for one in undecided]
            kept = [one for one in drafts if one in names and names[one].keeps(WHOLE)]
            try:
                await self._hop(self._sink.keep, kept)
            except SinkError as error:
                log.warning("drafts stay drafts until the next start", error=repr(error))
            for first in range(0, len(orphans), _DELETED_AT_ONCE):
                failed = await self._delete_orphans(some := orphans[first : first + _DELETED_AT_ONCE])
                deleted += len(some) - len(failed)
                stays += failed
            remaining += await self._hop(self._sizes, stays)
            if len(page) == _PAGE:
                # A walk through a large storage leaves room for others.
                await asyncio.sleep(_BREATH_SECONDS)
        self._observer.orphans_counted(remaining)
        if unknown:
            log.warning("bytes without a row are left alone: is this the right database?", files=unknown)
        return deleted

    async def _deserted(self, drafts: Collection[str]) -> Collection[str]:
        """Those drafts whose row, if it is not there by now, does not come any more: none while other nodes live."""
        if drafts and not self._store.alone:
            # Whoever made one of them lives now, or is dead.
            await self._store.beat()
        return () if self._store.others else drafts

    async def _delete_orphans(self, orphans: Sequence[Doomed]) -> list[Doomed]:
        """Delete them; returns those that the sink did not let go of."""
        outcomes = await self._hop(self._sink.delete_all, orphans)
        for file_id, outcome in outcomes.items():
            if isinstance(outcome, SinkError):
                log.error("an orphan could not be deleted", file_id=file_id, reason=outcome.reason, error=repr(outcome))
        freed = [outcome for outcome in outcomes.values() if isinstance(outcome, int)]
        self._report(sum(freed), len(freed))
        return [one for one in orphans if isinstance(outcomes[one.file_id], SinkError)]

    def _sizes(self, stays: Sequence[Doomed]) -> int:
        return sum(self._sink.size_under(one.file_id, one.fences) for one in stays)

    async def _hop(self, work: Callable[[*Ts], T], *args: *Ts) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)


async def take_step(name: str, work: Coroutine[object, object, object]) -> bool:
    """Take a step of upkeep; returns whether it came to its end. A bug is logged: the step has its turn again."""
    try:
        await work
    except Exception:
        log.exception("janitor step failed", step=name)
        return False
    return True


def _say_unreadable(error: SinkError) -> None:
    log.error("a folder of the storage cannot be read", reason=error.reason, error=repr(error))


def _take(everything: Iterator[Stored]) -> list[Stored]:
    return list(islice(everything, _PAGE))
