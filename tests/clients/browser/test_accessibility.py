"""The page by the rules of WCAG 2.2 A and AA that a program can check, light and dark, wide and narrow."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Final, Literal

import httpx
import pytest
from playwright.async_api import Page, expect

from clients.browser.conftest import LOOP, OpenPage
from clients.browser.test_console import announce, cancel
from support.process import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)
AXE = Path(__file__).parents[3] / "clients" / "typescript" / "node_modules" / "axe-core" / "axe.min.js"
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDTHS: Final = (1280, 390)
RUN = """async () => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const { violations } = await axe.run(document, { runOnly: tags });
  const told = ({ target, failureSummary }) => [target.join(" "), failureSummary];
  return violations.map(({ id, nodes }) => [id, nodes.map(told)]);
}"""


async def load_axe(page: Page) -> None:
    """Bring axe-core into a page; skips where it is not installed, except in CI."""
    if not AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("axe-core is missing: run npm ci in clients/typescript")
        pytest.skip("needs axe-core (npm ci in clients/typescript)")
    # Not as a script of the page: its policy takes none.
    await page.evaluate(AXE.read_text() + ";undefined")


async def look(page: Page) -> None:
    """What the page shows now, light and dark, wide and narrow."""
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 900})
        overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0, f"nothing is wider than {width} pixels"
        for scheme in SCHEMES:
            await page.emulate_media(color_scheme=scheme)
            assert await page.evaluate(RUN) == [], (scheme, width)


@pytest.mark.timeout(120)
async def test_axe_finds_nothing(open_page: OpenPage, server: ServerProcess) -> None:
    await announce(server, "waiting.bin")
    await cancel(server, await announce(server, "cancelled.bin"), "for axe")
    async with httpx.AsyncClient(base_url=server.url) as client:
        done = {"filename": "done.txt", "size_bytes": "2", "data": b64encode(b"ok").decode()}
        assert (await client.post("/api/v1/upload/put", json=done)).status_code == 200
    visitor = await open_page(server.url)
    page, waiting = visitor.page, visitor.row("waiting.bin")
    await expect(waiting.badge).to_be_visible()
    await page.locator("#share", has_text="begun").wait_for()
    await load_axe(page)
    await look(page)
    await waiting.ask_to_cancel()
    await look(page)
    await page.keyboard.press("Escape")
    await waiting.details.click()
    await expect(page.locator("#trail li")).to_have_count(1)
    await look(page)
    await page.keyboard.press("Escape")
    await visitor.row("done.txt").details.click()
    await expect(page.locator("#trail li")).to_have_count(3)
    await page.get_by_role("button", name="Delete content").click()
    await look(page)
