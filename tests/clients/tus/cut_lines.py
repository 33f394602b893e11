"""Browsers whose line breaks around a cancel: the client comes back by itself, is told, and stops. For ``make prove``.

Three engines, tus-js-client and Uppy, all defaults. Not named as tests are, so that ``make test`` leaves it out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from clients.tus.pages import Sending, sending
from clients.tus.tools import client_page
from support.browsers import BROWSERS
from support.process import StartServer

# Seconds that the line is away.
AWAY_SECONDS = 1.0


@asynccontextmanager
async def cut(one: Sending, after: float) -> AsyncIterator[None]:
    """Break the line so many seconds after the block, before it when negative; it comes back by itself."""
    if after < 0:
        one.network.away = True
        one.network.reset_all()
        await asyncio.sleep(-after)
    yield
    if after >= 0:
        await asyncio.sleep(after)
        one.network.away = True
        one.network.reset_all()
    await asyncio.sleep(AWAY_SECONDS)
    one.network.away = False


@pytest.mark.timeout(180)
@pytest.mark.parametrize("after", [-0.2, 0.0, 0.5, None])
@pytest.mark.parametrize("client", ["tus", "uppy"])
@pytest.mark.parametrize("engine", BROWSERS)
async def test_a_client_that_comes_back_is_told_and_stops(
    start_server: StartServer, tmp_path: Path, engine: str, client: str, after: float | None
) -> None:
    with client_page(tmp_path, client) as origin:
        server = start_server("--allowed-origins", origin)
        async with sending(server, origin, engine, client) as one:
            if after is None:
                await one.cancel()
            else:
                async with cut(one, after):
                    await one.cancel()
            ended = await one.until_ended()
            assert ended["event"] == "error"
            assert "not wanted" in ended["body"]
            # Longer than any retry takes.
            await asyncio.sleep(6)
            assert [file["status"] for file in await one.files()] == ["UPLOAD_STATUS_CANCELLED"]
