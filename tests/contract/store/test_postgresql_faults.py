"""What the PostgreSQL store tells its callers when the database fails, and that it goes on by itself afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing

import psutil
import pytest
import pytest_asyncio

from contract.store.kit import assert_history_holds, batch_of, command, counted, everything, new_id, pending
from support import postgres
from support.proxy import fault_proxy
from upload_server.domain.errors import DatabaseFailure, FileNotCancellable, FileNotFound, OutcomeUnknown, UploadError
from upload_server.domain.states import FileSpec, FileStatus
from upload_server.store.commands import statements
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Wants, Write
from upload_server.store.inspection import Damaged
from upload_server.store.lock import AlreadyInUse
from upload_server.store.open import store_at
from upload_server.store.options import StoreOptions
from upload_server.store.postgresql.connection import Address, connect
from upload_server.store.postgresql.statements import READ_FATE
from upload_server.store.protocol import Store
from upload_server.store.values import Result

OPTIONS = StoreOptions(busy_timeout_seconds=1.0, statement_timeout_seconds=1.0)
# Until a server that says nothing is given up: a connection that was open, and another one.
SILENCE_SECONDS = 15.0


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    running = postgres.server()
    yield running
    if not running.running:
        running.start()


@pytest.fixture
def url(server: postgres.Server) -> str:
    return server.new_store()


@pytest_asyncio.fixture
async def store(url: str) -> AsyncIterator[Store]:
    opened = await store_at(url).open(OPTIONS)
    yield opened
    await opened.close()


async def until_it_answers(store: Store) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await store.ping()
            except DatabaseFailure:
                await asyncio.sleep(0.05)
            else:
                return


async def test_one_write_that_breaks_its_group_breaks_no_other(store: Store) -> None:
    files = [await pending(store) for _ in range(5)]

    # The id is taken: a real constraint fails in the middle of the group's transaction.
    results = await asyncio.gather(
        *(store.cancel_file(file.file_id, command()) for file in files),
        store.initiate_upload(FileSpec("a", 1), files[0].file_id, command("InitiateUpload")),
        *(store.initiate_upload(FileSpec("a", 1), new_id(), command("InitiateUpload")) for _ in range(3)),
        return_exceptions=True,
    )

    assert [type(result) for result in results if isinstance(result, BaseException)] == [DatabaseFailure]
    counts = await counted(store)
    assert (counts[FileStatus.CANCELLED], counts[FileStatus.PENDING]) == (5, 3)
    await assert_history_holds(store)


async def test_writes_go_on_after_many_and_one_that_was_rolled_back(store: Store) -> None:
    files = [await pending(store) for _ in range(12)]
    # More often than it takes the driver to prepare what it sends: then it drops all that is prepared at a ROLLBACK.
    for file in files:
        await store.cancel_file(file.file_id, command())
    with pytest.raises(DatabaseFailure):
        await store.initiate_upload(FileSpec("a", 1), files[0].file_id, command("InitiateUpload"))

    for _ in range(2):
        await store.cancel_file((await pending(store)).file_id, command())
    await assert_history_holds(store)


async def test_a_bug_in_one_write_reaches_its_caller_alone(store: Store) -> None:
    class Broken(Write[None]):
        def run(self, transaction: Transaction) -> None:
            transaction.number(1000)
            raise ZeroDivisionError

    file = await pending(store)
    writer = store._writer  # type: ignore[attr-defined]
    results = await asyncio.gather(
        writer.submit(Broken()), store.cancel_file(file.file_id, command()), return_exceptions=True
    )

    assert isinstance(results[0], ZeroDivisionError)
    assert (await store.get_file(file.file_id)).change_no == file.change_no + 1


async def test_text_that_is_no_text_is_never_stored(store: Store) -> None:
    half, nul, fine = [await pending(store) for _ in range(3)]
    batch, _ = await batch_of(store, 2)

    results = await asyncio.gather(
        store.cancel_file(half.file_id, command(reason="half a pair: \ud800")),
        store.cancel_batch(batch.batch_id, command(reason="half a pair: \ud800")),
        store.cancel_file(nul.file_id, command(reason="nothing: \x00")),
        store.cancel_file(fine.file_id, command(reason="a pair: \U0001f5d1, a control: \x1b[0m, a percent: 100%s")),
        return_exceptions=True,
    )

    refused = [type(result) for result in results if isinstance(result, BaseException)]
    assert refused == [UnicodeEncodeError, UnicodeEncodeError, DatabaseFailure]
    assert [await store.get_file(file.file_id) for file in (half, nul)] == [half, nul]
    stored = (await store.get_file(fine.file_id)).cancel_reason
    assert stored == "a pair: \U0001f5d1, a control: \x1b[0m, a percent: 100%s"
    await assert_history_holds(store)


@pytest.mark.parametrize("file_id", ["\x00", "a\x00b", "\\u0000", "%s", "'"])
async def test_what_is_no_id_names_nothing(store: Store, file_id: str) -> None:
    with pytest.raises(FileNotFound):
        await store.get_file(file_id)
    with pytest.raises(FileNotFound):
        await store.cancel_file(file_id, command())
    with pytest.raises(FileNotFound):
        await store.claim(file_id, 0, command("UploadFile"))
    assert await store.names_of([file_id]) == {}


async def cancel_under(store: Store, trouble: Callable[[], None], rounds: int) -> dict[str, int]:
    """Cancel files while ``trouble`` comes again and again, after some answers each time; each answer is compared with
    what is there in the end."""
    answers: dict[str, object] = {}
    stop, answered = threading.Event(), threading.Event()

    def troubles() -> None:
        while not stop.is_set():
            if answered.wait(0.05):
                trouble()
                answered.clear()

    async def one(file_id: str) -> None:
        try:
            answers[file_id] = await store.cancel_file(file_id, command(request_id=file_id))
            answered.set()
        except UploadError as error:
            answers[file_id] = error

    _, ids = await batch_of(store, rounds * 10)
    troubling = asyncio.create_task(asyncio.to_thread(troubles))
    for start in range(0, len(ids), 10):
        await asyncio.gather(*(one(file_id) for file_id in ids[start : start + 10]))
        await asyncio.sleep(0.01)
    stop.set()
    await troubling
    await until_it_answers(store)
    seen = {"done": 0, "failed": 0, "unknown": 0}
    for file_id, answer in answers.items():
        cancelled = (await store.get_file(file_id)).status is FileStatus.CANCELLED
        if isinstance(answer, DatabaseFailure):
            assert not cancelled
            seen["failed"] += 1
        elif isinstance(answer, OutcomeUnknown):
            seen["unknown"] += 1
        else:
            assert isinstance(answer, Result)
            assert cancelled
            seen["done"] += 1
    await assert_history_holds(store)
    return seen


async def test_sessions_that_the_server_ends_lose_nothing(store: Store, server: postgres.Server) -> None:
    def end_sessions() -> None:
        server.command(sessions, "postgres")

    sessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'uploads'"

    seen = await cancel_under(store, end_sessions, 60)

    assert seen["done"]
    # The server is there all the time, so the fate of each commit is known.
    assert not seen["unknown"]


async def test_a_server_that_crashes_and_comes_back_loses_nothing(store: Store, server: postgres.Server) -> None:
    def crash() -> None:
        server.end()
        server.start()

    seen = await cancel_under(store, crash, 40)

    assert seen["done"]
    assert seen["failed"] + seen["unknown"]


async def test_while_the_database_is_away_every_call_fails_at_once(store: Store, server: postgres.Server) -> None:
    file = await pending(store)
    server.end()
    began = time.monotonic()

    for _ in range(3):
        with pytest.raises(DatabaseFailure):
            await store.cancel_file(file.file_id, command())
        with pytest.raises(DatabaseFailure):
            await store.get_file(file.file_id)
        with pytest.raises(DatabaseFailure):
            await store.ping()

    assert time.monotonic() - began < 15
    await asyncio.to_thread(server.start)
    await until_it_answers(store)
    await store.cancel_file(file.file_id, command())
    await assert_history_holds(store)


class Cut:
    """Cuts the writer's connection at its next COMMIT: both ways, or only that of its answer."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch, *, sent: bool, after: Callable[[], None]) -> None:
        committer = store._writer._committer  # type: ignore[attr-defined]
        self._connection = committer._connection
        self._in_one: Callable[..., object] = self._connection.in_one
        self._sent = sent
        self._after = after
        monkeypatch.setattr(self._connection, "in_one", self._cut)

    def _cut(self, message: object) -> object:
        ours = socket.socket(fileno=self._connection._raw.fileno())
        ours.shutdown(socket.SHUT_RD if self._sent else socket.SHUT_RDWR)
        ours.detach()
        try:
            return self._in_one(message)
        finally:
            if self._sent:
                # Until it lies at the server, whatever happens there now.
                time.sleep(0.2)
            self._after()


def nothing() -> None:
    pass


@pytest.mark.parametrize("sent", [False, True])
async def test_the_fate_of_a_commit_is_looked_up(store: Store, monkeypatch: pytest.MonkeyPatch, *, sent: bool) -> None:
    file = await pending(store)
    # So that the session has its statements ready.
    await store.cancel_file((await pending(store)).file_id, command(request_id="before"))
    Cut(store, monkeypatch, sent=sent, after=nothing)

    if sent:
        assert (await store.cancel_file(file.file_id, command())).answer.file_id == file.file_id
        with pytest.raises(FileNotCancellable):
            await store.cancel_file(file.file_id, command())
    else:
        with pytest.raises(DatabaseFailure):
            await store.cancel_file(file.file_id, command())
        assert await store.get_file(file.file_id) == file
        await store.cancel_file(file.file_id, command())
    await assert_history_holds(store)


@pytest.mark.parametrize(("end", "fate"), [("", "in progress"), ("COMMIT", "committed"), ("ROLLBACK", "aborted")])
def test_a_fate_is_that_of_the_transaction_as_it_stands(url: str, end: str, fate: str) -> None:
    address = Address(url)
    with closing(connect(address, OPTIONS, writes=True)) as one, closing(connect(address, OPTIONS, writes=True)) as two:
        one.execute("BEGIN")
        [(number,)] = one.rows("SELECT pg_current_xact_id()::text")
        if end:
            one.execute(end)
        [(found, *_)] = two.rows(READ_FATE, {"transaction": number, "began_at": 0, "node": ""})
        assert found == fate
        # One that was never given, as after a crash.
        never = {"transaction": str(int(number) + 1000), "began_at": 0, "node": ""}
        [(found, *_)] = two.rows(READ_FATE, never)
        assert found == "aborted"


@pytest.mark.parametrize("numbered", [False, True])
async def test_the_commit_of_another_node_under_a_number_that_a_crash_gave_again_is_not_taken_for_ours(
    store: Store, url: str, server: postgres.Server, monkeypatch: pytest.MonkeyPatch, *, numbered: bool
) -> None:
    """The log of a transaction that did not commit may be lost, and with it that its number was given."""
    other = await store_at(url).open(OPTIONS)
    loop = asyncio.get_running_loop()
    next_number = "SELECT pg_snapshot_xmax(pg_current_snapshot())"
    given_again = False

    def crash() -> None:
        nonlocal given_again
        ours = int(server.command(next_number, "postgres")) - 1
        server.end()
        server.start()
        given_again = int(server.command(next_number, "postgres")) <= ours
        while int(server.command(next_number, "postgres")) <= ours:
            asyncio.run_coroutine_threadsafe(of_other(), loop).result()

    async def of_other() -> None:
        with contextlib.suppress(DatabaseFailure):
            await other.cancel_file((await pending(other)).file_id, command())

    for _ in range(5):
        file = await pending(store)
        await store.claim(file.file_id, 0, command("UploadFile"))
        # Once the statements are ready, and the log is written out.
        await store.record_progress(file.file_id, 1, 1, command().at)
        await store.cancel_file((await pending(store)).file_id, command())
        Cut(store, monkeypatch, sent=False, after=crash)
        if numbered:
            with pytest.raises(DatabaseFailure):
                await store.cancel_file(file.file_id, command())
        else:
            with pytest.raises(DatabaseFailure):
                await store.record_progress(file.file_id, 1, 3, command().at)
        found = await store.get_file(file.file_id)
        assert (found.status, found.bytes_received) == (FileStatus.UPLOADING, 1)
        if given_again:
            break
    assert given_again
    await assert_history_holds(store)
    await other.close()


@pytest.mark.parametrize("sent", [False, True])
async def test_a_fate_that_cannot_be_looked_up_is_unknown(
    store: Store, server: postgres.Server, monkeypatch: pytest.MonkeyPatch, *, sent: bool
) -> None:
    file = await pending(store)
    # So that the session has its statements ready.
    await store.cancel_file((await pending(store)).file_id, command(request_id="before"))
    Cut(store, monkeypatch, sent=sent, after=server.end)

    with pytest.raises(OutcomeUnknown):
        await store.cancel_file(file.file_id, command(request_id="r"))

    await asyncio.to_thread(server.start)
    await until_it_answers(store)
    again = await store.cancel_file(file.file_id, command(request_id="r"))
    assert again.replayed is sent
    await assert_history_holds(store)


async def test_a_server_with_another_history_is_not_written_to(
    store: Store, url: str, server: postgres.Server, caplog: pytest.LogCaptureFixture
) -> None:
    file = await pending(store)
    before = await everything(store)

    # As at a failover, or after a restore: the same data, from here on with a history of its own.
    await asyncio.to_thread(server.begin_a_new_timeline)
    for _ in range(2):
        with pytest.raises(DatabaseFailure):
            await store.cancel_file(file.file_id, command())
        with pytest.raises(DatabaseFailure):
            await store.get_file(file.file_id)

    assert "start upload-server anew" in caplog.text
    again = await store_at(url).open(OPTIONS)
    assert await everything(again) == before
    # Whoever resumes a watch gets the state anew.
    assert (again.store_id == store.store_id, again.incarnation == store.incarnation) == (True, False)
    await again.close()


async def test_a_session_that_rests_with_rows_of_others_is_ended(store: Store, url: str) -> None:
    """A node that is stopped would hold up whoever wants the same rows."""
    file = await pending(store)
    other = await store_at(url).open(OPTIONS)
    began, over = threading.Event(), threading.Event()

    class Rest(Write[None]):
        wants = Wants(file_ids=(file.file_id,))

        def run(self, transaction: Transaction) -> None:
            began.set()
            transaction.write(statements.FORGET_STOPS)
            over.wait(20)

    writer = store._writer  # type: ignore[attr-defined]
    writer._committer._connection.execute("SET idle_in_transaction_session_timeout = '200ms'")
    resting = asyncio.ensure_future(writer.submit(Rest()))
    assert await asyncio.to_thread(began.wait, 20)
    await other.cancel_file(file.file_id, command())
    assert not resting.done()
    over.set()
    with pytest.raises(DatabaseFailure):
        await resting
    await assert_history_holds(store)
    await other.close()


async def test_a_session_that_only_the_server_believes_in_is_ended(store: Store) -> None:
    """Its connection is lost here alone: it would keep the lock, and every write from being done."""
    committer = store._writer._committer  # type: ignore[attr-defined]
    lost = committer._connection
    committer._connection, committer._ended = None, lost.backend_pid
    await pending(store)
    lost.close()


async def fails_in_time(call: Awaitable[object]) -> None:
    """A call ends, with an error, before anybody would take the server for hanging."""
    async with asyncio.timeout(SILENCE_SECONDS):
        with pytest.raises((DatabaseFailure, OutcomeUnknown)):
            await call


async def test_a_server_that_falls_silent_is_given_up_and_taken_again(store: Store, server: postgres.Server) -> None:
    file, other = await pending(store), await pending(store)

    with server.silent():
        await asyncio.gather(
            fails_in_time(store.cancel_file(file.file_id, command())), fails_in_time(store.get_file(other.file_id))
        )

    await until_it_answers(store)
    await store.cancel_file(other.file_id, command())
    await assert_history_holds(store)


async def test_a_session_that_falls_silent_is_given_up_and_replaced(store: Store) -> None:
    """Of a writer that rests: one that is stopped with the order lock stands everybody still, whoever notices."""
    file = await pending(store)
    session = psutil.Process(store._writer._committer._connection.backend_pid)  # type: ignore[attr-defined]
    session.suspend()
    try:
        async with asyncio.timeout(SILENCE_SECONDS):
            await store.cancel_file(file.file_id, command())
    finally:
        session.resume()
    await assert_history_holds(store)


async def test_a_connection_whose_other_end_is_gone_is_given_up(url: str, server: postgres.Server) -> None:
    """Half-open: what is sent arrives nowhere, and nobody says so."""
    name = url.partition("@/")[2].partition("?")[0]
    async with fault_proxy(server.socket) as proxy:
        store = await store_at(f"postgresql://uploads@127.0.0.1:{proxy.port}/{name}").open(OPTIONS)
        file, other = await pending(store), await pending(store)
        proxy.up.swallow = proxy.down.swallow = True

        await asyncio.gather(
            fails_in_time(store.cancel_file(file.file_id, command())), fails_in_time(store.get_file(other.file_id))
        )

        proxy.heal()
        await until_it_answers(store)
        await store.cancel_file(other.file_id, command())
        await assert_history_holds(store)
        await store.close()


async def test_the_first_count_may_take_longer_than_a_statement(url: str) -> None:
    """It walks through all of a store. Here it has to wait for a table."""
    store = await store_at(url).open(StoreOptions(statement_timeout_seconds=0.3))
    await pending(store)
    with postgres.shell(url, triggers=True) as shell, shell.transaction():
        shell.execute("LOCK TABLE batch")
        with pytest.raises(DatabaseFailure):
            await store.get_batch(new_id())
        counting = asyncio.create_task(counted(store))
        await asyncio.wait({counting}, timeout=1)
        assert not counting.done()
    assert (await counting)[FileStatus.PENDING] == 1
    await store.close()


def test_what_an_operator_sets_for_sessions_holds_beside_ours(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=7MB")
    with closing(connect(Address(url), OPTIONS, writes=True)) as connection:
        shown = [connection.rows(f"SHOW {name}") for name in ("work_mem", "statement_timeout")]
    assert shown == [[("7MB",)], [("1s",)]]


def test_nothing_cuts_short_what_an_operator_waits_for(url: str) -> None:
    with closing(connect(Address(url), OPTIONS, writes=True, bounded=False)) as connection:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        assert [connection.rows(f"SHOW {name}") for name in names] == [[("0",)]] * 3


def test_a_command_that_has_lost_its_lock_mends_nothing_more(url: str, server: postgres.Server) -> None:
    at = store_at(url)
    held = at.lock()
    with pytest.raises(AlreadyInUse, match=rf"\(pid {os.getpid()} on {socket.gethostname()}\)"):
        store_at(url).lock()
    mending = at.mend()
    mending.forget_debts([1])

    server.command("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'uploads'", "postgres")

    with pytest.raises(Damaged):
        mending.forget_debts([1])
    mending.close()
    held.release()
