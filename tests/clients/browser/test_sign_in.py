"""The page at / where the service asks who calls: sign in by a token, upload as oneself, sign out."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, expect

from clients.browser.conftest import LOOP, StartServer, saved
from support.eventually import eventually
from support.tokens import tokens_in

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)
expect.set_options(timeout=20_000)


async def test_a_person_signs_in_uploads_as_themselves_and_signs_out(
    browser: Browser, start_server: StartServer, tmp_path: Path
) -> None:
    tokens = tokens_in(tmp_path)
    server = start_server(*tokens.options)
    small = tmp_path / "mine.txt"
    small.write_text("mine")
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(server.url)
    form, field = page.locator("#sign-in"), page.get_by_label("Token")
    await expect(form).to_be_visible()
    await expect(page.locator("#drop")).to_be_hidden()
    await field.fill("upl_aaaaaaaa_" + "b" * 43)
    await field.press("Enter")
    await expect(page.locator("#sign-in-error")).to_contain_text("not valid")
    await field.fill(tokens.secrets["owner"])
    await field.press("Enter")
    await expect(page.locator("#who-name")).to_have_text("ada")
    await page.locator("#live[data-state=live]").wait_for()
    # Neither a script nor what the page keeps has the token.
    kept = "document.cookie + JSON.stringify({...localStorage, ...sessionStorage}) + document.documentElement.outerHTML"
    assert tokens.secrets["owner"] not in await page.evaluate(kept)
    await page.set_input_files("#files", str(small))
    async with httpx.AsyncClient(base_url=server.url, headers=tokens.header("owner")) as client:

        async def is_completed() -> bool:
            files = (await client.get("/api/v1/files")).json()["files"]
            return [(file["owner"], file["status"]) for file in files] == [("ada", "UPLOAD_STATUS_COMPLETED")]

        await eventually(is_completed)
    # What its cookie lets a page do: fetch what is its own, and nothing that is for operators.
    assert await saved(page, page.get_by_role("link", name="Download mine.txt")) == "mine"
    await expect(page.locator("#strip, #metrics")).to_have_count(2)
    await expect(page.locator("#strip:visible, #metrics:visible")).to_have_count(0)
    await page.get_by_role("button", name="Sign out").click()
    await expect(form).to_be_visible()
    assert await context.cookies() == []
    await context.close()


async def test_a_page_whose_sign_in_ends_asks_again_and_goes_on_where_it_was(
    browser: Browser, start_server: StartServer, tmp_path: Path
) -> None:
    tokens = tokens_in(tmp_path)
    tokens.add("ada again", "ada", "user")
    server = start_server(*tokens.options)
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(server.url)
    form, field, live = page.locator("#sign-in"), page.get_by_label("Token"), page.locator("#live[data-state=live]")

    async def sign_in(who: str, principal: str) -> None:
        await expect(form).to_be_visible()
        await expect(page.locator("#drop")).to_be_hidden()
        await expect(page.locator("#live-text")).to_have_text("Not signed in")
        await field.fill(tokens.secrets[who])
        await field.press("Enter")
        await expect(form).to_be_hidden()
        await expect(page.locator("#who-name")).to_have_text(principal)
        await live.wait_for()

    await sign_in("owner", "ada")
    await page.evaluate("window.sameAsBefore = true")
    # The watch ends with its token.
    tokens.revoke("owner")
    await expect(form).to_be_visible()
    async with httpx.AsyncClient(base_url=server.url, headers=tokens.header("ada again")) as client:
        spec = {"filename": "announced meanwhile.txt", "size_bytes": 1}
        assert (await client.post("/api/v1/upload/initiate", json=spec)).status_code == 200
    await sign_in("ada again", "ada")
    await expect(page.locator("#list")).to_contain_text("announced meanwhile.txt")
    await expect(page.locator("#live-text")).to_have_text("Live")
    assert await page.evaluate("window.sameAsBefore")
    # The browser has dropped the cookie: the next call tells. For somebody else the page begins anew.
    await context.clear_cookies()
    await page.get_by_label("Time shown").select_option("3600")
    await sign_in("other", "bob")
    assert not await page.evaluate("window.sameAsBefore")
    await expect(page.locator("#list")).not_to_contain_text("announced meanwhile.txt")
    await context.close()
