"""The schema's steps: a database of the program before cancellation is taken over with all its rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from peewee import BigIntegerField, CharField, DateTimeField, IntegerField, Model, SqliteDatabase
from playhouse.migrations import MigrationError

from contract.store.kit import by_the_wall
from upload_server.domain.caller import Caller
from upload_server.domain.errors import BatchNotCancellable, FileNotCancellable, FileNotWritable
from upload_server.domain.states import Batch, BatchStatus, File, FileStatus, Source
from upload_server.store.levels import SchemaTooNew, least_level
from upload_server.store.open import migrate_store, open_store
from upload_server.store.protocol import Store
from upload_server.store.sqlite.schema import MIGRATIONS, prepare
from upload_server.store.values import Change, Command, Listing, Targets

INITIAL = "0001_initial"
STEPS = sorted(path.stem for path in MIGRATIONS.glob("[0-9]*.py"))
ADDING = STEPS[1:3]
ONE_PROGRAM = "0004_one_program"
FINAL_STAYS = {"file_final_stays", "batch_final_stays"}
AUDIT_STAYS = {
    "audit_event_update_refused",
    "audit_event_delete_refused",
    "audit_seal_update_refused",
    "audit_seal_delete_refused",
}
DAY = datetime(2024, 1, 1, 12, 0, 0, 250_000)  # noqa: DTZ001 - the old program wrote times without a zone


class OldProgram:
    """What the program before cancellation did to its database, with its own models."""

    def __init__(self, path: Path) -> None:
        self.database = SqliteDatabase(str(path))
        database = self.database

        class OldFile(Model):
            file_id = CharField(unique=True)
            filename = CharField()
            content_type = CharField()
            size_bytes = BigIntegerField()
            status = CharField()
            batch_id = CharField(null=True)
            created_at = DateTimeField()
            updated_at = DateTimeField()

            class Meta:
                table_name = "file"

        class OldBatch(Model):
            batch_id = CharField(unique=True)
            total_files = IntegerField()
            created_at = DateTimeField()

            class Meta:
                table_name = "batch"

        self.file: Any = OldFile
        self.batch: Any = OldBatch
        database.bind([OldFile, OldBatch])

    def insert_file(self, file_id: str, status: str = "pending", batch_id: str | None = None) -> None:
        self.file.create(
            file_id=file_id,
            filename=f"{file_id}.txt",
            content_type="text/plain",
            size_bytes=7,
            status=status,
            batch_id=batch_id,
            created_at=DAY,
            updated_at=DAY + timedelta(hours=1),
        )

    def insert_batch(self, batch_id: str, total_files: int) -> None:
        self.batch.create(batch_id=batch_id, total_files=total_files, created_at=DAY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "upload.db"


@pytest.fixture
def old(path: Path) -> Iterator[OldProgram]:
    """The old program with data in every state, on a database that only the first step has touched."""
    assert prepare(path, INITIAL) == [INITIAL]
    program = OldProgram(path)
    with program.database.connection_context():
        for status in ("pending", "uploading", "completed", "failed"):
            program.insert_file(f"alone-{status}", status)
        for batch_id, statuses in BATCHES.items():
            program.insert_batch(batch_id, len(statuses))
            for index, status in enumerate(statuses):
                program.insert_file(f"{batch_id}-{index}", status, batch_id)
        program.insert_batch("empty", 0)
        program.insert_batch("not-yet-inserted", 2)
        program.insert_file("of-no-batch", "pending", "a batch that is not there")
    yield program
    program.database.close()


BATCHES = {
    "new": ["pending", "pending"],
    "sending": ["pending", "uploading"],
    "half": ["completed", "pending"],
    "half-failed": ["failed", "pending"],
    "done": ["completed", "completed"],
    "broken": ["completed", "failed"],
}
DERIVED = {
    "new": BatchStatus.PENDING,
    "sending": BatchStatus.PROCESSING,
    "half": BatchStatus.PROCESSING,
    "half-failed": BatchStatus.PROCESSING,
    "done": BatchStatus.COMPLETED,
    "broken": BatchStatus.FAILED,
    "empty": BatchStatus.PENDING,
    "not-yet-inserted": BatchStatus.PENDING,
}


async def opened(path: Path) -> Store:
    return await open_store(f"sqlite:///{path}")


async def watched(store: Store, after: int = 0) -> dict[str, File | Batch]:
    """What a fresh watch of everything sees."""
    changes = await store.read_changes(Targets(all=True), None, after, 1000)
    numbers = [change.no for change in changes.changes]
    assert numbers == sorted(set(numbers))
    assert all(number > after for number in numbers)
    return {key_of(change): change.record for change in changes.changes}


def key_of(change: Change) -> str:
    record = change.record
    return record.file_id if isinstance(record, File) else record.batch_id


def command() -> Command:
    return Command(Caller(Source.GRPC), "CancelFile", datetime.now(UTC))


def names(path: Path, kind: str) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = ?", (kind,))}


def columns(path: Path, table: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM pragma_table_info(?)", (table,)).fetchall()


def test_the_first_step_is_the_schema_before_cancellation(path: Path) -> None:
    prepare(path, INITIAL)

    assert [column[1] for column in columns(path, "file")] == [
        "id",
        "file_id",
        "filename",
        "content_type",
        "size_bytes",
        "status",
        "batch_id",
        "created_at",
        "updated_at",
    ]
    assert [column[1] for column in columns(path, "batch")] == ["id", "batch_id", "total_files", "created_at"]
    assert names(path, "table") == {"file", "batch", "schema_migration"}


@pytest.mark.parametrize("step", ADDING)
def test_a_step_only_adds_and_final_states_are_guarded_after_it(path: Path, step: str) -> None:
    before = STEPS[STEPS.index(step) - 1]
    prepare(path, before)
    had = {table: columns(path, table) for table in names(path, "table")}

    assert prepare(path, step) == [step]

    for table, old_columns in had.items():
        assert columns(path, table)[: len(old_columns)] == old_columns
    assert names(path, "trigger") >= FINAL_STAYS


def test_the_step_to_one_program_takes_only_what_followed_an_older_one(path: Path) -> None:
    prepare(path, ADDING[-1])
    tables = {table: columns(path, table) for table in names(path, "table")}
    indexes, triggers = names(path, "index"), names(path, "trigger")

    assert prepare(path, ONE_PROGRAM) == [ONE_PROGRAM]

    assert {table: columns(path, table) for table in names(path, "table")} == tables
    assert indexes - names(path, "index") == {"file_without_batch"}
    assert names(path, "trigger") == FINAL_STAYS | AUDIT_STAYS
    assert len(triggers - names(path, "trigger")) == 3


@pytest.mark.usefixtures("old")
async def test_rows_of_the_old_program_are_in_a_fresh_watch(path: Path) -> None:
    store = await opened(path)
    try:
        seen = await watched(store)
        for status in ("pending", "uploading", "completed", "failed"):
            file = seen[f"alone-{status}"]
            assert isinstance(file, File)
            assert (file.status, file.revision, file.owner) == (FileStatus(status), 1, "")
            assert file.created_at == DAY.replace(tzinfo=UTC)
            assert await store.get_tus_metadata(file.file_id) == ""
            assert (file.bytes_received, file.completed_at) == (
                (7, file.updated_at) if status == "completed" else (0, None)
            )
        assert {key: row.status for key, row in seen.items() if isinstance(row, Batch)} == DERIVED
        for batch_id, statuses in BATCHES.items():
            batch = seen[batch_id]
            assert isinstance(batch, Batch)
            assert batch.completed_files == statuses.count("completed")
            assert batch.failed_files == statuses.count("failed")
            files = [row for row in seen.values() if isinstance(row, File) and row.batch_id == batch_id]
            assert len(files) == len(statuses)
            assert batch.change_no > max(file.change_no for file in files)
        assert store.last_change == max(row.change_no for row in seen.values()) == len(seen)
        named = Targets(frozenset(), frozenset({"half"}), include_batch_files=True)
        found = await store.read_changes(named, None, 0, 10)
        assert [key_of(change) for change in found.changes] == ["half-0", "half-1", "half"]
    finally:
        await store.close()


@pytest.mark.usefixtures("old")
async def test_rows_of_the_old_program_can_be_cancelled_and_final_ones_cannot(path: Path) -> None:
    store = await opened(path)
    try:
        await store.cancel_file("alone-pending", command())
        await store.cancel_file("alone-uploading", command())
        for file_id in ("alone-completed", "alone-failed"):
            with pytest.raises(FileNotCancellable):
                await store.cancel_file(file_id, command())
        assert (await store.cancel_batch("half", command())).answer.cancelled_files_count == 1
        assert (await store.cancel_batch("empty", command())).answer.cancelled_files_count == 0
        for batch_id in ("done", "broken"):
            with pytest.raises(BatchNotCancellable):
                await store.cancel_batch(batch_id, command())
        # The last open file of a batch makes it final.
        await store.cancel_file("half-failed-1", command())
        assert (await store.get_batch("half-failed")).status is BatchStatus.FAILED
    finally:
        await store.close()


@pytest.mark.usefixtures("old")
async def test_no_file_of_a_final_batch_is_started(path: Path) -> None:
    store = await opened(path)
    try:
        # No write of this program leaves an open file in a final batch.
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE batch SET status = 'completed' WHERE batch_id = 'half'")
            connection.commit()

        with pytest.raises(FileNotWritable):
            await store.claim("half-1", 0, command())
    finally:
        await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE file SET status = 'uploading' WHERE file_id = '{file}'",
        "UPDATE file SET cancelled_at = '2020-01-01 00:00:00' WHERE file_id = '{file}'",
        "UPDATE file SET cancelled_by = 'nobody' WHERE file_id = '{file}'",
        "UPDATE file SET sha256 = 'ff' WHERE file_id = '{file}'",
        "UPDATE batch SET status = 'completed' WHERE batch_id = 'half'",
        "UPDATE batch SET cancelled_at = NULL WHERE batch_id = 'half'",
        "UPDATE batch SET cancelled_by = '' WHERE batch_id = 'half'",
    ],
)
@pytest.mark.parametrize("file", ["half-0", "half-1", "alone-failed"])
@pytest.mark.usefixtures("old")
async def test_what_is_final_stays_whatever_the_code_does(path: Path, statement: str, file: str) -> None:
    store = await opened(path)
    await store.cancel_batch("half", command())
    await store.close()

    with (
        closing(sqlite3.connect(path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="is final"),
    ):
        connection.execute(statement.format(file=file))


@pytest.mark.usefixtures("old")
async def test_rows_from_before_the_trail_are_listed_by_time_with_those_that_came_after(path: Path) -> None:
    written = {"alone-pending": "2024-01-01T11:59:59", "alone-failed": "2024-01-01 14:00:01+02:00"}
    with closing(sqlite3.connect(path)) as connection:
        for file_id, text in written.items():
            connection.execute("UPDATE file SET created_at = ? WHERE file_id = ?", (text, file_id))
        connection.commit()
    store = await opened(path)
    try:
        await store.cancel_file("alone-uploading", command())
        files = (await store.list_files(Listing(), None, 100)).rows
        assert (files[0].file_id, files[-1].file_id) == ("alone-pending", "alone-failed")
        assert [file.created_at for file in files] == sorted(file.created_at for file in files)
        for after, wanted in ((DAY, len(files)), (DAY + timedelta(hours=2), 1)):
            found = await store.list_files(Listing(updated_after=after.replace(tzinfo=UTC)), None, 100)
            assert len(found.rows) == wanted
        noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
        found = await store.list_files(Listing(created_before=noon), None, 100)
        assert [file.file_id for file in found.rows] == ["alone-pending"]
        counts = await store.count(None, noon)
        assert sum(total.files for total in counts.files.values()) == len(files)
    finally:
        await store.close()


@pytest.mark.usefixtures("old")
async def test_times_are_read_however_the_old_program_wrote_them(path: Path) -> None:
    written = {
        "alone-pending": "2024-01-01 12:00:00",
        "alone-uploading": "2024-01-01T12:00:00",
        "alone-completed": "2024-01-01 12:00:00.000000",
        "alone-failed": "2024-01-01 14:00:00+02:00",
    }
    with closing(sqlite3.connect(path)) as connection:
        for file_id, text in written.items():
            connection.execute(
                "UPDATE file SET created_at = ?, updated_at = ? WHERE file_id = ?", (text, text, file_id)
            )
        connection.commit()
    store = await opened(path)
    try:
        for file_id in written:
            file = await store.get_file(file_id)
            assert file.created_at == file.updated_at == datetime(2024, 1, 1, 12, tzinfo=UTC)
        # Expiry counts from then.
        noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
        at, expire = by_the_wall, store.expire
        assert (await expire(at(noon - timedelta(seconds=1)), [], 100, command())).answer.files == ()
        expired = await expire(at(noon + timedelta(seconds=1)), [], 100, command())
        assert {file.file_id for file in expired.answer.files} == {"alone-pending", "alone-uploading"}
    finally:
        await store.close()


def test_unknown_states_stop_the_step_before_it_changes_anything(old: OldProgram, path: Path) -> None:
    with old.database.connection_context():
        old.insert_file("odd", "stalled")
    before = columns(path, "file")

    with pytest.raises(MigrationError, match="'stalled'"):
        prepare(path)

    assert columns(path, "file") == before
    assert names(path, "table") == {"file", "batch", "schema_migration"}


async def test_migrating_is_done_once_and_a_newer_schema_is_refused(path: Path) -> None:
    url = f"sqlite:///{path}"
    assert await migrate_store(url) == STEPS
    assert await migrate_store(url) == []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_later', '2030-01-01 00:00:00')")
        connection.commit()

    # The header says which programs the file bears: this one, as long as the step says nothing else.
    own = int(STEPS[-1][:4])
    await (await open_store(url)).close()
    assert await migrate_store(url) == []
    for least, words in ((own + 1, f"bears programs from level {own + 1} on"), (0, "install that version")):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {least}")
        for refuse in (open_store, migrate_store):
            with pytest.raises(SchemaTooNew, match=rf"\(9999_later\).*{words}"):
                await refuse(url)


def test_a_schema_bears_the_programs_that_all_its_steps_bear(tmp_path: Path) -> None:
    for name, text in (("0001_a", ""), ("0002_b", "BEARS = 1"), ("0003_c", ""), ("0004_d", "BEARS = 2")):
        (tmp_path / f"{name}.py").write_text(text)

    assert [least_level(tmp_path, upto) for upto in ("0001_a", "0002_b", "0003_c", None)] == [1, 1, 3, 3]
