"""The page at / in every engine: Chromium's other tests hold for the others as far as they use the same web."""

from __future__ import annotations

import asyncio

import pytest

from clients.browser.test_console import announce
from support.browsers import BROWSERS
from support.process import ServerProcess

TITLE = "() => document.querySelector('#details:modal #details-title')?.textContent"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("engine", BROWSERS)
async def test_the_page_goes_live(server: ServerProcess, engine: str) -> None:
    async with BROWSERS[engine]() as page:
        await page.goto(f"{server.url}/#/files/{await announce(server, 'by its address.bin')}")
        async with asyncio.timeout(20):
            while await page.evaluate("() => document.querySelector('#live').dataset.state") != "live":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            while await page.evaluate(TITLE) != "by its address.bin":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
