"""The page at / in every engine: Chromium's other tests hold for the others as far as they use the same web."""

from __future__ import annotations

import asyncio

import pytest

from support.browsers import BROWSERS
from support.process import ServerProcess


@pytest.mark.timeout(120)
@pytest.mark.parametrize("engine", BROWSERS)
async def test_the_page_goes_live(server: ServerProcess, engine: str) -> None:
    async with BROWSERS[engine]() as page:
        await page.goto(server.url)
        async with asyncio.timeout(20):
            while await page.evaluate("() => document.querySelector('#live').dataset.state") != "live":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
