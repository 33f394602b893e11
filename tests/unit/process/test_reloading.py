"""Files are read again when they change, and when somebody asks; each change once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from upload_server.process import reloading
from upload_server.process.reloading import Reloader


class Files:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "file"
        self.path.write_text("one")
        self.loads = 0
        self.loaded = asyncio.Event()
        self.reloader = Reloader([self.path, folder / "missing"], self._load)

    async def _load(self) -> None:
        self.loads += 1
        self.loaded.set()

    async def until_loaded(self) -> None:
        async with asyncio.timeout(10):
            await self.loaded.wait()
        self.loaded.clear()


async def test_a_change_is_read_once_and_what_stays_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "EVERY_SECONDS", 0.01)
    files = Files(tmp_path)
    looking = asyncio.create_task(files.reloader.run())
    other = tmp_path / "other"
    other.write_text("one")
    # Another file of the same contents in its place counts: the number differs.
    other.replace(files.path)
    await files.until_loaded()
    (tmp_path / "missing").write_text("there")
    await files.until_loaded()
    looking.cancel()
    assert files.loads == 2


async def test_a_nudge_has_them_read_unchanged(tmp_path: Path) -> None:
    files = Files(tmp_path)
    looking = asyncio.create_task(files.reloader.run())
    files.reloader.nudge()
    await files.until_loaded()
    looking.cancel()
    assert files.loads == 1
