"""The page by the rules of WCAG 2.2 A and AA that a program can check, light and dark, wide and narrow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from clients.browser.conftest import LOOP, OpenPage
from clients.browser.test_console import announce, cancel
from support.process import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)
AXE = Path(__file__).parents[3] / "clients" / "typescript" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
  const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
  const { violations } = await axe.run(document, { runOnly: tags });
  const told = ({ target, failureSummary }) => [target.join(" "), failureSummary];
  return violations.map(({ id, nodes }) => [id, nodes.map(told)]);
}"""


async def violations(page: Page) -> list[Any]:
    """What axe-core finds; skips where it is not installed, except in CI."""
    if not AXE.exists():
        if os.environ.get("CI"):
            pytest.fail("axe-core is missing: run npm ci in clients/typescript")
        pytest.skip("needs axe-core (npm ci in clients/typescript)")
    # Not as a script of the page: its policy takes none.
    await page.evaluate(AXE.read_text() + ";undefined")
    found: list[Any] = await page.evaluate(RUN)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_axe_finds_nothing(open_page: OpenPage, server: ServerProcess, scheme: str, width: int) -> None:
    waiting = f"waiting {scheme} {width}.bin"
    await announce(server, waiting)
    await cancel(server, await announce(server, f"cancelled {scheme} {width}.bin"), "for axe")
    visitor = await open_page(server.url, color_scheme=scheme, viewport={"width": width, "height": 900})
    await expect(visitor.row(waiting).badge).to_be_visible()
    await visitor.page.locator("#share", has_text="begun").wait_for()
    assert await violations(visitor.page) == []
    await visitor.row(waiting).ask_to_cancel()
    assert await violations(visitor.page) == []
    await visitor.page.keyboard.press("Escape")
    await visitor.row(waiting).details.click()
    await expect(visitor.page.locator("#trail li")).to_have_count(1)
    assert await violations(visitor.page) == []
    overflow = await visitor.page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0, "nothing is wider than the screen"
