"""Which database URLs can be used, what an operator hears of the others, and who may read the files."""

from __future__ import annotations

import asyncio
import re
import stat
from pathlib import Path

import pytest

from contract.store.kit import pending
from upload_server.domain.errors import CannotStart
from upload_server.store.open import UnusableDatabaseUrl, migrate_store, open_store


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


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://user@localhost/uploads", "not available yet"),
        ("postgres://localhost/uploads", "not available yet"),
        ("mysql://localhost/x", "looks like sqlite:///"),
        ("upload.db", "looks like sqlite:///"),
        ("sqlite://host/upload.db", "looks like sqlite:///"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "would be lost"),
        ("sqlite:///a.db?mode=ro", "looks like sqlite:///"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused(url: str, words: str) -> None:
    with pytest.raises(UnusableDatabaseUrl, match=words):
        await open_store(url)
