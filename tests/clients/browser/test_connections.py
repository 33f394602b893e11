"""What a browser's limits do to the page at /: six connections a host, no secure context, no site data."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from clients.browser.conftest import INSECURE_HOST, LOOP, StartServer, Visitor
from clients.browser.test_console import announce, status_of, watches_of
from support.chromium import chromium_with
from support.process import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)

# No cookies, no storage, no locks: as the browser's settings block "on-device site data".
NO_SITE_DATA = {"profile": {"default_content_setting_values": {"cookies": 2}}}


@pytest.mark.parametrize("speak", [True, False], ids=["tabs that speak", "tabs that cannot"])
async def test_six_tabs_on_plain_http_hold_up_no_cancel_and_no_upload(
    browser: Browser, start_server: StartServer, tmp_path: Path, speak: bool
) -> None:
    server = start_server("--allowed-hosts", INSECURE_HOST)
    context = await browser.new_context()
    if not speak:
        await context.add_init_script("delete window.BroadcastChannel")
    tabs = [
        await Visitor(await context.new_page()).open(f"http://{INSECURE_HOST}:{server.http_port}/") for _ in range(6)
    ]
    first = tabs[0].page
    assert await first.evaluate("[isSecureContext, navigator.locks === undefined]") == [False, True]
    if speak:
        assert watches_of(tabs) == 1
    else:
        await expect(first.locator("#live[data-state=live]")).to_be_visible()
    await announce(server, "somebody's.bin")
    for tab in tabs:
        await expect(tab.row("somebody's.bin").badge).to_have_text("Pending")
    began = time.monotonic()
    await tabs[0].row("somebody's.bin").press_cancel()
    await expect(tabs[0].row("somebody's.bin").badge).to_have_text("Cancelled")
    assert time.monotonic() - began < 15
    assert await status_of(server, "somebody's") == "cancelled"
    path = tmp_path / "from the sixth tab.txt"
    path.write_text("all of it")
    began = time.monotonic()
    await tabs[5].choose(path)
    # The first tab's list keeps still: the focus is in it since its cancel.
    await first.get_by_role("button", name="Show 1 newer").click()
    for tab in reversed(tabs):
        await expect(tab.row(path.name).badge).to_have_text("Completed")
    assert time.monotonic() - began < 20
    if speak:
        # The tab that has listened for all hands the watch on.
        await first.close()
        await announce(server, "after the first tab.bin")
        for tab in tabs[1:]:
            await expect(tab.row("after the first tab.bin").badge).to_have_text("Pending")
    await context.close()


async def test_with_site_data_blocked_the_page_is_live_and_true(server: ServerProcess, tmp_path: Path) -> None:
    await announce(server, "before the page.bin")
    path = tmp_path / "without site data.txt"
    path.write_text("all of it")
    async with chromium_with(tmp_path / "profile", NO_SITE_DATA) as context:
        tabs = [await Visitor(await context.new_page()).open(server.url) for _ in range(2)]
        blocked = "() => { try { return String(localStorage); } catch (error) { return error.name; } }"
        assert await tabs[0].page.evaluate(blocked) == "SecurityError"
        await expect(tabs[0].row("before the page.bin").badge).to_have_text("Pending")
        await expect(tabs[0].page.locator("#notices .notice")).to_be_hidden()
        await tabs[0].choose(path)
        for tab in tabs:
            await expect(tab.row(path.name).badge).to_have_text("Completed")
            assert tab.problems == []
