"""Nodes on PostgreSQL write side by side: who is stopped between its reads and its COMMIT holds up those alone who want
the same, and whoever wants the same decides by what the other has left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from contract.store.kit import assert_history_holds, batch_of, command, everything, new_id, now, pending
from support import postgres
from support.stores import shell
from upload_server.domain.errors import DatabaseFailure, FileNotCancellable, FileNotWritable, NotInState
from upload_server.domain.states import File, FileSpec, FileStatus
from upload_server.store.commands.cancelling import CancelFile
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Wants, Write
from upload_server.store.open import store_at
from upload_server.store.postgresql import statements as own
from upload_server.store.protocol import Store
from upload_server.store.sql.dialect import Sql
from upload_server.store.values import Changes, Result, Targets

# Nobody waits for so long who is not held up, and a node is stopped for longer.
HELD_UP_SECONDS = 15.0
STOPPED_SECONDS = 30.0


@pytest.fixture
def url() -> str:
    return postgres.server().new_store()


@pytest_asyncio.fixture
async def nodes(url: str) -> AsyncIterator[Sequence[Store]]:
    opened = [await store_at(url).open() for _ in range(2)]
    yield opened
    for node in opened:
        await node.close()


class Stopped(Write[Result[object]]):
    """A cancel whose node is stopped right before its COMMIT."""

    def __init__(self, cancel: CancelFile) -> None:
        self._cancel = cancel
        self.reached, self.go_on = threading.Event(), threading.Event()

    @property
    def wants(self) -> Wants:
        return self._cancel.wants

    def run(self, transaction: Transaction) -> Result[object]:
        [outcome] = CancelFile.run_all(transaction, [self._cancel])
        self.reached.set()
        self.go_on.wait(STOPPED_SECONDS)
        assert isinstance(outcome, Result)
        return outcome


def keep_session(node: Store) -> None:
    """Have the server not end the session of a node's writer while it is stopped."""
    node._writer._committer._connection.execute("SET idle_in_transaction_session_timeout = 0")  # type: ignore[attr-defined]


async def test_a_node_that_is_stopped_in_a_write_holds_up_those_alone_who_want_the_same(nodes: Sequence[Store]) -> None:
    one, two = nodes
    batch, (of_batch, beside, *_) = await batch_of(one, 5)
    alone, other = await pending(one), await pending(one)
    stopped = Stopped(CancelFile(of_batch, command()))
    keep_session(one)
    stopping = asyncio.ensure_future(one._writer.submit(stopped))  # type: ignore[attr-defined]
    assert await asyncio.to_thread(stopped.reached.wait, 20)

    async with asyncio.timeout(HELD_UP_SECONDS):
        await two.cancel_file(alone.file_id, command())
        await two.initiate_upload(FileSpec("a", 1), new_id(), command("InitiateUpload"))
        await batch_of(two, 3)
        assert (await two.get_file(of_batch, "")).status is FileStatus.PENDING
    # Of the same batch: its count follows from the other's.
    waiting = asyncio.ensure_future(two.cancel_file(beside, command()))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.2)

    stopped.go_on.set()
    first, second = (await stopping).audited.events[0], (await waiting).audited.events[0]
    assert first.event_id < second.event_id
    assert (await one.get_batch(batch.batch_id, "")).cancelled_files_count == 2
    assert (await two.cancel_file(other.file_id, command())).answer.file_id == other.file_id
    await assert_history_holds(one)


async def test_what_a_stopped_node_has_not_committed_another_may_decide(nodes: Sequence[Store]) -> None:
    one, two = nodes
    file = await pending(one)
    stopped = Stopped(CancelFile(file.file_id, command(reason="late")))
    stopping = asyncio.ensure_future(one._writer.submit(stopped))  # type: ignore[attr-defined]
    assert await asyncio.to_thread(stopped.reached.wait, 20)

    # Until the server ends the session that rests.
    await two.cancel_file(file.file_id, command(reason="first"))

    stopped.go_on.set()
    with pytest.raises(Exception, match="database"):
        await stopping
    assert (await one.get_file(file.file_id, "")).cancel_reason == "first"
    await assert_history_holds(two)


async def test_nodes_that_race_for_one_row_decide_once(nodes: Sequence[Store], url: str) -> None:
    """Cancels in opposite orders, of whole batches too, and claims: one winner each, nobody waits in a circle."""
    chance = random.Random(3)
    batches = [await batch_of(nodes[0], 8) for _ in range(6)]
    ids = [file_id for _, of_batch in batches for file_id in of_batch]

    async def cancel_all(node: Store) -> int:
        shuffled = chance.sample(ids, len(ids))
        outcomes = await asyncio.gather(*(node.cancel_file(one, command()) for one in shuffled), return_exceptions=True)
        assert {type(one) for one in outcomes} <= {Result, FileNotCancellable}
        return sum(isinstance(one, Result) for one in outcomes)

    async def claim_some(node: Store) -> None:
        for one in chance.sample(ids, 10):
            with contextlib.suppress(FileNotWritable):
                await node.claim(one, 0, command("UploadFile"))

    async def cancel_batches(node: Store) -> int:
        cancelled = 0
        for batch, _ in chance.sample(batches, 2):
            with contextlib.suppress(NotInState):
                done = await node.cancel_batch(batch.batch_id, command("CancelBatch"))
                cancelled += done.answer.cancelled_files_count
        return cancelled

    one, two = nodes
    done = await asyncio.gather(
        cancel_all(one), cancel_all(two), cancel_batches(two), claim_some(one), claim_some(two), cancel_batches(one)
    )

    assert sum(count for count in done if count) == len(ids)
    await assert_history_holds(one)
    with shell(url) as hand:
        [(deadlocks,)] = hand.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    assert deadlocks == 0


async def test_writes_of_one_group_that_want_the_same_see_each_other(nodes: Sequence[Store]) -> None:
    store, _ = nodes
    files = [await pending(store) for _ in range(20)]
    batch, ids = await batch_of(store, 3)
    asked = command("InitiateUpload", "r", b"f")

    made, again, *outcomes = await asyncio.gather(
        store.initiate_upload(FileSpec("a", 1), new_id(), asked),
        store.initiate_upload(FileSpec("a", 1), new_id(), asked),
        *(store.claim(file_id, 0, command("UploadFile")) for file_id in ids),
        *(
            call
            for file in files
            for call in (
                store.cancel_file(file.file_id, command()),
                store.claim(file.file_id, 0, command("UploadFile")),
                store.cancel_file(file.file_id, command()),
            )
        ),
        return_exceptions=True,
    )

    assert isinstance(made, Result)
    assert isinstance(again, Result)
    assert (again.answer, again.replayed) == (made.answer, True)
    numbers = {change.record.change_no: change.record for change in await everything(store)}
    for index in range(len(files)):
        cancel, claim, late = outcomes[3 + 3 * index : 6 + 3 * index]
        assert isinstance(cancel, Result)
        assert isinstance(claim, FileNotWritable)
        assert isinstance(late, FileNotCancellable)
        assert numbers[cancel.audited.events[0].event_id] == claim.found == late.found
    assert (await store.get_batch(batch.batch_id, "")).status == "processing"
    await assert_history_holds(store)


# Long calls -----------------------------------------------------------------------------------------------------------

# More than one transaction takes the order lock for.
MANY = 600


class Halted:
    """Halts a node's writer right before its next COMMIT that closes a block of numbers."""

    def __init__(self, node: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self._connection = node._writer._committer._connection  # type: ignore[attr-defined]
        self._in_one = self._connection.in_one
        self.reached, self.go_on = threading.Event(), threading.Event()
        keep_session(node)
        monkeypatch.setattr(self._connection, "in_one", self._halt)

    def _halt(self, message: Sequence[tuple[Sql, object]]) -> object:
        if any(sql is own.CLOSE_BLOCK for sql, _ in message):
            self.reached.set()
            self.go_on.wait(STOPPED_SECONDS)
        return self._in_one(message)


async def test_a_long_call_holds_up_nobody_and_no_reader_passes_it(
    nodes: Sequence[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    before, others = await pending(one), [await pending(one) for _ in range(4)]
    _, ids = await batch_of(one, MANY)
    seen = await everything(two)
    await two.count(None, now())
    halted = Halted(one, monkeypatch)
    announcing = asyncio.ensure_future(batch_of(one, MANY))
    assert await asyncio.to_thread(halted.reached.wait, 20)

    async with asyncio.timeout(HELD_UP_SECONDS):
        cancelled = await two.cancel_file(before.file_id, command())
        assert (await two.get_file(before.file_id, "")).change_no == cancelled.audited.events[0].event_id
    # It has a number behind those of the batch, which are yet to come: so they are not passed.
    reading = asyncio.ensure_future(everything(two, after=seen[-1].no))
    counts = await nodes[0].count(None, now())
    unsealed = await two.read_unsealed(10_000)
    assert counts.no == two.last_change == seen[-1].no == unsealed.events[-1].event_id
    assert counts.files[FileStatus.PENDING].files == MANY + 5
    assert counts.files[FileStatus.CANCELLED].files == 0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(reading), 0.1)

    halted.go_on.set()
    batch, announced = await announcing
    found = await reading
    numbers = [change.no for change in found]
    assert numbers == sorted(numbers)
    assert [change.record.file_id for change in found[:MANY] if isinstance(change.record, File)] == list(announced)
    assert (found[MANY].record, len(found)) == (batch, MANY + 2)
    assert found[-1].no == cancelled.audited.events[0].event_id
    await asyncio.gather(
        *(node.cancel_file(file.file_id, command()) for node, file in zip((one, two) * 2, others, strict=True)),
        one.cancel_batch(batch.batch_id, command("CancelBatch")),
        *(two.cancel_file(one_of, command()) for one_of in ids[:50]),
    )
    await assert_history_holds(one)
    await assert_history_holds(two)


async def test_the_numbers_of_a_long_call_that_died_are_cleared_away(
    nodes: Sequence[Store], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = nodes
    halted = Halted(one, monkeypatch)
    announcing = asyncio.ensure_future(batch_of(one, MANY))
    assert await asyncio.to_thread(halted.reached.wait, 20)
    after = await pending(two)
    # As long as its session lives they stay.
    await two.beat()
    assert await two.read_changes(Targets(file_ids=frozenset([after.file_id])), "", 0, 10) == Changes((), True, 0)

    with shell(url) as hand:
        pid = one._writer._committer._connection.backend_pid  # type: ignore[attr-defined]
        hand.execute(f"SELECT pg_terminate_backend({pid})")
        while list(hand.execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}")):  # noqa: ASYNC110, S608
            await asyncio.sleep(0.01)
        await two.beat()
        assert list(hand.execute("SELECT * FROM open_block")) == []
    assert [change.record for change in await everything(two)] == [after]
    halted.go_on.set()
    with pytest.raises(DatabaseFailure):
        await announcing
    await batch_of(one, MANY)
    await assert_history_holds(two)
