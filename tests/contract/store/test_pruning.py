"""How the old end of the trail goes, and the rows of which it told: never from the middle, never more than was kept."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from contract.store.kit import (
    EVERYTHING,
    audit,
    batch_of,
    by_the_wall,
    command,
    completed,
    counted,
    everything,
    finish,
    new_id,
    now,
    pending,
    uploading,
)
from support.stores import STORES, shell, url_in
from upload_server.domain.chain import seals_of
from upload_server.domain.errors import BatchNotFound, FileNotFound
from upload_server.domain.states import File, FileSpec, FileStatus
from upload_server.sink.open import open_sink
from upload_server.store.open import StoreAt, store_at
from upload_server.store.protocol import Store
from upload_server.store.values import Moment
from upload_server.upkeep.audit.export import lines
from upload_server.upkeep.audit.pruned import AnotherExport, ChainBroken, write_pruned
from upload_server.upkeep.audit.verify import Break, Expected, NotLookedAt, Verdict, verify
from upload_server.upkeep.check.run import CheckOptions, check
from upload_server.upkeep.copying import copy_rows

LATER = timedelta(days=1)


def a_day_later() -> Moment:
    return by_the_wall(now() + LATER)


async def seal(store: Store) -> File:
    """Seal all that there is, and one event more, of a file that stays: so does the newest seal."""
    newest = await pending(store)
    found = await store.read_unsealed(100_000)
    assert await store.seal_events(found.head, seals_of(found.events, found.head, store.store_id))
    return newest


async def settle(store: Store) -> None:
    """Have the bytes gone that are owed deletion."""
    await store.settle_deletions([each.row for each in await store.owed_deletions(100_000)])


async def let_go(store: Store, file: File) -> None:
    await store.delete_content(file.file_id, command("DeleteContent"))
    await settle(store)


async def old_events(store: Store, before: Moment | None = None) -> list[int]:
    """The events that may go."""
    aged = await store.aged_trail(before or a_day_later(), 100_000)
    return [each.event.event_id for each in aged.events]


async def prune(store: Store, folder: Path, at_once: int = 3) -> int:
    """Do what the janitor does, a few events and one row at a time; returns how many events went."""
    pruned = await prune_events(store, folder, at_once)
    while await delete_a_row(store):
        pass
    return pruned


async def delete_a_row(store: Store) -> bool:
    rows = await store.pruned_rows(1)
    await store.delete_rows(rows)
    return any(rows)


async def prune_events(store: Store, folder: Path, at_once: int = 3) -> int:
    aged = await store.aged_trail(a_day_later(), 100_000)
    if aged.events:
        write_pruned(folder, aged)
    origin = aged.origin.event_id
    for first in range(0, len(aged.events), at_once):
        some = aged.events[first : first + at_once]
        assert await store.prune_trail(origin, some[-1].event.event_id, len(some))
        origin = some[-1].event.event_id
    return len(aged.events)


def verified(
    place: StoreAt, folder: Path | None = None, anchors: Sequence[tuple[int, str]] = (), path: Path | None = None
) -> Verdict:
    pruned = [each for each in (folder, path) if each is not None]
    with contextlib.closing(place.inspect()) as inspection:
        return verify(inspection, Expected(dict(anchors), "", pruned))


def fault(verdict: Verdict) -> tuple[Break | None, int]:
    """Where the chain is broken first, and how."""
    return (verdict.broken.what, verdict.broken.event_id) if verdict.broken else (None, 0)


def findings(place: StoreAt, folder: Path) -> list[str]:
    """What `check` finds wrong, in words."""
    with contextlib.closing(place.inspect()) as inspection:
        report = check(inspection, open_sink(folder.absolute().as_uri()), CheckOptions(running=False, pause=0.0))
    # These files' bytes were never anywhere.
    return [finding.text for finding in report.found if finding.kind != "bytes.missing"]


async def exported(place: StoreAt) -> list[bytes]:
    with contextlib.closing(place.inspect()) as inspection:
        return list(lines(inspection))


async def test_the_trail_goes_up_to_the_first_row_that_stays_and_the_rest_is_as_it_was(
    store: Store, backend: StoreAt, tmp_path: Path
) -> None:
    bytes_dir, folder = tmp_path / "bytes", tmp_path / "pruned"
    gone = await pending(store, principal="ann")
    await store.cancel_file(gone.file_id, command(principal="ann"))
    half_gone = await uploading(store)
    batch, files = await batch_of(store, 4)
    await store.cancel_batch(batch.batch_id, command("CancelBatch"))
    stays = await pending(store)
    half_gone = await finish(store, half_gone)
    await let_go(store, half_gone)
    behind = await pending(store)
    await store.cancel_file(behind.file_id, command())
    await seal(store)
    before, changes, whole = await store.count(None, now()), store.last_change, await exported(backend)
    trail = await audit(store)

    assert await prune_events(store, folder) == stays.change_no - 1
    # Rows without events, and half of a batch, are on their way, and no fault.
    for _ in range(3):
        assert findings(backend, bytes_dir) == []
        assert await delete_a_row(store)
    while await delete_a_row(store):
        pass

    left = await audit(store)
    assert left == [event for event in trail if event.event_id >= stays.change_no]
    for file_id in (gone.file_id, *files):
        with pytest.raises(FileNotFound):
            await store.get_file(file_id)
    with pytest.raises(BatchNotFound):
        await store.get_batch(batch.batch_id)
    # The first events of a row may be gone; it goes with its last, and what lies behind one that stays is not touched.
    for file in (half_gone, behind):
        await store.get_file(file.file_id)
    # Statistics go on, for those who look on and after a start; numbers do.
    assert (await store.count(None, now()), store.last_change) == (before, changes)
    await store.close()
    again = await backend.open()
    assert await again.count(None, now()) == before
    assert (await again.count("ann", now())).files[FileStatus.CANCELLED].files == 1
    assert (await pending(again)).change_no == changes + 1
    # The old tokens are known for what they are.
    assert (await again.check_targets(EVERYTHING, None)).origin == stays.change_no - 1
    await again.close()

    assert findings(backend, bytes_dir) == []
    verdict = verified(backend, folder)
    assert (verdict.broken, verdict.pruned, verdict.begins_behind) == (None, stays.change_no - 1, stays.change_no - 1)
    # The exports and what is left are what an export was before, byte for byte.
    kept = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert (kept + b"".join(await exported(backend))).startswith(b"".join(whole))


async def test_a_change_in_an_export_is_found(store: Store, backend: StoreAt, tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    assert sum((await counted(store)).values()) == 0
    for _ in range(3):
        file = await pending(store)
        await store.cancel_file(file.file_id, command(reason="a mistake"))
    newest = await seal(store)
    first = await prune(store, folder)
    await store.cancel_file(newest.file_id, command())
    await seal(store)
    await prune(store, folder)
    # Whoever has counted last before all this counts anew.
    counts = await counted(store)
    assert (counts[FileStatus.CANCELLED], counts[FileStatus.PENDING]) == (4, 1)
    old, new = sorted(folder.iterdir())
    text = old.read_bytes().splitlines(keepends=True)
    begin = verified(backend).begins_behind
    assert (first, begin > first) == (6, True)
    assert verified(backend, folder).broken is None

    def found(changed: list[bytes]) -> tuple[Break | None, int]:
        path = tmp_path / "changed.jsonl"
        path.write_bytes(b"".join(changed))
        return fault(verified(backend, path, path=new))

    assert found(text) == (None, 0)
    assert found([*text, *text]) == (None, 0)
    assert found([text[0].replace(b"pending", b"failed "), *text[1:]]) == (Break.CHANGED, 1)
    assert found([*text[:3], text[3].replace(b"a mistake", b"a mistakf"), *text[4:]]) == (Break.CHANGED, 4)
    assert found([*text[:3], *text[4:]]) == (Break.DELETED, 5)
    assert found([*text[:2], b"{}\n", *text[2:]]) == (Break.CHANGED, 2)
    assert found([text[0], *text[2:]])[0] is Break.DELETED
    assert found([]) == (Break.DELETED, 7)
    assert fault(verified(backend, old)) == (Break.BEGINNING, 6)
    # In whichever order they are named.
    assert fault(verified(backend, new, path=old)) == (None, 0)
    # A hash that was kept is found again, before the origin and at it; or it is asked where that is.
    digest = text[2].rpartition(b'"hash":"')[2][:64].decode()
    assert verified(backend, folder, [(3, digest)]).broken is None
    assert fault(verified(backend, folder, [(3, "0" * 64)])) == (Break.ANCHOR, 3)
    with pytest.raises(NotLookedAt, match="event 3 was pruned"):
        verified(backend, None, [(3, digest)])
    assert fault(verified(backend, None, [(begin, "0" * 64)])) == (Break.ANCHOR, begin)


async def test_an_anchor_of_a_number_that_no_pruned_event_has_is_missed(
    store: Store, backend: StoreAt, tmp_path: Path
) -> None:
    """The counters of a batch take numbers: what was said to be sealed under one of them was written anew."""
    folder = tmp_path / "pruned"
    _, files = await batch_of(store, 2)
    for file_id in files:
        await store.cancel_file(file_id, command())
    await seal(store)
    told = {event.event_id for event in await audit(store)}
    assert await prune(store, folder) > 0
    begin = verified(backend, folder).begins_behind
    free = next(number for number in range(1, begin) if number not in told)

    assert verified(backend, folder).broken is None
    assert fault(verified(backend, folder, [(free, "0" * 64)])) == (Break.ANCHOR, free)
    with pytest.raises(NotLookedAt, match=f"event {free} was pruned"):
        verified(backend, None, [(free, "0" * 64)])


async def test_a_repeated_put_whose_file_was_pruned_makes_no_other_until_it_is_forgotten(
    store: Store, tmp_path: Path
) -> None:
    asked, spec = command("PutFile", "r", b"f"), FileSpec("a", 3)
    file = (await store.put_file(spec, new_id(), "ab" * 32, asked)).answer
    await let_go(store, file)
    await seal(store)
    await prune(store, tmp_path / "pruned")

    # Its request id is known: it was done, and is gone.
    with pytest.raises(FileNotFound) as gone:
        await store.put_file(spec, new_id(), "ab" * 32, asked)
    assert gone.value.metadata == {"file_id": file.file_id}
    assert await store.forget_answers(a_day_later(), 100) == 1
    again = await store.put_file(spec, new_id(), "ab" * 32, asked)
    assert (again.replayed, again.answer.file_id == file.file_id) == (False, False)
    assert (await store.get_file(again.answer.file_id)).status is FileStatus.COMPLETED


async def test_whoever_reads_the_trail_meanwhile_finds_no_fault(
    store: Store, backend: StoreAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        file = await pending(store)
        await store.cancel_file(file.file_id, command())
    await seal(store)
    whole, loop = await exported(backend), asyncio.get_running_loop()
    monkeypatch.setattr("upload_server.upkeep.audit.verify._PAGE", 2)

    def read(upto: int) -> tuple[Verdict, list[bytes]]:
        with contextlib.closing(backend.inspect()) as inspection:
            refresh = inspection.refresh

            def prune_and_refresh() -> None:
                aged = asyncio.run_coroutine_threadsafe(store.aged_trail(a_day_later(), 100), loop).result()
                begin, events = aged.origin.event_id, upto - aged.origin.event_id
                asyncio.run_coroutine_threadsafe(store.prune_trail(begin, upto, events), loop).result()
                inspection.refresh = refresh  # type: ignore[method-assign]
                refresh()

            inspection.refresh = prune_and_refresh  # type: ignore[method-assign]
            written = list(lines(inspection))
            inspection.refresh = prune_and_refresh  # type: ignore[method-assign]
            upto += 3
            return verify(inspection), written

    verdict, written = await asyncio.to_thread(read, 5)

    assert written == [*whole[:2], *whole[5:]]
    assert (fault(verdict), verdict.begins_behind, verdict.sealed) == ((None, 0), 5, 3)


async def test_a_file_stays_until_nothing_is_left_of_it_but_its_row(store: Store) -> None:
    file = await pending(store)
    at = now()
    await seal(store)
    assert await old_events(store) == []
    claimed = (await store.claim(file.file_id, 0, command("UploadFile"))).answer.file
    await seal(store)
    assert await old_events(store) == []
    done = await finish(store, claimed)
    await seal(store)
    # Its bytes are there, and then they are owed deletion.
    assert await old_events(store) == []
    await store.delete_content(file.file_id, command("DeleteContent", at=at + timedelta(hours=2)))
    await seal(store)
    assert await old_events(store) == []
    await settle(store)
    # The next row is open still.
    assert await old_events(store) == [1]
    # By each clock it may be too young: since it was completed, since its bytes were let go, since it was sent to.
    assert await old_events(store, by_the_wall(at)) == []
    assert await old_events(store, by_the_wall(done.updated_at + timedelta(hours=1))) == []
    assert await old_events(store, Moment(now() + LATER, 0.0)) == []
    assert await old_events(store, Moment(now() + LATER, math.inf)) == [1]


async def test_what_is_not_sealed_stays_and_so_does_the_newest_seal(store: Store) -> None:
    file = await pending(store)
    await store.cancel_file(file.file_id, command())
    assert await old_events(store) == []
    found = await store.read_unsealed(100)
    await store.seal_events(found.head, seals_of(found.events, found.head, store.store_id))
    assert await old_events(store, by_the_wall(file.created_at)) == []
    assert await old_events(store) == [1]


async def test_a_batch_goes_whole(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "pruned"
    batch, files = await batch_of(store, 3)
    for file_id in files[:2]:
        await store.cancel_file(file_id, command())
    newest = await seal(store)
    assert await old_events(store) == []
    claimed = (await store.claim(files[2], 0, command("UploadFile"))).answer.file
    await finish(store, claimed)
    await store.cancel_file(newest.file_id, command())
    newest = await seal(store)
    # One of its files has bytes: none of its events goes.
    assert await prune(store, folder) == 0
    await let_go(store, claimed)
    waits = await seal(store)

    # All goes that was before a file that waits; the end of this batch's last file lies behind that, so no row goes.
    assert await prune(store, folder) > 0
    assert (await audit(store))[0].file_id == newest.file_id
    for file_id in files:
        assert (await store.get_file(file_id)).batch_id == batch.batch_id
    assert (await store.get_batch(batch.batch_id)).total_files == 3

    await store.cancel_file(newest.file_id, command())
    await seal(store)
    await prune(store, folder)
    with pytest.raises(BatchNotFound):
        await store.get_batch(batch.batch_id)
    assert (await everything(store))[0].record == waits


async def test_nothing_goes_but_what_was_exported(store: Store, backend: StoreAt, url: str, tmp_path: Path) -> None:
    for _ in range(3):
        file = await pending(store)
        await store.cancel_file(file.file_id, command())
    await seal(store)
    trail = await audit(store)
    # One event less was exported than there is.
    with pytest.raises(Exception, match="rows instead of 3"):
        await store.prune_trail(0, 4, 3)
    # No seal is there for it, or somebody else was faster.
    with pytest.raises(Exception, match="MOVE_ORIGIN"):
        await store.prune_trail(0, trail[-1].event_id + 1, 0)
    assert not await store.prune_trail(2, 4, 2)
    assert await audit(store) == trail
    await store.close()

    # The database itself lets nothing else go.
    with shell(url) as hand:
        for statement in (
            "DELETE FROM audit_event WHERE change_no = 1",
            "DELETE FROM audit_seal WHERE change_no = 1",
            "DELETE FROM file WHERE id = 1",
            "INSERT INTO audit_origin SELECT 2, hash FROM audit_seal WHERE change_no = 3",
        ):
            with pytest.raises(Exception, match=r"origin of the trail|begins behind a seal"):
                hand.execute(statement)
    # What is not as it was sealed stays where it is, to be found.
    with shell(url, triggers=False) as hand:
        hand.execute("UPDATE audit_event SET reason = 'another' WHERE change_no = 2")
    again = await backend.open()
    with pytest.raises(ChainBroken, match="event 2 is not what was sealed"):
        await prune(again, tmp_path / "pruned")
    assert not (tmp_path / "pruned").exists()
    await again.close()
    assert fault(verified(backend)) == (Break.CHANGED, 2)


async def test_an_export_takes_nobodys_place_and_the_origin_is_only_added_to(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pruned"
    for _ in range(2):
        file = await pending(store)
        await store.cancel_file(file.file_id, command())
    await seal(store)
    aged = await store.aged_trail(a_day_later(), 100)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_pruned(folder, aged)
    assert list(folder.iterdir()) == []
    path = write_pruned(folder, aged)
    # Once more, after a try that was interrupted.
    assert write_pruned(folder, aged) == path
    # Of an installation that has the same folder, or of a history from before a restore.
    path.write_bytes(b"another's")
    with pytest.raises(AnotherExport, match="name another --pruned-dir"):
        write_pruned(folder, aged)
    assert {each: each.read_bytes() for each in folder.iterdir()} == {path: b"another's"}

    assert await prune(store, tmp_path / "elsewhere") == 4
    await store.close()
    with shell(url) as hand, pytest.raises(Exception, match="only added to"):
        hand.execute("UPDATE audit_origin SET change_no = 99")


async def test_a_copy_begins_where_its_source_does(store: Store, kind: str, backend: StoreAt, tmp_path: Path) -> None:
    for _ in range(2):
        file = await pending(store)
        await store.cancel_file(file.file_id, command())
    await completed(store)
    await seal(store)
    await prune(store, tmp_path / "pruned")
    before = await counted(store)
    await store.close()
    other = next(each for each in STORES if each != kind)
    folder = tmp_path / "copy"
    folder.mkdir()
    place = store_at(url_in(folder, other))
    await place.migrate()

    with contextlib.ExitStack() as held:
        held.callback(place.lock().release)
        source = held.enter_context(contextlib.closing(backend.inspect()))
        copy_rows(source, held.enter_context(contextlib.closing(place.fill())))

    verdict = verified(place, tmp_path / "pruned")
    assert (verdict.broken, verdict.pruned) == (None, 4)
    again = await place.open()
    assert await counted(again) == before
    await again.close()
