"""Changes in order of their numbers: what a watch is made of. Nothing is lost, nothing comes twice or backwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from contract.store.kit import (
    EVERYTHING,
    assert_history_holds,
    batch_of,
    command,
    completed,
    everything,
    finish,
    id_of,
    new_id,
    pending,
    uploading,
)
from upload_server.domain.errors import BatchNotFound, FileNotFound, UploadError
from upload_server.domain.states import Batch, File
from upload_server.store.protocol import Store
from upload_server.store.values import Audited, Change, Changes, Commit, Result, Targets


async def read_all(
    store: Store, targets: Targets, after: int = 0, page: int = 3, sees: str | None = None
) -> list[Change]:
    found: list[Change] = []
    while True:
        changes = await store.read_changes(targets, sees, after, page)
        assert len(changes.changes) <= page
        found += changes.changes
        if changes.complete:
            return found
        assert changes.changes
        after = found[-1].no


async def test_numbers_follow_each_other_in_order_of_commits(store: Store) -> None:
    file = await pending(store)
    batch, ids = await batch_of(store, 2)
    claimed = (await store.claim(ids[0], 0, command())).answer.file

    # One number for each changed row; the claim changed a file and its batch.
    assert (file.change_no, batch.change_no, claimed.change_no, store.last_change) == (1, 4, 5, 6)
    assert [change.no for change in await everything(store)] == [1, 3, 5, 6]
    assert (await store.get_batch(batch.batch_id)).change_no == 6


async def test_reading_goes_on_after_a_number_with_or_without_a_limit(store: Store) -> None:
    files = [await pending(store) for _ in range(5)]

    first = await store.read_changes(EVERYTHING, None, 0, 3)
    rest = await store.read_changes(EVERYTHING, None, first.changes[-1].no, 3)
    nothing = await store.read_changes(EVERYTHING, None, rest.changes[-1].no, 3)

    assert [change.record for change in (*first.changes, *rest.changes)] == files
    assert (first.complete, rest.complete, nothing.complete) == (False, True, True)
    assert nothing == Changes((), complete=True, last_change=5)
    assert (await store.read_changes(EVERYTHING, None, 0, 5)).complete
    assert (await store.read_changes(EVERYTHING, None, 99, 5)).changes == ()


@pytest.mark.parametrize("page", [1, 4, 1000])
async def test_named_targets_are_read_like_everything_filtered(store: Store, page: int) -> None:
    chance = random.Random(7)
    singles = [await pending(store) for _ in range(6)]
    batches = [await batch_of(store, size) for size in (1, 5, 9)]
    members = [file_id for _, ids in batches for file_id in ids]
    for file_id in chance.sample(members, 8):
        await store.cancel_file(file_id, command())
    await store.claim(singles[2].file_id, 0, command())
    changes = await everything(store)

    for _ in range(40):
        named = frozenset(chance.sample([*members, *(file.file_id for file in singles)], 5))
        chosen = frozenset(batch.batch_id for batch, _ in chance.sample(batches, chance.randint(0, 3)))
        with_files, after = chance.random() < 0.5, chance.randint(0, store.last_change)
        expected = [
            change
            for change in changes
            if change.no > after
            and (
                id_of(change.record) in named | chosen
                or (with_files and isinstance(change.record, File) and change.record.batch_id in chosen)
            )
        ]
        assert await read_all(store, Targets(named, chosen, with_files), after, page) == expected


async def test_what_was_final_can_be_left_out(store: Store) -> None:
    done, waiting = await completed(store), await pending(store)
    batch, ids = await batch_of(store, 3)
    await store.cancel_file(ids[0], command())
    seen = store.last_change
    later = await completed(store)
    targets = Targets(
        frozenset({done.file_id, waiting.file_id, later.file_id}),
        frozenset({batch.batch_id}),
        include_batch_files=True,
    )
    expected = [waiting.file_id, *ids[1:], batch.batch_id, later.file_id]

    for asked in (EVERYTHING, targets):
        for page in (1, 2, 100):
            found: list[Change] = []
            after, complete = 0, False
            while not complete:
                changes = await store.read_changes(asked, None, after, page, skip_final_upto=seen)
                found += changes.changes
                complete = changes.complete
                after = found[-1].no
            assert [id_of(change.record) for change in found] == expected


async def test_changes_of_others_are_not_there(store: Store) -> None:
    mine = await pending(store, principal="bob")
    theirs = await pending(store, principal="ann")
    batch, ids = await batch_of(store, 2, principal="ann")
    await pending(store)
    named = Targets(
        frozenset({mine.file_id, theirs.file_id, ids[0]}), frozenset({batch.batch_id}), include_batch_files=True
    )

    for targets in (EVERYTHING, named):
        assert [change.record for change in await read_all(store, targets, sees="bob")] == [mine]
        assert len(await read_all(store, targets, sees="ann")) == 4
        assert len(await read_all(store, targets)) == (6 if targets.all else 5)
        assert await read_all(store, targets, sees="eve") == []
    await store.cancel_file(theirs.file_id, command(principal="ann"))
    for targets in (EVERYTHING, named):
        for sees, finals in (("bob", 0), ("ann", 1), (None, 1)):
            skipped = await store.read_changes(targets, sees, 0, 100, skip_final_upto=store.last_change)
            assert len(skipped.changes) == len(await read_all(store, targets, sees=sees)) - finals


async def test_targets_are_checked_and_read(store: Store) -> None:
    file = await pending(store)
    batch, ids = await batch_of(store, 2)
    await store.cancel_file(file.file_id, command())

    found = await store.check_targets(
        Targets(frozenset({file.file_id, ids[1]}), frozenset({batch.batch_id}), include_batch_files=True), None
    )

    assert [id_of(change.record) for change in found.changes] == [ids[1], batch.batch_id, file.file_id]
    assert found.last_change == store.last_change
    with pytest.raises(FileNotFound):
        await store.check_targets(Targets(frozenset({file.file_id, new_id()})), None)
    with pytest.raises(FileNotFound):
        await store.check_targets(Targets(frozenset({file.file_id})), "ann")
    with pytest.raises(BatchNotFound):
        await store.check_targets(Targets(frozenset(), frozenset({new_id()})), None)


async def test_ten_thousand_files_of_a_batch_are_read_by_pages(store: Store) -> None:
    batch, ids = await batch_of(store, 10_000)
    targets = Targets(frozenset(), frozenset({batch.batch_id}), include_batch_files=True)

    found = await read_all(store, targets, page=1000)

    assert [id_of(change.record) for change in found] == [*ids, batch.batch_id]


async def test_the_listener_is_called_after_commits_that_changed_a_row(store: Store) -> None:
    heard: list[int] = []
    store.on_commit(lambda _: heard.append(store.last_change))

    file = await uploading(store)
    assert heard == [1, 2]
    await store.record_progress(file.file_id, file.fence, 1, command().at)
    await store.claim(file.file_id, 1, command())
    with pytest.raises(FileNotFound):
        await store.cancel_file(new_id(), command())
    await store.get_file(file.file_id)
    assert heard == [1, 2]
    await store.cancel_file(file.file_id, command())
    assert heard == [1, 2, 3]


async def test_the_listener_hears_of_each_write_before_its_caller_and_of_no_replay(store: Store) -> None:
    heard: list[Commit] = []
    store.on_commit(heard.extend)
    began = time.monotonic()
    files = await asyncio.gather(*(pending(store) for _ in range(3)))
    batch, _ = await batch_of(store, 100)

    async def known(write: Awaitable[Result[Any]]) -> Audited:
        """What a write left, once the listener has heard of it: before the caller."""
        audited = (await write).audited
        assert audited in [commit.audited for commit in heard]
        return audited

    left = await asyncio.gather(
        known(store.cancel_batch(batch.batch_id, command("CancelBatch", "one"))),
        *(known(store.cancel_file(file.file_id, command())) for file in files),
    )
    took = time.monotonic() - began

    assert (len(heard), left[0].files) == (8, 100)
    assert all(commit.audited.events and 0 < commit.seconds <= took for commit in heard)
    assert (await store.cancel_batch(batch.batch_id, command("CancelBatch", "one"))).replayed
    assert len(heard) == 8


async def test_the_listener_hears_of_a_write_whose_caller_has_left(store: Store) -> None:
    heard: asyncio.Queue[Sequence[Commit]] = asyncio.Queue()
    store.on_commit(heard.put_nowait)
    writing = asyncio.create_task(pending(store))
    await asyncio.sleep(0)
    writing.cancel()
    async with asyncio.timeout(30):
        (commit,) = await heard.get()
    assert commit.audited.events[0].to_status == "pending"


async def test_callers_have_their_answer_even_if_the_listener_fails(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Sequence[Commit]) -> None:
        raise RuntimeError("a bug")

    store.on_commit(fail)
    async with asyncio.timeout(30):
        file = await pending(store)
        assert await store.get_file(file.file_id) == file
    assert "a bug" in caplog.text


class Follower:
    """A watcher of everything: reads after its cursor whenever it likes, and keeps what it saw."""

    def __init__(self, store: Store, targets: Targets, page: int) -> None:
        self._store, self._targets, self._page = store, targets, page
        self._cursor = 0
        self.seen: dict[str, File | Batch] = {}

    async def read(self) -> bool:
        """Read one page; False when there was nothing."""
        changes = await self._store.read_changes(self._targets, None, self._cursor, self._page)
        for change in changes.changes:
            assert change.no > self._cursor
            self._cursor = change.no
            record = change.record
            before = self.seen.get(id_of(record))
            if before is not None:
                assert record.revision > before.revision
                assert not (isinstance(record, File) and before.status.final)
            self.seen[id_of(record)] = record
        if changes.complete:
            # The cursor may go on to the end of the snapshot: nothing below it is left.
            self._cursor = max(self._cursor, changes.last_change)
        return bool(changes.changes)


async def change_at_random(store: Store, chance: random.Random, ids: Sequence[str]) -> None:
    file_id = chance.choice(ids)
    try:
        match chance.randint(0, 3):
            case 0:
                await store.cancel_file(file_id, command())
            case 1:
                await store.claim(file_id, 0, command())
            case 2:
                await finish(store, await store.get_file(file_id))
            case _:
                await batch_of(store, chance.randint(1, 3))
    except UploadError:
        pass


async def test_no_change_is_lost_while_writers_run(store: Store) -> None:
    batches = [await batch_of(store, 20) for _ in range(8)]
    ids = [file_id for _, members in batches for file_id in members]
    named = Targets(frozenset(ids[:7]), frozenset(batch.batch_id for batch, _ in batches), include_batch_files=True)
    followers = [
        Follower(store, EVERYTHING, 1),
        Follower(store, EVERYTHING, 7),
        Follower(store, EVERYTHING, 500),
        Follower(store, named, 3),
        Follower(store, named, 500),
    ]
    writing = True

    async def write(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            await change_at_random(store, chance, ids)

    async def follow(follower: Follower) -> None:
        while writing:
            await follower.read()
        while await follower.read():
            pass

    following = [asyncio.create_task(follow(follower)) for follower in followers]
    await asyncio.gather(*(write(seed) for seed in range(12)))
    await store.cancel_batch(batches[0][0].batch_id, command())
    writing = False
    await asyncio.gather(*following)

    current = {id_of(change.record): change.record for change in await everything(store)}
    of_named = {
        key: record
        for key, record in current.items()
        if key in named.file_ids | named.batch_ids or (isinstance(record, File) and record.batch_id in named.batch_ids)
    }
    for follower in followers:
        expected = of_named if follower in followers[3:] else current
        # Progress and take-overs are no changes: what they touch is compared by revision.
        assert {key: (row.revision, row.status) for key, row in follower.seen.items()} == {
            key: (row.revision, row.status) for key, row in expected.items()
        }
    await assert_history_holds(store)
