"""One installation is lived in once; each test gets a copy."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

import pytest

from support.process import ServerProcess
from unit.upkeep.installation import Installation, Lived, live


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lived]:
    folder = tmp_path_factory.mktemp("lived-in") / "data"
    with ServerProcess(folder) as server:
        lived = asyncio.run(live(server))
        place = Installation(folder, lived)
        deadline = time.monotonic() + 30
        # What is owed deletion is deleted before the end, so that each copy begins without debts. A database tells
        # nobody when it changes: it is looked at again.
        while place.rows("SELECT 1 FROM owed_deletion"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert server.terminate() == 0
    return folder, lived


@pytest.fixture
def place(original: tuple[Path, Lived], tmp_path: Path) -> Installation:
    """A stopped installation of the test's own."""
    folder, lived = original
    shutil.copytree(folder, tmp_path / "data")
    return Installation(tmp_path / "data", lived)
