"""`check` and `check --repair` on a stopped installation: every kind of damage is found, told and, if safe, mended."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from support.process import ServerProcess, StartServer
from support.stores import RefusedBySchema
from unit.upkeep.installation import DATA, NOBODY, Installation, live
from upload_server.domain.caller import Caller
from upload_server.domain.states import Source
from upload_server.store.open import open_store, store_at
from upload_server.store.values import Command

STRANGER = str(uuid.UUID(int=7, version=4))


def test_a_healthy_installation_is_fine(place: Installation) -> None:
    ran = place.run_program("check", "--hash")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "nothing wrong"
    assert "3 hashed" in ran.out
    report = place.run("check", "--json").json
    assert report["ok"] is True
    assert report["running"] is False
    assert report["checked"]["files"] == 12
    assert report["checked"]["batches"] == 3
    assert report["checked"]["stored"] == 4
    assert report["audit_anchor"] == place.run("audit", "verify", "--json").json["anchor"]


def test_nothing_is_changed_by_looking(place: Installation) -> None:
    before = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}

    place.run("check", "--hash")

    assert {path: path.read_bytes() for path in before} == before


Damage = Callable[[Installation], None]


def sql(statement: str, **ids: str) -> Damage:
    """Run a statement by hand; ``:name`` in it is the id of that name."""

    def damage(place: Installation) -> None:
        with place.by_hand() as hand:
            known = {name: getattr(place.ids, name) for name in place.ids.__dataclass_fields__}
            changed = hand.execute(statement, known | ids)
            assert changed.rowcount != 0

    return damage


def bare_sql(statement: str) -> Damage:
    """Run a statement on the schema."""

    def damage(place: Installation) -> None:
        with place.by_hand(triggers=True) as hand:
            hand.execute(statement)

    return damage


def put(name: str, data: bytes, fence: int | None = None) -> Damage:
    """Write bytes where those of a file lie, or those of a run of it."""

    def damage(place: Installation) -> None:
        path = place.bytes_of(getattr(place.ids, name, name), fence)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    return damage


def lose(name: str) -> Damage:
    """Delete a file's bytes."""
    return lambda place: place.bytes_of(getattr(place.ids, name)).unlink()


# What was done by hand, what is found, and what of it is left after --repair.
DAMAGES: dict[str, tuple[Damage, list[str], list[str]]] = {
    "a cancelled file made completed": (
        sql("UPDATE file SET status = 'completed', sha256 = 'x' WHERE file_id = :cancelled"),
        ["answer.untrue", "bytes.missing", "file.audit", "file.row"],
        ["answer.untrue", "bytes.missing", "file.audit", "file.row"],
    ),
    "a cancelled file made pending": (
        sql("UPDATE file SET status = 'pending' WHERE file_id = :cancelled"),
        ["answer.untrue", "file.audit"],
        ["answer.untrue", "file.audit"],
    ),
    "another canceller": (
        sql("UPDATE file SET cancelled_by = 'user:mallory' WHERE file_id = :cancelled"),
        ["file.audit"],
        ["file.audit"],
    ),
    "another time of the cancel": (
        sql("UPDATE file SET cancelled_at = '2020-01-01 00:00:00.000000' WHERE file_id = :cancelled"),
        ["answer.untrue", "file.audit"],
        ["answer.untrue", "file.audit"],
    ),
    "bytes that were let go as if they were there": (
        sql("UPDATE file SET content_deleted_at = NULL, content_deleted_by = '' WHERE file_id = :let_go"),
        ["bytes.missing", "file.audit"],
        ["bytes.missing", "file.audit"],
    ),
    "somebody else who let go of bytes": (
        sql("UPDATE file SET content_deleted_by = 'user:mallory' WHERE file_id = :let_go"),
        ["file.audit"],
        ["file.audit"],
    ),
    "a cancelled file that let go of bytes": (
        sql(
            "UPDATE file SET content_deleted_at = cancelled_at, content_deleted_by = 'user' WHERE file_id = :cancelled"
        ),
        ["file.audit"],
        ["file.audit"],
    ),
    "bytes that were let go and came back": (put("let_go", DATA), ["bytes.orphan"], []),
    "another revision": (
        sql("UPDATE file SET revision = 9 WHERE file_id = :completed"),
        ["file.audit"],
        ["file.audit"],
    ),
    "another change number": (
        sql("UPDATE file SET change_no = -1 WHERE file_id = :completed"),
        ["file.audit"],
        ["file.audit"],
    ),
    "a word that is no state": (
        sql("UPDATE file SET status = 'lost' WHERE file_id = :pending"),
        ["file.status"],
        ["file.status"],
    ),
    "more bytes than announced": (
        sql("UPDATE file SET bytes_received = size_bytes + 1 WHERE file_id = :pending"),
        ["file.row"],
        ["file.row"],
    ),
    "a pending file in a cancelled batch": (
        sql(
            "UPDATE file SET status = 'pending', sha256 = '', cancelled_at = NULL WHERE id ="
            " (SELECT min(f.id) FROM file AS f WHERE f.batch_id = :batch_cancelled)"
        ),
        ["batch.counters", "file.audit", "file.row"],
        ["file.audit", "file.row"],
    ),
    "a batch that counts wrong": (
        sql("UPDATE batch SET completed_files = 7 WHERE batch_id = :batch_open"),
        ["batch.counters"],
        [],
    ),
    "a batch taken back from its end": (
        sql(
            "UPDATE batch SET status = 'processing', completed_files = 0,"
            " revision = revision + 1 WHERE batch_id = :batch_completed"
        ),
        ["batch.audit", "batch.counters", "batch.derived"],
        # Its trail says that it had come to its end.
        ["batch.audit", "batch.counters", "batch.derived"],
    ),
    "a completed batch made failed": (
        sql("UPDATE batch SET status = 'failed' WHERE batch_id = :batch_completed"),
        ["batch.audit", "batch.derived"],
        ["batch.audit", "batch.derived"],
    ),
    "a file taken out of its batch": (
        sql("UPDATE file SET batch_row = NULL, batch_id = NULL WHERE file_id = :in_batch"),
        ["batch.counters", "batch.files"],
        ["batch.files"],
    ),
    "a deleted event": (
        sql(
            "DELETE FROM audit_event WHERE to_status = 'uploading' AND file_row ="
            " (SELECT id FROM file WHERE file_id = :completed)"
        ),
        ["audit.chain", "audit.gap", "file.audit"],
        ["audit.chain", "audit.gap", "file.audit"],
    ),
    "an illegal move": (
        sql(
            "INSERT INTO audit_event SELECT last_change, (SELECT id FROM file WHERE file_id = :cancelled), NULL,"
            " 'cancelled', 'completed', 'user', 'grpc', '', '', '2026-01-01 00:00:00', '', '', '' FROM store_info"
            " WHERE NOT EXISTS (SELECT 1 FROM audit_event WHERE change_no = last_change)"
            " UNION ALL SELECT last_change + 1, (SELECT id FROM file WHERE file_id = :cancelled), NULL,"
            " 'cancelled', 'completed', 'user', 'grpc', '', '', '2026-01-01 00:00:00', '', '', '' FROM store_info"
        ),
        ["audit.move", "file.audit", "store.counter"],
        ["audit.move", "file.audit"],
    ),
    "a file with another owner than its batch": (
        sql("UPDATE file SET owner = 'eve' WHERE id = (SELECT max(id) FROM file WHERE batch_row IS NOT NULL)"),
        ["file.row"],
        ["file.row"],
    ),
    "events of a file that is gone": (
        sql("DELETE FROM file WHERE file_id = :pending"),
        ["answer.nothing", "audit.chain", "audit.no_row"],
        ["answer.nothing", "audit.chain", "audit.no_row"],
    ),
    "an event of nothing": (
        sql(
            "INSERT INTO audit_event SELECT 1000000, NULL, NULL, '', 'pending', 'user', 'grpc', '', '', 'x', '', '', ''"
        ),
        ["audit.no_row", "store.counter"],
        ["audit.no_row"],
    ),
    "an answer that cannot be read": (
        sql("UPDATE stored_answer SET answer = '{' WHERE request_id = 'cancel it'"),
        ["answer.form"],
        ["answer.form"],
    ),
    "a deletion owed for nothing": (sql("INSERT INTO owed_deletion (file_row) VALUES (999)"), ["debt.nothing"], []),
    "a deletion owed for a file that is sent": (
        sql("INSERT INTO owed_deletion (file_row) SELECT id FROM file WHERE file_id = :uploading"),
        ["debt.wrong"],
        [],
    ),
    "a counter that was set back": (sql("UPDATE store_info SET last_change = 3"), ["store.counter"], []),
    "a lost identity": (sql("DELETE FROM store_info"), ["audit.chain", "store.identity"], []),
    "a missing trigger": (bare_sql("DROP TRIGGER file_final_stays"), ["schema"], []),
    "a missing index": (bare_sql("DROP INDEX file_open"), ["schema"], []),
    "a trigger of somebody's own": (
        bare_sql("CREATE TRIGGER mine AFTER INSERT ON file BEGIN SELECT 1; END"),
        ["schema"],
        ["schema"],
    ),
    # With its two triggers.
    "a missing table": (bare_sql("DROP TABLE audit_seal"), ["schema"] * 3, ["schema"] * 3),
    "lost bytes": (lose("completed"), ["bytes.missing"], ["bytes.missing"]),
    "lost bytes of an open upload": (lose("uploading"), ["bytes.missing"], ["bytes.missing"]),
    "too few bytes": (put("completed", DATA[:10]), ["bytes.short"], ["bytes.short"]),
    "too few bytes of an open upload": (put("uploading", DATA[:10]), ["bytes.short"], ["bytes.short"]),
    "too many bytes": (put("completed", DATA + b"!"), ["bytes.long"], ["bytes.long"]),
    "bytes of a pending file": (put("pending", b"x"), ["bytes.early"], ["bytes.early"]),
    "bytes left of a cancelled file": (put("cancelled", b"left"), ["bytes.orphan"], []),
    "nothing left of a failed file but its name": (put("failed", b""), ["bytes.orphan"], []),
    "bytes of another run of a completed file": (put("completed", b"left", fence=9), ["bytes.orphan"], []),
    "bytes of a run that an open upload does not have": (put("uploading", b"left", fence=9), ["bytes.orphan"], []),
    "bytes without a row": (put(STRANGER, b"whose?"), ["bytes.unknown"], ["bytes.unknown"]),
    "other bytes": (put("completed", b"?" * len(DATA)), ["bytes.hash"], ["bytes.hash"]),
}
FIXED = "a lost identity"


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != FIXED])
def test_damage_is_found_and_mended_when_that_is_safe(place: Installation, name: str) -> None:
    damage, expected, left = DAMAGES[name]
    damage(place)

    found = place.run("check", "--json", "--hash")
    repaired = place.run("check", "--json", "--hash", "--repair")
    again = place.run("check", "--json", "--hash")

    assert (found.code, found.kinds) == (1, expected)
    assert (repaired.code, repaired.kinds) == (int(bool(left)), left)
    assert (again.code, again.kinds) == (int(bool(left)), left)


def test_a_store_without_its_identity_is_told(place: Installation) -> None:
    DAMAGES[FIXED][0](place)

    assert place.run("check", "--json").kinds == ["audit.chain", "store.identity"]


def test_a_finding_says_what_it_is_about_and_what_to_do(place: Installation) -> None:
    put("cancelled", b"left")(place)
    file_id = place.ids.cancelled

    lines = place.run("check").out.splitlines()

    text = f"WRONG bytes.orphan: 4 bytes of file {file_id} are left over: it is cancelled -- `--repair` deletes them"
    assert text in lines
    assert lines[-1] == "1 wrong"
    finding = place.run("check", "--json").json["findings"][0]
    assert finding["ids"] == {"file_id": file_id}
    lines = place.run("check", "--repair").out.splitlines()
    assert any(line.startswith("MENDED bytes.orphan: ") for line in lines)
    assert lines[-1] == "nothing wrong, 1 mended"
    assert not place.bytes_of(file_id).exists()


def test_what_a_database_holds_cannot_forge_a_line(place: Installation) -> None:
    sql("UPDATE file SET status = 'x' || char(10) || 'nothing wrong' || char(27) WHERE file_id = :pending")(place)

    lines = place.run("check").out.splitlines()

    assert len([line for line in lines if line.endswith("nothing wrong")]) == 0
    assert "\x1b" not in "".join(lines)


def test_bytes_without_a_row_go_only_when_it_is_said(place: Installation) -> None:
    put(STRANGER, b"whose?")(place)

    kept = place.run("check", "--json", "--repair")
    assert kept.kinds == ["bytes.unknown"]
    assert place.bytes_of(STRANGER).exists()
    gone = place.run("check", "--json", "--repair", "--delete-unknown")

    assert (gone.code, gone.kinds) == (0, [])
    assert not place.bytes_of(STRANGER).exists()
    assert place.bytes_of(place.ids.completed).read_bytes() == DATA


def test_a_draft_of_a_dead_process_is_no_finding(place: Installation) -> None:
    put(STRANGER, b"whole")(place)
    place.bytes_of(STRANGER).chmod(0o1600)

    ran = place.run("check")

    assert ran.code == 0
    assert "1 bytes that came whole and whose rows were never written" in ran.out
    assert place.bytes_of(STRANGER).exists()


def test_a_linked_folder_of_the_storage_is_not_gone_behind(place: Installation, tmp_path: Path) -> None:
    """Else bytes elsewhere that happen to have names like ours would be taken for bytes without a row, and deleted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    names = (f"{digits:02x}{STRANGER[2:]}" for digits in range(256))
    stranger = next(name for name in names if not place.bytes_of(name).parent.exists())
    (outside / stranger).write_bytes(b"precious")
    place.bytes_of(stranger).parent.symlink_to(outside)

    ran = place.run("check", "--json", "--repair", "--delete-unknown")

    assert (ran.code, ran.kinds) == (0, [])
    assert (outside / stranger).read_bytes() == b"precious"


def test_what_is_owed_deletion_is_no_finding(place: Installation) -> None:
    put("cancelled", b"left")(place)
    sql("INSERT INTO owed_deletion (file_row) SELECT id FROM file WHERE file_id = :cancelled")(place)

    ran = place.run("check", "--json", "--repair")

    assert (ran.code, ran.json["findings"]) == (0, [])
    assert [note["count"] for note in ran.json["notes"] if "owed deletion" in note["text"]] == [1]
    assert place.bytes_of(place.ids.cancelled).exists()


def test_deleting_needs_repair(place: Installation) -> None:
    ran = place.run("check", "--delete-unknown")

    assert (ran.code, ran.out) == (2, "")


def test_a_mended_batch_is_audited_and_watched(place: Installation) -> None:
    """A batch that was never told that its last file is final: the roll-up is made up for, as a change like any."""
    batch_id = place.ids.batch_open
    with place.by_hand() as hand:
        hand.execute("UPDATE batch SET total_files = 1 WHERE batch_id = ?", (batch_id,))
        hand.execute(
            "UPDATE file SET batch_id = NULL, batch_row = NULL WHERE batch_id = ? AND status = 'pending'", (batch_id,)
        )
    before = place.rows("SELECT max(change_no) FROM batch")[0][0]

    ran = place.run("check", "--json", "--repair")

    assert ran.kinds == []
    row = place.rows("SELECT id, status, revision, change_no FROM batch WHERE batch_id = ?", batch_id)[0]
    assert row[1] == "completed"
    assert row[3] > before
    event = place.rows(
        "SELECT batch_row, from_status, to_status, actor, source FROM audit_event ORDER BY change_no DESC LIMIT 1"
    )[0]
    assert event == (row[0], "processing", "completed", "system", "roll_up")
    assert place.run("check", "--json").kinds == []


def test_a_mended_trigger_guards_again(place: Installation) -> None:
    with place.by_hand(triggers=True) as hand:
        hand.execute("DROP TRIGGER file_final_stays")
        hand.execute("CREATE TRIGGER file_final_stays AFTER INSERT ON batch BEGIN SELECT 1; END")
    assert place.run("check", "--json").kinds == ["schema"]

    assert place.run("check", "--json", "--repair").code == 0

    with (
        place.by_hand(triggers=True) as hand,
        pytest.raises(RefusedBySchema, match="file is final"),
    ):
        hand.execute("UPDATE file SET status = 'pending' WHERE status = 'completed'")


def test_a_damaged_page_is_a_finding(place: Installation) -> None:
    with place.database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * 4096 * 2)

    ran = place.run("check", "--json")

    assert ran.code == 1
    assert ran.kinds[0].startswith("database.")


async def _go_on(url: str) -> None:
    """Upgrade rows from before cancellation and change them as callers would."""
    store = await open_store(url)
    try:
        command = Command(Caller(Source.GRPC), "CancelFile", datetime.now(UTC))
        await store.cancel_file("old-uploading", command)
        await store.claim("old-pending", 0, command)
        await store.cancel_batch("missing", command)
    finally:
        await store.close()


def test_rows_of_the_program_before_cancellation_are_no_findings(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    place = Installation(folder, NOBODY)
    asyncio.run(store_at(place.url).migrate("0001_initial"))
    insert = "INSERT INTO file (file_id, filename, content_type, size_bytes, status, batch_id, created_at, updated_at)"
    with place.by_hand(triggers=True) as hand:

        def add(file_id: str, status: str, batch_id: str | None = None) -> None:
            hand.execute(
                f"{insert} VALUES (?, 'a', 'b', 7, ?, ?, '2024-01-01', '2024-01-01')",
                (file_id, status, batch_id),
            )

        for status in ("pending", "uploading", "completed", "failed"):
            add(f"old-{status}", status)
        add("in-batch", "completed", "batch")
        add("of-none", "pending", "no such batch")
        for batch_id, total in (("batch", 1), ("empty", 0), ("missing", 3)):
            hand.execute(
                "INSERT INTO batch (batch_id, total_files, created_at) VALUES (?, ?, '2024-01-01')", (batch_id, total)
            )
    asyncio.run(_go_on(place.url))

    ran = place.run("check", "--json")

    assert (ran.code, ran.json["findings"]) == (0, [])
    assert any(note["text"].startswith("rows from before the audit began") for note in ran.json["notes"])
    assert place.run("audit", "verify").code == 0


def test_an_older_schema_is_told_and_its_start_mends_it(place: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    folder.mkdir()
    older = Installation(folder, place.ids)
    asyncio.run(store_at(older.url).migrate("0002_cancellation"))

    found = older.run("check", "--json")
    assert found.code == 1
    assert {"table audit_seal of the schema is missing", "step 0003_audit_seal of the schema is missing"} <= {
        finding["text"] for finding in found.json["findings"]
    }
    assert older.run("migrate").code == 0

    assert older.run("check", "--json").code == 0


def test_where_nothing_is_there_is_nothing_to_say(tmp_path: Path) -> None:
    ran = Installation(tmp_path, NOBODY).run_program("check")

    assert (ran.code, ran.out) == (2, "")
    assert "there is no database at" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_copy_can_be_checked(place: Installation) -> None:
    for path in [*place.folder.rglob("*"), place.folder]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        ran = place.run_program("check", "--hash")
    finally:
        for path in [place.folder, *place.folder.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)

    assert (ran.code, ran.out.splitlines()[-1]) == (0, "nothing wrong")


COMMANDS = (("check",), ("audit", "verify"), ("audit", "export"))


@pytest_asyncio.fixture
async def killed(start_server: StartServer) -> Installation:
    """What a killed server leaves, or `cp -a` takes of a running one: the newest commits are in the log alone."""
    server = start_server()
    await live(server)
    server.kill()
    place = Installation(server.data_dir, NOBODY)
    (place.folder / "upload.sqlite3-shm").unlink()
    assert (place.folder / "upload.sqlite3-wal").stat().st_size > 0
    return place


def test_a_log_that_cannot_be_read_along_is_not_read_past(killed: Installation, tmp_path: Path) -> None:
    shared = killed.folder / "upload.sqlite3-shm"
    # SQLite follows no link here: it cannot make its shared memory, whoever runs it.
    shared.symlink_to(tmp_path / "nowhere" / "shm")

    for words in COMMANDS:
        ran = killed.run(*words)
        assert (ran.code, ran.out) == (2, "")
        assert "cannot be looked at here: copy it to where it can be written" in ran.err
    shared.unlink()
    for words in COMMANDS:
        assert killed.run(*words).code == 0
    events = killed.rows("SELECT count(*) FROM audit_event")[0][0]
    assert len(killed.run("audit", "export").out.splitlines()) == events > 20


def test_a_log_in_a_read_only_folder_is_not_read_past(killed: Installation) -> None:
    for words in COMMANDS:
        code, text = in_read_only(killed, *words)
        assert (code, "cannot be looked at here: copy it to where it can be written" in text) == (2, True), text
    killed.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    for words in COMMANDS:
        code, text = in_read_only(killed, *words)
        assert code == 0, text


def in_read_only(place: Installation, *words: str) -> tuple[int, str]:
    """Run a command on a folder that is mounted read-only, in a namespace of its own."""
    folder = str(place.folder)
    command = [sys.executable, "-m", "upload_server", *words, "--data-dir", folder]
    script = 'mount --bind -o ro "$0" "$0" 2>/dev/null || mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"'
    line = ["unshare", "-Urm", "sh", "-c", f'{script} || exit 77; exec "$@"', folder, *command]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode == 77 or "unshare failed" in done.stderr or done.stderr.startswith("unshare:"):
        pytest.skip("no read-only mounts here")
    return done.returncode, done.stdout + done.stderr


async def test_a_mended_installation_serves(place: Installation) -> None:
    for name in ("a batch that counts wrong", "a missing index", "a counter that was set back"):
        DAMAGES[name][0](place)
    put("cancelled", b"left")(place)
    place.bytes_of(place.ids.failed).unlink(missing_ok=True)
    assert place.run("check", "--repair").code == 0

    with ServerProcess(place.folder) as server:
        assert server.terminate() == 0

    assert place.run("check", "--json").code == 0
    assert hashlib.sha256(place.bytes_of(place.ids.completed).read_bytes()).digest() == hashlib.sha256(DATA).digest()
