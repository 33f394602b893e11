"""`audit verify` and `audit export`: whatever is done to the trail by hand, the first broken link is named."""

# ruff: noqa: S608 - statements by hand

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from support.stores import RefusedBySchema, url_in
from unit.upkeep.installation import Installation
from upload_server.store.open import store_at

_FIELDS = {
    "event_id",
    "file_id",
    "batch_id",
    "from_status",
    "to_status",
    "actor",
    "source",
    "reason",
    "request_id",
    "occurred_at",
}


def sealed_ids(place: Installation) -> list[int]:
    return [row[0] for row in place.rows("SELECT change_no FROM audit_seal ORDER BY change_no")]


def test_an_untouched_trail_holds_and_everything_is_sealed_after_a_stop(place: Installation) -> None:
    ran = place.run_program("audit", "verify")

    events = place.rows("SELECT count(*) FROM audit_event")[0][0]
    assert ran.code == 0
    assert f"{events} events are as they were sealed" in ran.out
    assert "not sealed" not in ran.out
    assert sealed_ids(place)[-1] == place.rows("SELECT max(change_no) FROM audit_event")[0][0]


@pytest.mark.parametrize(
    "change",
    [
        "actor = 'user:mallory'",
        "reason = 'because'",
        "to_status = 'completed'",
        "from_status = 'failed'",
        "source = 'http'",
        "request_id = 'x'",
        "occurred_at = '2020-01-01 00:00:00.000000'",
        "occurred_at = 'yesterday'",
        "actor = x'ff'",
        "reason = CAST(x'ff' AS TEXT)",
        "file_row = file_row + 1",
    ],
)
def test_a_changed_event_is_named(place: Installation, change: str) -> None:
    number = place.rows(
        "SELECT a.change_no FROM audit_event AS a JOIN file AS f ON f.id = a.file_row WHERE file_id = ?"
        " AND to_status = 'cancelled'",
        place.ids.cancelled,
    )[0][0]
    with place.by_hand() as hand:
        hand.execute(f"UPDATE audit_event SET {change} WHERE change_no = ?", (number,))

    ran = place.run("audit", "verify", "--json")

    assert ran.code == 1
    assert ran.json["broken"]["event_id"] == str(number)
    assert ran.json["broken"]["what"] == "changed"


def test_the_first_of_several_changes_is_named_and_what_holds_before_it(place: Installation) -> None:
    ids = sealed_ids(place)
    with place.by_hand() as hand:
        hand.execute("UPDATE audit_event SET actor = 'x' WHERE change_no >= ?", (ids[7],))

    ran = place.run("audit", "verify")

    assert ran.code == 1
    assert ran.out.startswith(f"BROKEN changed: event {ids[7]} was changed")
    assert f"up to there 7 events are as they were sealed, the last is {ids[6]}" in ran.out


def test_an_event_deleted_with_its_seal_is_named(place: Installation) -> None:
    number = sealed_ids(place)[4]
    with place.by_hand() as hand:
        hand.execute("DELETE FROM audit_event WHERE change_no = ?", (number,))
        hand.execute("DELETE FROM audit_seal WHERE change_no = ?", (number,))

    assert f"BROKEN deleted: event {number} was deleted together with its seal" in place.run("audit", "verify").out


def test_a_deletion_that_was_patched_over_is_named(place: Installation) -> None:
    """The one who deletes also makes the next seal point at the event before: then its hash does not fit."""
    ids = sealed_ids(place)
    with place.by_hand() as hand:
        hand.execute("DELETE FROM audit_event WHERE change_no = ?", (ids[4],))
        hand.execute("DELETE FROM audit_seal WHERE change_no = ?", (ids[4],))
        hand.execute("UPDATE audit_seal SET previous_no = ? WHERE change_no = ?", (ids[3], ids[5]))

    ran = place.run("audit", "verify", "--json")

    assert (ran.code, ran.json["broken"]["event_id"]) == (1, str(ids[5]))


def test_a_deleted_beginning_is_named(place: Installation) -> None:
    ids = sealed_ids(place)
    with place.by_hand() as hand:
        for table in ("audit_event", "audit_seal"):
            hand.execute(f"DELETE FROM {table} WHERE change_no < ?", (ids[3],))

    ran = place.run("audit", "verify", "--json")

    assert (ran.json["broken"]["what"], ran.json["broken"]["event_id"]) == ("beginning", str(ids[2]))


_COPY = """
    INSERT INTO audit_event SELECT ?, file_row, batch_row, from_status, to_status, actor, source, reason, request_id,
        occurred_at, credential, peer, filename FROM audit_event WHERE change_no = ?"""


def free_number(place: Installation) -> int:
    """A number between sealed ones that no event has: a batch's counters took it."""
    ids = sealed_ids(place)
    return next(number for number in range(ids[2], ids[-1]) if number not in ids)


def test_an_inserted_event_is_named(place: Installation) -> None:
    number = free_number(place)
    with place.by_hand() as hand:
        hand.execute(_COPY, (number, sealed_ids(place)[0]))

    assert f"BROKEN inserted: event {number} was inserted" in place.run("audit", "verify").out


def test_an_event_inserted_with_a_seal_of_its_own_is_named(place: Installation) -> None:
    number, ids = free_number(place), sealed_ids(place)
    before = max(each for each in ids if each < number)
    with place.by_hand() as hand:
        hand.execute(_COPY, (number, ids[0]))
        hand.execute("INSERT INTO audit_seal VALUES (?, ?, zeroblob(32))", (number, before))

    ran = place.run("audit", "verify", "--json")

    assert ran.code == 1
    assert ran.json["broken"]["event_id"] == str(number)


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("number", [0, -7])
def test_an_event_inserted_before_the_beginning_is_named(place: Installation, number: int, sealed: bool) -> None:
    with place.by_hand() as hand:
        hand.execute(_COPY, (number, sealed_ids(place)[0]))
        if sealed:
            hand.execute("INSERT INTO audit_seal VALUES (?, 0, zeroblob(32))", (number,))

    ran = place.run("audit", "verify", "--json")

    assert (ran.code, ran.json["broken"]["event_id"], ran.json["broken"]["what"]) == (1, str(number), "inserted")
    assert json.loads(place.run("audit", "export").out.splitlines()[0])["event_id"] == str(number)


def test_reordered_events_are_named(place: Installation) -> None:
    ids = sealed_ids(place)
    one, other = ids[3], ids[9]
    with place.by_hand() as hand:
        hand.execute("UPDATE audit_event SET change_no = -1 WHERE change_no = ?", (one,))
        hand.execute("UPDATE audit_event SET change_no = ? WHERE change_no = ?", (one, other))
        hand.execute("UPDATE audit_event SET change_no = ? WHERE change_no = -1", (other,))

    ran = place.run("audit", "verify")

    text = f"BROKEN reordered: events were reordered: what was sealed as event {one} is found at event {other}"
    assert text in ran.out


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("DELETE FROM audit_event", "BROKEN deleted: event {} was deleted"),
        ("UPDATE audit_seal SET hash = zeroblob(32)", "BROKEN seal_changed: the seal of event {} was changed"),
        ("DELETE FROM audit_seal", "BROKEN seal_deleted: the seal of event {} was deleted"),
    ],
)
def test_an_event_or_a_seal_is_told_from_the_other(place: Installation, statement: str, says: str) -> None:
    number = sealed_ids(place)[6]
    with place.by_hand() as hand:
        hand.execute(f"{statement} WHERE change_no = ?", (number,))

    assert says.format(number) in place.run("audit", "verify").out


def test_a_file_renamed_under_its_events_is_named(place: Installation) -> None:
    with place.by_hand() as hand:
        hand.execute("UPDATE file SET file_id = 'other' WHERE file_id = ?", (place.ids.completed,))

    assert place.run("audit", "verify", "--json").json["broken"]["what"] == "changed"


def test_another_stores_identity_breaks_the_head_of_the_chain(place: Installation) -> None:
    with place.by_hand() as hand:
        hand.execute("UPDATE store_info SET store_id = 'other'")

    ran = place.run("audit", "verify")

    assert f"event {sealed_ids(place)[0]} was changed" in ran.out
    assert "identity of the store" in ran.out


def cut_tail(place: Installation, events: int) -> None:
    number = sealed_ids(place)[-events]
    with place.by_hand() as hand:
        for table in ("audit_event", "audit_seal"):
            hand.execute(f"DELETE FROM {table} WHERE change_no >= ?", (number,))


def test_a_cut_tail_shows_by_what_was_kept_elsewhere_and_only_by_that(place: Installation) -> None:
    anchor = place.run("audit", "verify", "--json").json["anchor"]
    number, head = anchor.split(":")
    assert place.run("audit", "verify", "--anchor", anchor, "--expect-head", head.upper()).code == 0
    cut_tail(place, 3)

    assert place.run("audit", "verify").code == 0
    by_anchor = place.run("audit", "verify", "--anchor", anchor)
    by_head = place.run("audit", "verify", "--expect-head", head)
    assert (by_anchor.code, by_head.code) == (1, 1)
    assert f"the end of the chain was deleted: event {number} was sealed" in by_anchor.out
    assert "does not end with the hash that was kept" in by_head.out


def test_a_chain_written_anew_shows_by_an_anchor(place: Installation) -> None:
    anchor = f"{sealed_ids(place)[5]}:{'ab' * 32}"

    ran = place.run("audit", "verify", "--json", "--anchor", anchor)

    assert (ran.code, ran.json["broken"]["what"]) == (1, "anchor")


def test_an_anchor_of_an_event_that_is_gone_shows(place: Installation) -> None:
    ran = place.run("audit", "verify", "--json", "--anchor", f"{free_number(place)}:{'ab' * 32}")

    assert (ran.code, ran.json["broken"]["what"]) == (1, "anchor")


def test_the_unsealed_tail_is_named(place: Installation) -> None:
    ids = sealed_ids(place)
    with place.by_hand() as hand:
        hand.execute("DELETE FROM audit_seal WHERE change_no >= ?", (ids[-3],))

    ran = place.run("audit", "verify")

    assert ran.code == 0
    assert f"3 events are not sealed yet ({ids[-3]} to {ids[-1]})" in ran.out


@pytest.mark.parametrize("statement", ["UPDATE {} SET change_no = 0", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["audit_event", "audit_seal"])
def test_the_database_itself_refuses_to_change_the_trail(place: Installation, table: str, statement: str) -> None:
    with (
        place.by_hand(triggers=True) as hand,
        pytest.raises(RefusedBySchema, match=r"only added to|behind the origin"),
    ):
        hand.execute(statement.format(table))


def test_an_export_proves_itself(place: Installation) -> None:
    """As docs/operations.md tells readers to do it: a line without its hash, hashed; and each carries the last."""
    ran = place.run("audit", "export")

    store_id = place.rows("SELECT store_id FROM store_info")[0][0]
    before = hashlib.sha256(json.dumps({"format": 1, "store_id": store_id}, separators=(",", ":")).encode()).hexdigest()
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [int(line["event_id"]) for line in lines] == sealed_ids(place)
    for line in lines:
        digest = line.pop("hash")
        is_new = line["file_id"] and not line["from_status"]
        assert line.keys() == _FIELDS | {"previous_hash"} | ({"filename"} if is_new else set())
        assert line["previous_hash"] == before
        text = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(text.encode()).hexdigest() == digest
        before = digest


def test_an_export_goes_to_a_file_that_only_its_owner_reads(place: Installation, tmp_path: Path) -> None:
    target = tmp_path / "trail.jsonl"
    # Of an older export, or of a shell's redirection.
    target.touch(0o644)
    after = sealed_ids(place)[4]

    ran = place.run("audit", "export", "--output", str(target), "--after", str(after))

    assert (ran.code, ran.out) == (0, "")
    lines = target.read_text().splitlines()
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    whole = place.run("audit", "export").out.splitlines()
    assert lines == whole[5:]


def test_an_export_writes_over_nothing_of_another_name(place: Installation, tmp_path: Path) -> None:
    precious, target = tmp_path / "precious", tmp_path / "trail.jsonl"
    precious.write_text("precious")
    target.hardlink_to(precious)
    assert place.run("audit", "export", "--output", str(target)).code == 2
    target.unlink()
    target.symlink_to(precious)
    if os.geteuid() == 0:
        os.lchown(target, 65534, 65534)
        assert place.run("audit", "export", "--output", str(target)).code == 2
        assert precious.read_text() == "precious"
        os.lchown(target, 0, 0)
    # A link of one's own is meant so, as /dev/stdout is.
    assert place.run("audit", "export", "--output", str(target)).code == 0
    assert precious.read_text().startswith("{")


def damaged(place: Installation) -> None:
    with place.by_hand() as hand:
        hand.execute("DELETE FROM audit_event WHERE change_no = ?", (sealed_ids(place)[1],))
        hand.execute("UPDATE audit_event SET occurred_at = 'x' WHERE change_no = ?", (sealed_ids(place)[2],))


def test_an_export_of_a_damaged_trail_says_what_cannot_be_read(place: Installation) -> None:
    damaged(place)

    lines = [json.loads(line) for line in place.run("audit", "export").out.splitlines()]

    assert lines[1]["problem"] == "deleted: only its seal is there"
    assert lines[2]["problem"] == "its time is no time"
    assert "problem" not in lines[3]


def _no_database(folder: Path) -> None:
    (folder / "upload.sqlite3").unlink()


def _not_migrated(folder: Path) -> None:
    _no_database(folder)
    asyncio.run(store_at(url_in(folder)).migrate("0002_cancellation"))


def _no_sqlite(folder: Path) -> None:
    (folder / "upload.sqlite3").write_bytes(b"this is no database" * 1000)


@pytest.mark.parametrize("ruin", [_no_database, _not_migrated, _no_sqlite])
@pytest.mark.parametrize("command", ["verify", "export"])
def test_what_cannot_be_read_at_all_is_no_verdict(
    place: Installation, command: str, ruin: Callable[[Path], None]
) -> None:
    ruin(place.folder)

    ran = place.run("audit", command)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("upload-server: ")


@pytest.mark.parametrize("words", [["--anchor", "12"], ["--anchor", "x:" + "a" * 64], ["--expect-head", "abc"]])
def test_mistyped_options_are_usage(place: Installation, words: list[str]) -> None:
    assert place.run_program("audit", "verify", *words).code == 2
