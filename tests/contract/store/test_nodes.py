"""Several nodes on one store: each knows who lives and whose turn it is, and they number and answer as one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from contract.store.kit import assert_history_holds, batch_of, by_the_wall, command, new_id, now, pending
from support.stores import shell
from upload_server.domain.errors import RequestIdReused
from upload_server.domain.states import File, FileSpec, FileStatus, Source
from upload_server.store.lock import AlreadyInUse
from upload_server.store.open import StoreAt
from upload_server.store.options import StoreOptions
from upload_server.store.protocol import Store

Opening = Callable[..., Awaitable[Store]]


@asynccontextmanager
async def nodes_on(backend: StoreAt) -> AsyncIterator[Opening]:
    """Open nodes on one store; closed at the end."""
    opened: list[Store] = []
    lock = await asyncio.to_thread(backend.share)

    async def open_node(lease_seconds: float = 60.0) -> Store:
        node = await backend.open(StoreOptions(shared=True, lease_seconds=lease_seconds))
        opened.append(node)
        return node

    try:
        yield open_node
        for node in opened:
            await node.close()
    finally:
        if lock is not None:
            lock.release()


@pytest_asyncio.fixture
async def open_node(backend: StoreAt) -> AsyncIterator[Opening]:
    async with nodes_on(backend) as opening:
        yield opening


async def test_nodes_know_of_each_other_and_one_keeps_house(open_node: Opening) -> None:
    one, two = await open_node(), await open_node()
    await one.beat()

    assert one.node_id != two.node_id
    assert (tuple(one.others), tuple(two.others)) == ((two.node_id,), (one.node_id,))
    assert (one.alone, one.lives, two.lives) == (False, True, True)
    assert (one.leads, two.leads) == (True, False)

    await one.close()
    await two.beat()
    assert (tuple(two.others), two.leads) == ((), True)


async def test_a_node_that_says_nothing_is_dead_when_its_lease_is_over(open_node: Opening) -> None:
    # Long enough to open the other one in, on a machine that is busy otherwise.
    silent, other = await open_node(lease_seconds=2.0), await open_node()
    assert (silent.leads, other.leads) == (True, False)

    while silent.lives:  # noqa: ASYNC110 - time passes by itself
        await asyncio.sleep(0.05)
    assert not silent.leads
    async with asyncio.timeout(30):
        while other.others:
            await other.beat()
    assert other.leads

    # It comes back, and finds its turn taken.
    await silent.beat()
    assert (silent.lives, silent.leads, tuple(silent.others)) == (True, False, (other.node_id,))


async def test_who_is_alone_is_no_node(backend: StoreAt, kind: str) -> None:
    store = await backend.open()
    await store.beat()

    assert (store.lives, store.leads, tuple(store.others)) == (True, True, ())
    assert store.alone is (kind == "sqlite")
    await store.close()


async def test_nothing_is_left_of_nodes_that_left(open_node: Opening, url: str) -> None:
    await (await open_node()).close()
    with shell(url) as hand:
        for table in ("node", "lease", "stream_stop"):
            [(rows,)] = hand.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - names of tables
            assert rows == 0, table


async def test_whoever_has_a_store_to_itself_forgets_nodes_that_died(backend: StoreAt, url: str) -> None:
    """On PostgreSQL others may live: there the first to keep house forgets them, an hour later."""
    lock = await asyncio.to_thread(backend.share)
    died = await backend.open(StoreOptions(shared=True))

    async def nothing() -> None:
        """What a dead process says."""

    died.leave = nothing  # type: ignore[attr-defined]
    await died.close()
    if lock is not None:
        lock.release()
    with shell(url) as hand:
        hand.execute("UPDATE node SET lives_until = '2020-01-01 00:00:00'")
        hand.execute("UPDATE lease SET until = '2020-01-01 00:00:00'")

    store = await backend.open()
    with shell(url) as hand:
        [(rows,)] = hand.execute("SELECT count(*) FROM node")
    assert rows == (0 if store.alone else 1)
    await store.close()


async def test_a_shared_store_is_closed_to_who_wants_it_alone(backend: StoreAt, kind: str) -> None:
    async with nodes_on(backend) as open_node:
        await open_node()
        assert await asyncio.to_thread(backend.holder)
        with pytest.raises(AlreadyInUse, match=r"is in use by another upload-server \(pid \d+( on \S+)?\)"):
            await asyncio.to_thread(backend.lock)
        if kind == "sqlite":
            with pytest.raises(AlreadyInUse):
                await backend.open()
    (await asyncio.to_thread(backend.lock)).release()


async def test_one_request_id_at_two_nodes_is_one_call(open_node: Opening) -> None:
    one, two = await open_node(), await open_node()
    for _ in range(30):
        spec, request_id = FileSpec("a", 1), new_id()
        made = await asyncio.gather(
            *(
                node.initiate_upload(spec, new_id(), command("InitiateUpload", request_id, b"f"))
                for node in (one, two, one, two)
            )
        )
        assert len({result.answer.file_id for result in made}) == 1
        assert sum(not result.replayed for result in made) == 1
        file_id = made[0].answer.file_id
        asked = command("CancelFile", new_id(), b"f")
        cancels = await asyncio.gather(*(node.cancel_file(file_id, asked) for node in (two, one)))
        assert cancels[0].answer == cancels[1].answer
        assert [result.replayed for result in cancels].count(False) == 1
        with pytest.raises(RequestIdReused):
            await one.cancel_file(file_id, asked._replace(fingerprint=b"g"))
    await assert_history_holds(two)


async def test_numbers_of_two_nodes_are_one_row(open_node: Opening) -> None:
    one, two = await open_node(), await open_node()

    files = await asyncio.gather(*(pending(node) for _ in range(100) for node in (one, two)))

    assert sorted(file.change_no for file in files) == list(range(1, 201))
    await assert_history_holds(one)


# Open files -----------------------------------------------------------------------------------------------------------


async def claim(node: Store, file: File) -> File:
    """Open a file that waits or that another stream has."""
    return (await node.claim(file.file_id, 0, command("UploadFile"))).answer.file


async def stops(node: Store) -> list[tuple[str, int, FileStatus]]:
    """The streams of a node that have to end: file, fence, and what became of the file."""
    return [(stop.file.file_id, stop.fence, stop.file.status) for stop in (await node.look()).stops]


async def test_whoever_ends_a_file_leaves_a_stop_for_the_node_that_has_it(open_node: Opening) -> None:
    holder, other = await open_node(), await open_node()
    batch, ids = await batch_of(holder, 3)
    alone = await claim(holder, await pending(holder))
    taken = await claim(holder, await pending(holder))
    ones = [await claim(holder, await holder.get_file(file_id)) for file_id in ids[:2]]

    await other.cancel_file(alone.file_id, command(reason="enough"))
    await other.cancel_batch(batch.batch_id, command("CancelBatch"))
    newest = await claim(other, taken)

    assert sorted(await stops(holder)) == sorted(
        [
            (alone.file_id, alone.fence, FileStatus.CANCELLED),
            *((one.file_id, one.fence, FileStatus.CANCELLED) for one in ones),
            (taken.file_id, taken.fence, FileStatus.UPLOADING),
        ]
    )
    found = {stop.file.file_id: stop for stop in (await holder.look()).stops}
    assert found[alone.file_id].file.cancel_reason == "enough"
    assert found[taken.file_id].file.fence == newest.fence
    assert await stops(other) == []

    await holder.settle_stops(list(found.values()))
    assert await stops(holder) == []
    # What a node ends itself it need not be told of.
    await other.cancel_file(taken.file_id, command())
    assert await stops(other) == await stops(holder) == []


async def test_a_debt_that_two_nodes_settle_is_no_other_files(open_node: Opening) -> None:
    """Its number in the table may have been given again before the slower one settles it."""
    one, two = await open_node(), await open_node()
    for number in range(3):
        file = await claim(one, await pending(one))
        await one.release(file.file_id, file.fence)
        await one.cancel_file(file.file_id, command())
        debts = [await node.owed_deletions(10) for node in (one, two)]
        assert [debt.file_id for debt in debts[0]] == [file.file_id], number
        await one.settle_deletions([debt.row for debt in debts[0]])
        later = await claim(one, await pending(one))
        await one.release(later.file_id, later.fence)
        await one.cancel_file(later.file_id, command())

        await two.settle_deletions([debt.row for debt in debts[1]])

        left = await one.owed_deletions(10)
        assert [debt.file_id for debt in left] == [later.file_id]
        await one.settle_deletions([debt.row for debt in left])


async def test_nobody_is_told_of_files_that_no_other_node_has(open_node: Opening, url: str) -> None:
    holder, other = await open_node(), await open_node()
    left, waiting = await claim(holder, await pending(holder)), await pending(holder)
    await holder.release(left.file_id, left.fence)

    for file in (left, waiting):
        await other.cancel_file(file.file_id, command())

    with shell(url) as hand:
        [(rows,)] = hand.execute("SELECT count(*) FROM stream_stop")
    assert rows == 0


async def test_a_file_that_another_node_has_open_does_not_expire(open_node: Opening) -> None:
    holder, other = await open_node(), await open_node()
    opened, left = [await claim(holder, await pending(holder)) for _ in range(2)]
    # A file of a batch waits for the others.
    _, (of_batch, waiting) = await batch_of(holder, 2)
    one = await claim(holder, await holder.get_file(of_batch))
    await holder.release(left.file_id, left.fence)
    # An older stream of the file lets go late, and changes nothing.
    await holder.release(opened.file_id, opened.fence - 1)

    async def expire(node: Store) -> set[str]:
        result = await node.expire(by_the_wall(now()), [], 10, command("Expire", source=Source.EXPIRY))
        return {file.file_id for file in result.answer.files}

    assert await expire(other) == {left.file_id}
    assert (await holder.get_file(waiting)).status is FileStatus.PENDING
    # The node itself says what it has open.
    assert await holder.expire(by_the_wall(now()), [opened.file_id, one.file_id], 10, command("Expire"))
    assert (await other.get_file(opened.file_id)).status is FileStatus.UPLOADING
    await holder.close()
    assert await expire(other) >= {opened.file_id, one.file_id}
    await assert_history_holds(other)


async def test_a_dead_node_has_nothing_open(open_node: Opening, url: str) -> None:
    dead, other = await open_node(), await open_node()
    file = await claim(dead, await pending(dead))
    gone = await claim(dead, await pending(dead))
    await other.cancel_file(gone.file_id, command())
    assert await other.held_elsewhere([file.file_id, gone.file_id]) == {file.file_id, gone.file_id}
    assert await other.owed_deletions(10) == []
    assert [one.file_id for one in await dead.owed_deletions(10)] == [gone.file_id]

    with shell(url) as hand:
        # As once its lease is over.
        hand.execute(f"UPDATE node SET lives_until = '2000-01-01 00:00:00.000000' WHERE node_id = '{dead.node_id}'")  # noqa: S608

    assert await other.held_elsewhere([file.file_id]) == set()
    assert [one.file_id for one in await other.owed_deletions(10)] == [gone.file_id]
    expired = await other.expire(by_the_wall(now()), [], 10, command("Expire", source=Source.EXPIRY))
    assert [one.file_id for one in expired.answer.files] == [file.file_id]


async def test_a_look_says_whether_anything_was_committed(open_node: Opening) -> None:
    one, two = await open_node(), await open_node()
    assert [(await one.look()).changed for _ in range(2)] == [False, False]

    file = await pending(two)

    assert [(await one.look()).changed for _ in range(2)] == [True, False]
    assert one.last_change == file.change_no


async def test_a_commit_rings_at_the_other_nodes(open_node: Opening) -> None:
    one, two = await open_node(), await open_node()
    await one.beat()
    rung = asyncio.Event()
    two.on_bell(rung.set)
    one.on_commit(lambda _: None)

    async with asyncio.timeout(30):
        while not rung.is_set():
            # Whoever listens has to have begun to.
            await pending(one)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(rung.wait(), 0.2)
