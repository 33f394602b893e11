"""Which database URLs can be used, what an operator hears of the others, and who may read the files."""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import stat
from pathlib import Path

import pytest

from contract.store.kit import pending
from upload_server.domain.errors import CannotStart
from upload_server.store.lock import AlreadyInUse
from upload_server.store.open import UnusableDatabaseUrl, migrate_store, open_store, store_at


async def test_a_database_that_cannot_be_opened_is_said_to_the_operator(tmp_path: Path) -> None:
    missing, other, folder = tmp_path / "no such folder" / "upload.db", tmp_path / "notes.txt", tmp_path
    other.write_text("these are notes, and by far too many of them to be taken for an empty database" * 20)

    for path in (missing, other, folder):
        with pytest.raises(CannotStart, match=re.escape(str(path))):
            await open_store(f"sqlite:///{path}")
        with pytest.raises(CannotStart, match=re.escape(str(path))):
            await migrate_store(f"sqlite:///{path}")
    # A failed start leaves no lock behind.
    other.unlink()
    await (await open_store(f"sqlite:///{other}")).close()


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/upload.db")
    await pending(store)

    modes = await asyncio.to_thread(modes_in, tmp_path)

    await store.close()
    assert modes == dict.fromkeys(["upload.db", "upload.db-wal", "upload.db-shm", "upload.db.lock"], 0o600)


async def test_a_restored_copy_is_nobody_elses_to_read_once_it_is_opened(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/upload.db"
    await (await open_store(url)).close()
    for suffix in ("", "-wal", "-shm"):
        path = tmp_path / f"upload.db{suffix}"
        path.touch()
        path.chmod(0o644)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o644)
    (tmp_path / "upload.db-shm").unlink()
    (tmp_path / "upload.db-shm").symlink_to(elsewhere)

    with pytest.raises(CannotStart):
        # SQLite follows no link there, and neither do we.
        await open_store(url)
    (tmp_path / "upload.db-shm").unlink()
    store = await open_store(url)
    modes = await asyncio.to_thread(modes_in, tmp_path)
    await store.close()

    assert modes.pop("elsewhere") == 0o644
    assert modes == dict.fromkeys(["upload.db", "upload.db-wal", "upload.db-shm", "upload.db.lock"], 0o600)


async def test_a_link_to_a_database_is_that_database(tmp_path: Path) -> None:
    folders = [tmp_path / "real", tmp_path / "linked"]
    for folder in folders:
        folder.mkdir()
    real, link = (folder / "upload.db" for folder in folders)
    link.symlink_to(real)

    store = await open_store(f"sqlite:///{link}")
    file = await pending(store)
    with pytest.raises(AlreadyInUse, match=re.escape(str(folders[0]))):
        await open_store(f"sqlite:///{real}")
    await store.close()

    reopened = await open_store(f"sqlite:///{real}")
    assert await reopened.get_file(file.file_id) == file
    await reopened.close()
    assert [path.name for path in folders[1].iterdir()] == ["upload.db"]


async def test_who_runs_on_a_database_is_asked_of_its_lock(tmp_path: Path) -> None:
    """The pid in it may be one of another container: none of ours, or another program's."""
    place = store_at(f"sqlite:///{tmp_path}/upload.db")
    lock_file = tmp_path / "upload.db.lock"
    assert place.holder() == ""
    held = place.lock()
    assert place.holder() == str(os.getpid())
    for stranger in ("999999999", "1", ""):
        lock_file.write_text(stranger)
        assert place.holder() == (stranger or "unknown")
    held.release()
    for stranger in ("999999999", "1", str(os.getpid())):
        lock_file.write_text(stranger)
        assert place.holder() == ""


async def test_asking_for_the_lock_keeps_no_server_from_starting(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/upload.db"
    await (await open_store(url)).close()
    # As `holder` has it for a moment.
    asking = os.open(tmp_path / "upload.db.lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    opening = asyncio.create_task(open_store(url))
    await asyncio.wait([opening], timeout=0.05)
    assert not opening.done()
    os.close(asking)

    await (await opening).close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://localhost/x", "looks like sqlite:///"),
        ("upload.db", "looks like sqlite:///"),
        ("sqlite://host/upload.db", "looks like sqlite:///"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "would be lost"),
        ("sqlite:///a.db?mode=ro", "looks like sqlite:///"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused(url: str, words: str) -> None:
    with pytest.raises(UnusableDatabaseUrl, match=f"^--database-url: .*{words}"):
        await open_store(url)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give links away")
async def test_a_link_of_another_user_leads_to_no_database(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    link = tmp_path / "upload.db"
    link.symlink_to(tmp_path / "target" / "x.db")
    os.lchown(link, 65534, 65534)
    with pytest.raises(CannotStart, match="link of another user"):
        await open_store(f"sqlite:///{link}")
    assert list((tmp_path / "target").iterdir()) == []
