"""The short form of ``make soak``: after thousands of cancelled uploads and broken watches the server is as before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustness.faults.small_cache import SmallCacheServer
from robustness.faults.soak import soak
from support.process import ServerProcess

# Heaps find their size in the first minutes. What is smaller than this shows in the long form only, by its slope.
_MOST_GROWTH = 24 * 2**20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with SmallCacheServer(tmp_path / "data", ("--websocket-grace", "0.2", "--idle-timeout", "3")) as process:
        yield process


@pytest.mark.timeout(180)
async def test_a_soak_leaves_the_server_as_it_was(server: ServerProcess) -> None:
    figures = await soak(server, 24)

    print(figures)
    assert figures.deeds > 300
    assert figures.memory[-1][1] - figures.memory[0][1] < _MOST_GROWTH, figures
    async with asyncio.timeout(20):
        while server.stored_bytes():  # noqa: ASYNC110 - a folder tells nobody when it changes
            await asyncio.sleep(0.1)
    loud = [line for line in server.log if line.get("level") in {"error", "critical"}]
    assert loud == []
