"""Several nodes on one store: each knows who lives and whose turn it is, and they number and answer as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from contract.store.kit import assert_history_holds, command, new_id, pending
from support.stores import shell
from upload_server.domain.errors import RequestIdReused
from upload_server.domain.states import FileSpec
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

    async def open_node(lease_seconds: float = 10.0) -> Store:
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
    silent, other = await open_node(lease_seconds=0.5), await open_node()
    assert (silent.leads, other.leads) == (True, False)

    while silent.lives:  # noqa: ASYNC110 - time passes by itself
        await asyncio.sleep(0.05)
    assert not silent.leads
    async with asyncio.timeout(5):
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
