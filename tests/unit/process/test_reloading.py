"""Files are read again when they change, when somebody asks, and until they could be taken."""

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
        # Of each time that they were read, whether it is once more after one that failed.
        self.again: list[bool] = []
        self.good = True
        self.loaded = asyncio.Event()
        self.reloader = Reloader([self.path, folder / "missing"], self._load)

    async def _load(self, again: bool) -> bool:
        self.again.append(again)
        self.loaded.set()
        return self.good

    async def until_loaded(self) -> None:
        async with asyncio.timeout(30):
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
    # At once: what is written bit by bit changes twice.
    other.write_text("there")
    other.replace(tmp_path / "missing")
    await files.until_loaded()
    looking.cancel()
    assert files.again == [False, False]


async def test_a_nudge_has_them_read_unchanged(tmp_path: Path) -> None:
    files = Files(tmp_path)
    looking = asyncio.create_task(files.reloader.run())
    files.reloader.nudge()
    await files.until_loaded()
    looking.cancel()
    assert files.again == [False]


async def test_what_could_not_be_taken_is_read_until_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "EVERY_SECONDS", 0.01)
    files = Files(tmp_path)
    files.good = False
    looking = asyncio.create_task(files.reloader.run())
    other = tmp_path / "other"
    other.write_text("not yet valid")
    other.replace(files.path)
    for _ in range(2):
        await files.until_loaded()
    files.good = True
    await files.until_loaded()
    # What is good by now is read no more.
    count = len(files.again)
    files.reloader.nudge()
    await files.until_loaded()
    looking.cancel()
    assert files.again[:3] == [False, True, True]
    assert files.again[count:] == [False]
