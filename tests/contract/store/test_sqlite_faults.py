"""What the SQLite store tells its callers when the database fails, and that it goes on by itself afterwards."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import peewee
import pytest
import pytest_asyncio

from contract.store.kit import (
    assert_history_holds,
    batch_of,
    command,
    counted,
    everything,
    new_id,
    pending,
    uploading,
)
from robustness.faults.disks import fill as fill_disk
from upload_server.domain.errors import DatabaseFailure, FileNotCancellable, OutcomeUnknown, StorageFull, UploadError
from upload_server.domain.states import FileSpec, FileStatus
from upload_server.process.room import Room
from upload_server.store.commands.cancelling import CancelBatch, CancelFile
from upload_server.store.commands.initiating import InitiateUpload
from upload_server.store.commands.nodes import Beat
from upload_server.store.commands.served import ServedClock
from upload_server.store.commands.transaction import Transaction
from upload_server.store.commands.writes import Write
from upload_server.store.options import StoreOptions
from upload_server.store.sql.dialect import Sql
from upload_server.store.sql.store import SqlStore
from upload_server.store.sqlite.committer import SqliteCommitter
from upload_server.store.sqlite.connection import SqliteConnection, Whereabouts, connect
from upload_server.store.sqlite.row_room import FileRoom
from upload_server.store.sqlite.schema import prepare
from upload_server.store.sqlite.store import open_sqlite
from upload_server.store.sqlite.transaction import SqliteTransaction

DRIVER = Path(__file__).with_name("driver.py")
OPTIONS = StoreOptions(busy_timeout_seconds=0.1)


class SetPragma(Write[list[Any]]):
    """Sets something on the writer's own connection."""

    def __init__(self, pragma: str) -> None:
        self._pragma = pragma

    def run(self, transaction: Transaction) -> list[Any]:
        assert isinstance(transaction, SqliteTransaction)
        return transaction._connection.rows(f"PRAGMA {self._pragma}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqlStore]:
    opened = await open_sqlite(path, OPTIONS)
    yield opened
    await opened.close()


async def test_commits_are_synced(store: SqlStore) -> None:
    [[mode]] = await store._writer.submit(SetPragma("journal_mode"))
    [[synchronous]] = await store._writer.submit(SetPragma("synchronous"))

    assert (mode, synchronous) == ("wal", 2)


async def test_one_write_that_breaks_its_group_breaks_no_other(store: SqlStore) -> None:
    files = [await pending(store) for _ in range(5)]
    taken = files[0].file_id

    # The id is taken: a real constraint fails in the middle of the group's transaction.
    results = await asyncio.gather(
        *(store.cancel_file(file.file_id, command()) for file in files),
        store.initiate_upload(FileSpec("a", 1), taken, command("InitiateUpload")),
        *(store.initiate_upload(FileSpec("a", 1), new_id(), command("InitiateUpload")) for _ in range(3)),
        return_exceptions=True,
    )

    assert [type(result) for result in results if isinstance(result, BaseException)] == [DatabaseFailure]
    assert isinstance(results[5], DatabaseFailure)
    counts = await counted(store)
    assert (counts[FileStatus.CANCELLED], counts[FileStatus.PENDING]) == (5, 3)
    await assert_history_holds(store)


async def test_a_bug_in_one_write_reaches_its_caller_alone(store: SqlStore) -> None:
    class Broken(Write[None]):
        def run(self, transaction: Transaction) -> None:
            transaction.number(1000)
            raise ZeroDivisionError

    file = await pending(store)
    results = await asyncio.gather(
        store._writer.submit(Broken()), store.cancel_file(file.file_id, command()), return_exceptions=True
    )

    assert isinstance(results[0], ZeroDivisionError)
    assert (await store.get_file(file.file_id)).change_no == file.change_no + 1


async def test_text_that_is_no_text_is_never_stored(store: SqlStore) -> None:
    one, two = await pending(store), await pending(store)
    batch, _ = await batch_of(store, 2)

    results = await asyncio.gather(
        store.cancel_file(one.file_id, command(reason="half a pair: \ud800")),
        store.cancel_batch(batch.batch_id, command(reason="half a pair: \ud800")),
        store.cancel_file(two.file_id, command(reason="a pair: \U0001f5d1, and a control: \x1b[0m")),
        return_exceptions=True,
    )

    assert [isinstance(result, UnicodeEncodeError) for result in results] == [True, True, False]
    # What is stored can be read.
    assert await store.get_file(one.file_id) == one
    assert (await store.get_file(two.file_id)).cancel_reason == "a pair: \U0001f5d1, and a control: \x1b[0m"
    await assert_history_holds(store)


async def test_a_full_database_changes_nothing_and_recovers(store: SqlStore) -> None:
    file = await pending(store)
    batch, _ = await batch_of(store, 100)
    before = await everything(store)
    [[pages]] = await store._writer.submit(SetPragma("page_count"))
    await store._writer.submit(SetPragma(f"max_page_count={pages}"))

    failed = 0
    for _ in range(3):
        with pytest.raises(DatabaseFailure):
            await batch_of(store, 500)
        failed += 1
    with pytest.raises(DatabaseFailure):
        await batch_of(store, 60)

    assert failed == 3
    assert await everything(store) == before
    await store.ping()
    await store._writer.submit(SetPragma("max_page_count=1000000"))
    await batch_of(store, 500)
    await store.cancel_file(file.file_id, command())
    await store.cancel_batch(batch.batch_id, command())
    await assert_history_holds(store)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; making one needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


async def fill(store: SqlStore) -> None:
    """Make batches until one fails."""
    while True:
        await batch_of(store, 20)


async def test_a_disk_that_is_really_full(small_disk: Path) -> None:
    store = await open_sqlite(small_disk / "upload.db", OPTIONS)
    try:
        file, batch = await pending(store), await batch_of(store, 100)
        with pytest.raises(StorageFull):
            await fill(store)
        # Another program takes what was kept for cancels.
        await asyncio.to_thread(fill_disk, small_disk)
        before = await everything(store, page=1000)
        with pytest.raises(DatabaseFailure):
            await store.cancel_batch(batch[0].batch_id, command(reason="r" * 500))
        with pytest.raises(StorageFull):
            await batch_of(store, 2000)
        assert await everything(store, page=1000) == before

        grow = ["mount", "-o", "remount,size=64m", str(small_disk)]
        assert await (await asyncio.create_subprocess_exec(*grow)).wait() == 0

        await store.cancel_file(file.file_id, command())
        await batch_of(store, 2000)
        await assert_history_holds(store)
    finally:
        await store.close()


async def test_a_database_that_another_program_keeps_locked(store: SqlStore, path: Path) -> None:
    file = await pending(store)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(store.cancel_file(file.file_id, command()) for _ in range(20)), store.ping(), return_exceptions=True
        )
        assert {type(result) for result in results} == {DatabaseFailure}
        # Readers go on.
        assert await store.get_file(file.file_id) == file
        other.execute("ROLLBACK")

    await store.cancel_file(file.file_id, command())
    await store.ping()


@pytest.mark.parametrize("suffix", ["", "-wal"])
async def test_a_database_file_that_is_taken_away(store: SqlStore, path: Path, suffix: str) -> None:
    file = await pending(store)
    place = path.with_name(path.name + suffix)
    elsewhere = path.with_name("elsewhere")
    place.rename(elsewhere)

    # SQLite would go on writing into a file that has no name any more.
    with pytest.raises(DatabaseFailure):
        await store.cancel_file(file.file_id, command())
    with pytest.raises(DatabaseFailure):
        await store.ping()
    place.write_bytes(b"another file")
    with pytest.raises(DatabaseFailure):
        await store.cancel_file(file.file_id, command())

    elsewhere.rename(place)
    await store.cancel_file(file.file_id, command())
    await store.ping()


async def test_readers_see_a_snapshot_and_do_not_wait_for_the_writer(store: SqlStore) -> None:
    batch, file_ids = await batch_of(store, 3)
    reached, go_on = threading.Event(), threading.Event()

    class Stopped(Write[Any]):
        """A batch's cancel that stops right before its COMMIT."""

        def run(self, transaction: Transaction) -> Any:
            outcome = CancelBatch(batch.batch_id, command()).run(transaction)
            reached.set()
            go_on.wait(30)
            return outcome

    async def cancelled() -> list[bool]:
        return [(await store.get_file(file_id)).status is FileStatus.CANCELLED for file_id in file_ids]

    writing = asyncio.ensure_future(store._writer.submit(Stopped()))
    try:
        assert await asyncio.to_thread(reached.wait, 20)
        async with asyncio.timeout(20):
            assert await store.get_batch(batch.batch_id) == batch
            assert await cancelled() == [False] * 3
    finally:
        go_on.set()
    await writing
    assert (await store.get_batch(batch.batch_id)).cancelled_files_count == 3
    assert await cancelled() == [True] * 3


# Commits whose fate is in doubt ---------------------------------------------------------------------------------------


class DoubtfulConnection(SqliteConnection):
    """A real connection whose COMMIT fails with an I/O error, before or after it has been done."""

    def __init__(self, real: SqliteConnection, plan: list[str]) -> None:
        super().__init__(real.database)
        self._plan = plan

    def execute(self, sql: Sql | str, values: dict[str, Any] | None = None) -> int:
        if sql != "COMMIT" or not self._plan:
            return super().execute(sql, values)
        fate = self._plan.pop(0)
        if fate in ("done", "ok"):
            super().execute(sql, values)
        if fate != "ok":
            error = sqlite3.OperationalError("it failed")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL if fate == "full" else sqlite3.SQLITE_IOERR_FSYNC
            raise peewee.OperationalError(str(error)) from error
        return 0


Run = Callable[..., list[Any]]


@pytest.fixture
def plan() -> list[str]:
    return []


@pytest.fixture
def run(path: Path, plan: list[str]) -> Iterator[Run]:
    """Run writes as one group on a committer whose next commits go as ``plan`` says."""
    prepare(path)
    connecting = functools.partial(connect, path, OPTIONS, writes=True)
    room = FileRoom(path, Room(), 0)
    committer = SqliteCommitter(
        lambda: DoubtfulConnection(connecting(), plan), Whereabouts(path), ServedClock(0.0), room
    )

    def run_group(*group: Write[Any]) -> list[Any]:
        return committer.run(group).outcomes

    yield run_group
    committer.close()


def initiate(file_id: str) -> InitiateUpload:
    return InitiateUpload(FileSpec("a", 1), file_id, command("InitiateUpload", file_id))


def status_in(path: Path, file_id: str) -> str:
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT status FROM file WHERE file_id = ?", (file_id,)).fetchone()
    return str(row[0])


def test_a_failed_commit_that_was_done_is_answered_as_done(run: Run, path: Path, plan: list[str]) -> None:
    run(initiate("a"), initiate("b"))
    plan += ["done"]

    outcomes = run(CancelFile("a", command()), CancelFile("b", command()))

    assert not any(isinstance(outcome, Exception) for outcome in outcomes)
    assert status_in(path, "a") == status_in(path, "b") == "cancelled"
    assert isinstance(run(CancelFile("a", command()))[0], FileNotCancellable)


def test_a_failed_commit_that_was_not_done_changed_nothing(run: Run, path: Path, plan: list[str]) -> None:
    run(initiate("a"), initiate("b"))
    plan += ["lost"]

    outcomes = run(CancelFile("a", command()), CancelFile("b", command()))

    assert [type(outcome) for outcome in outcomes] == [DatabaseFailure, DatabaseFailure]
    assert status_in(path, "a") == status_in(path, "b") == "pending"
    assert not isinstance(run(CancelFile("a", command()))[0], Exception)


@pytest.mark.parametrize("fate", ["done", "lost"])
def test_a_commit_whose_fate_cannot_be_looked_up_is_unknown_and_a_retry_tells(
    run: Run, path: Path, plan: list[str], fate: str
) -> None:
    run(initiate("a"))
    # The commit fails, and so does the one that looks.
    plan += [fate, "lost"]
    asked = CancelFile("a", command(request_id="r", fingerprint=b"f"))

    assert [type(outcome) for outcome in run(asked)] == [OutcomeUnknown]

    [again] = run(asked)
    assert again.replayed is (fate == "done")
    assert again.answer.cancelled_at == asked.command.at
    assert status_in(path, "a") == "cancelled"


@pytest.mark.parametrize("fate", ["done", "lost"])
def test_the_fate_of_a_commit_is_not_judged_by_what_another_node_commits(
    path: Path, plan: list[str], fate: str
) -> None:
    prepare(path)
    room = FileRoom(path, Room(), 0)

    def node(connecting: Callable[[], SqliteConnection]) -> SqliteCommitter:
        return SqliteCommitter(connecting, Whereabouts(path), ServedClock(0.0), room, new_id())

    other = node(functools.partial(connect, path, OPTIONS, writes=True))
    opened = 0

    def connecting() -> SqliteConnection:
        nonlocal opened
        opened += 1
        if opened == 2:
            # Between the commit that failed and the look at it.
            for name in ("x", "y", "z"):
                assert not isinstance(other.run([initiate(name)]).outcomes[0], Exception)
        return DoubtfulConnection(connect(path, OPTIONS, writes=True), plan)

    mine = node(connecting)
    mine.run([initiate("a")])
    plan += [fate]

    [outcome] = mine.run([CancelFile("a", command())]).outcomes

    assert opened == 2
    assert isinstance(outcome, DatabaseFailure) is (fate == "lost")
    assert status_in(path, "a") == ("pending" if fate == "lost" else "cancelled")
    mine.close()
    other.close()


def test_a_node_that_the_others_forgot_does_not_know_what_it_committed(path: Path, plan: list[str]) -> None:
    prepare(path)
    node_id, room = new_id(), FileRoom(path, Room(), 0)
    node = SqliteCommitter(
        lambda: DoubtfulConnection(connect(path, OPTIONS, writes=True), plan),
        Whereabouts(path),
        ServedClock(0.0),
        room,
        node_id,
    )
    node.run([Beat("", "", 10.0)])
    node.run([initiate("a")])
    plan += ["done"]

    class Forgotten(DoubtfulConnection):
        def __init__(self) -> None:
            real = connect(path, OPTIONS, writes=True)
            real.execute("DELETE FROM node")
            super().__init__(real, plan)

    node._connect = Forgotten

    assert [type(each) for each in node.run([CancelFile("a", command())]).outcomes] == [OutcomeUnknown]
    node.close()


def test_a_group_that_finds_no_room_is_run_one_by_one(run: Run, path: Path, plan: list[str]) -> None:
    run(initiate("a"), initiate("b"))
    # No room for both together, none for the first alone, room for the second.
    plan += ["full", "full", "ok"]

    first, second = run(CancelFile("a", command()), CancelFile("b", command()))

    assert isinstance(first, DatabaseFailure)
    assert second.answer.file_id == "b"
    assert (status_in(path, "a"), status_in(path, "b")) == ("pending", "cancelled")
    assert plan == []


def test_numbers_go_on_after_a_failed_commit(run: Run, plan: list[str]) -> None:
    [first] = run(initiate("a"))
    plan += ["lost"]
    run(initiate("b"))
    [third] = run(initiate("c"))
    plan += ["done"]
    [fourth] = run(initiate("d"))
    [fifth] = run(initiate("e"))

    numbers = [outcome.answer.change_no for outcome in (first, third, fourth, fifth)]
    assert numbers == [1, 2, 3, 4]


@pytest.fixture(scope="session")
def failing_sync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that makes syncs fail on demand; compiled here, so it needs a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "failing_sync.so"
    source = Path(__file__).with_name("failing_sync.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def answers_under_failing_syncs(url: str, switch: Path, library: Path, failing: str, once: bool) -> list[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "LD_PRELOAD": str(library),
        "FAIL_SYNC_SWITCH": str(switch),
    }
    if once:
        environment["FAIL_SYNC_ONCE"] = "1"
    with subprocess.Popen(
        [sys.executable, DRIVER, "cancel", url, switch, failing],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        assert process.stdout is not None
        answers = []
        for line in process.stdout:
            answer = json.loads(line)
            if "ready" in answer:
                break
            answers.append(answer["outcome"])
        process.kill()
    return answers


# The syncs are done and then said to have failed: the frames of the commit are in the log, as after a power loss in
# the wrong moment. Killed right after the last failure the server must not come back with what it said was not done.
@pytest.mark.parametrize("failing", ["10-19", "15-29"])
@pytest.mark.parametrize(("once", "told"), [(False, "OUTCOME_UNKNOWN"), (True, "DATABASE_FAILURE")])
async def test_answers_are_true_when_syncs_fail(
    path: Path, failing_sync: Path, failing: str, once: bool, told: str
) -> None:
    url, switch = f"sqlite:///{path}", path.with_name("switch")

    outcomes = await asyncio.to_thread(answers_under_failing_syncs, url, switch, failing_sync, failing, once)

    first, last = map(int, failing.split("-"))
    assert outcomes == ["ok"] * first + [told] * (last - first + 1) + ["ok"] * (29 - last)
    store = await open_sqlite(path, OPTIONS)
    try:
        for index, outcome in enumerate(outcomes):
            status = (await store.get_file(f"file-{index}")).status
            if outcome == "ok":
                assert status is FileStatus.CANCELLED
            if outcome == "DATABASE_FAILURE":
                assert status is FileStatus.PENDING
            # A retry tells the truth: it replays, or does it now.
            asked = command("CancelFile", f"file-{index}", b"f")
            result = await store.cancel_file(f"file-{index}", asked)
            assert result.replayed is (status is FileStatus.CANCELLED)
        await assert_history_holds(store)
    finally:
        await store.close()


async def test_a_closed_store_is_one_file(store: SqlStore, path: Path) -> None:
    file = await pending(store)
    await store.get_file(file.file_id)

    await store.close()

    assert sorted(each.name for each in path.parent.iterdir()) == ["upload.db", "upload.db.lock"]
    assert status_in(path, file.file_id) == "pending"


async def test_no_database_text_reaches_a_caller(store: SqlStore) -> None:
    file = await uploading(store)
    with pytest.raises(UploadError) as failed:
        await store.initiate_upload(FileSpec("a", 1), file.file_id, command("InitiateUpload"))
    assert "UNIQUE" not in str(failed.value)
    assert failed.value.metadata == {}
