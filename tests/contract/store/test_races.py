"""Of those who race to end a file exactly one wins, and every loser is told so."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import pytest
import pytest_asyncio

from contract.store.kit import assert_history_holds, batch_of, by_the_wall, command, counted, new_id, now, uploading
from contract.store.test_nodes import nodes_on
from upload_server.domain.errors import (
    BatchNotCancellable,
    DatabaseFailure,
    FileNotCancellable,
    FileNotWritable,
    UploadCancelled,
    UploadError,
    WriterReplaced,
)
from upload_server.domain.states import BatchStatus, FailureReason, FileStatus
from upload_server.store.open import StoreAt
from upload_server.store.protocol import Store
from upload_server.store.values import Result

ROUNDS = 300


class EachAtAnother:
    """Nodes on one store: each call goes to another one than the call before."""

    def __init__(self, nodes: Sequence[Store]) -> None:
        self._turns = itertools.cycle(nodes)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self._turns), name)


@pytest_asyncio.fixture(params=["one node", "three nodes"])
async def store(request: pytest.FixtureRequest, backend: StoreAt) -> AsyncIterator[Any]:
    if request.param == "one node":
        alone = await backend.open()
        yield alone
        await alone.close()
        return
    async with nodes_on(backend) as open_node:
        yield EachAtAnother([await open_node() for _ in range(3)])


async def outcomes(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_cancel_and_complete_race(store: Store) -> None:
    wins = dict.fromkeys(FileStatus, 0)

    async def race(round_: int) -> None:
        file = await uploading(store)
        calls = [
            store.cancel_file(file.file_id, command()),
            store.complete(file.file_id, file.fence, "", 3, command()),
            store.cancel_file(file.file_id, command()),
            store.fail(file.file_id, file.fence, FailureReason.CHECKSUM_MISMATCH, command()),
        ]
        # The store sees them in a different order each round, some in one group and some in the next.
        turned = calls[round_ % 4 :] + calls[: round_ % 4]
        tasks = []
        for index, call in enumerate(turned):
            tasks.append(asyncio.create_task(call))
            for _ in range(round_ * index % 5):
                await asyncio.sleep(0)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        won = [result for result in results if not isinstance(result, BaseException)]
        assert len(won) == 1
        after = await store.get_file(file.file_id)
        wins[after.status] += 1
        for result in results:
            if isinstance(result, UploadError):
                assert isinstance(result, FileNotCancellable | FileNotWritable | UploadCancelled | WriterReplaced)
                assert result.metadata.get("status", after.status) == after.status

    for start in range(0, ROUNDS, 30):
        await asyncio.gather(*(race(start + offset) for offset in range(30)))

    assert sum(wins.values()) == ROUNDS
    assert wins[FileStatus.CANCELLED]
    await assert_history_holds(store)


async def test_many_cancels_of_one_file(store: Store) -> None:
    for _ in range(20):
        file = await uploading(store)
        results = await outcomes(*(store.cancel_file(file.file_id, command(request_id=new_id())) for _ in range(50)))
        assert sum(isinstance(result, FileNotCancellable) for result in results) == 49
    await assert_history_holds(store)


async def test_a_batch_cancel_races_with_its_files(store: Store) -> None:
    for round_ in range(40):
        batch, ids = await batch_of(store, 6)
        claimed = [(await store.claim(file_id, 0, command())).answer.file for file_id in ids[:3]]
        calls = [
            *(store.complete(file.file_id, file.fence, "", 3, command()) for file in claimed),
            store.cancel_batch(batch.batch_id, command("CancelBatch")),
            store.cancel_file(ids[4], command()),
            store.claim(ids[5], 0, command()),
            store.cancel_batch(batch.batch_id, command("CancelBatch")),
        ]
        turned = calls[round_ % 7 :] + calls[: round_ % 7]

        results = await outcomes(*turned)

        assert not any(isinstance(result, DatabaseFailure) for result in results)
        assert sum(isinstance(result, BatchNotCancellable) for result in results) == 1
        after = await store.get_batch(batch.batch_id)
        assert (after.status, after.cancelled_by) == (BatchStatus.CANCELLED, "user")
    await assert_history_holds(store)


async def test_the_newest_of_racing_writers_has_the_file(store: Store) -> None:
    file = await uploading(store)

    claims = await asyncio.gather(*(store.claim(file.file_id, 0, command()) for _ in range(20)))

    fences = [claim.answer.file.fence for claim in claims]
    assert len(set(fences)) == 20
    recorded = await asyncio.gather(*(store.record_progress(file.file_id, fence, 2, now()) for fence in fences))
    assert [fence for fence, done in zip(fences, recorded, strict=True) if done] == [max(fences)]


async def test_expiry_races_with_a_writer(store: Store) -> None:
    for _ in range(50):
        batch, ids = await batch_of(store, 2)
        idle_since = now()
        expired, cancelled, _, claimed = await asyncio.gather(
            store.expire(by_the_wall(idle_since), [], 10, command()),
            store.cancel_file(ids[0], command()),
            *(store.claim(file_id, 0, command(at=idle_since)) for file_id in ids),
            return_exceptions=True,
        )
        after = [await store.get_file(file_id) for file_id in ids]
        assert isinstance(expired, Result)
        assert {file.file_id for file in expired.answer.files} == {
            file.file_id for file in after if file.status is FileStatus.FAILED
        }
        assert isinstance(claimed, Result) is (after[1].status is FileStatus.UPLOADING)
        assert isinstance(cancelled, FileNotCancellable) is (after[0].status is FileStatus.FAILED)
        if not (await store.get_batch(batch.batch_id)).status.final:
            await store.cancel_batch(batch.batch_id, command("CancelBatch"))
    await assert_history_holds(store)


async def test_a_caller_that_gives_up_does_not_stop_its_write(store: Store) -> None:
    files = [await uploading(store) for _ in range(20)]
    tasks = [asyncio.create_task(store.cancel_file(file.file_id, command())) for file in files]
    # One turn of the loop: the commands are queued, none is answered.
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    for task in tasks[::2]:
        with pytest.raises(asyncio.CancelledError):
            await task

    # Those that waited on, in the same group, are answered.
    assert len(await asyncio.gather(*tasks[1::2])) == 10
    # A write that was queued later is answered after those before it.
    await store.ping()
    assert await counted(store) == {**dict.fromkeys(FileStatus, 0), FileStatus.CANCELLED: 20}
