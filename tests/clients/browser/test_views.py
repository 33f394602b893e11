"""What one looks for on the page at /, and its address: search, views, links to one file or batch, export, a prefix."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Locator, Route, expect

from clients.browser.conftest import LOOP, OpenPage, Visitor, saved
from clients.browser.test_console import announce, cancel, file_of
from clients.browser.test_truth import announce_batch, cancel_batch
from e2e.proxies.middlemen import nginx
from support.process import ServerProcess

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)
expect.set_options(timeout=20_000)

FORMULA = '=HYPERLINK("http://evil")'


async def test_what_is_looked_for_is_found_and_stands_in_the_address(
    open_page: OpenPage, server: ServerProcess
) -> None:
    made = await announce_batch(server, "sought", 3)
    await cancel_batch(server, made, "the whole batch")
    wanted = await announce(server, "sought/customer Y.pdf")
    await cancel(server, await announce(server, "sought/customer Z.pdf"), FORMULA)
    visitor = await open_page(server.url)
    await look_for_names(visitor, server)
    await look_for_words(visitor, made)
    link = await look_for_an_id(visitor, wanted)
    assert visitor.problems == []
    await follow_links(await open_page(link), server.url, wanted, made["batch"]["batch_id"])


async def look_for_names(visitor: Visitor, server: ServerProcess) -> None:
    page, search = visitor.page, visitor.page.get_by_role("searchbox")
    await search.fill("sought/customer")
    await expect(page.locator("#list > li .name")).to_have_text(["sought/customer Z.pdf", "sought/customer Y.pdf"])
    await expect(page).to_have_url(re.compile(r"/#/\?q=sought%2Fcustomer$"))
    # What is new is shown, if it is what is looked for.
    await announce(server, "other.pdf")
    await announce(server, "sought/customer W.pdf")
    await expect(page.locator("#list > li .name").first).to_have_text("sought/customer W.pdf")
    await page.get_by_role("radio", name="Cancelled").check()
    await expect(page.locator("#list > li .name")).to_have_text("sought/customer Z.pdf")
    await page.reload()
    await expect(page.locator("#list > li .name")).to_have_text("sought/customer Z.pdf")
    await expect(page.get_by_role("radio", name="Cancelled")).to_be_checked()
    told = await saved(page, page.get_by_role("button", name="JSON lines"))
    lines = [json.loads(line) for line in told.splitlines()]
    assert [(line["filename"], line["cancel_reason"]) for line in lines] == [("sought/customer Z.pdf", FORMULA)]
    (row,) = csv.DictReader((await saved(page, page.get_by_role("button", name="CSV"))).splitlines())
    assert (row["filename"], row["cancel_reason"]) == ("sought/customer Z.pdf", f"'{FORMULA}")
    await page.go_back()
    await expect(search).to_have_value("sought/customer")
    await expect(page.locator("#list > li")).to_have_count(3)


async def look_for_words(visitor: Visitor, made: dict[str, Any]) -> None:
    page, search = visitor.page, visitor.page.get_by_role("searchbox")
    await search.fill('sought/ by:batch_cancel after:2020-01-01 owner:""')
    await expect(page.locator("#list > li .name")).to_have_text([f"sought/{number}" for number in (2, 1, 0)])
    # What the service has no filter for the page looks through itself.
    await search.fill('sought/ reason:"THE WHOLE"')
    await expect(page.locator("#list > li .name")).to_have_text([f"sought/{number}" for number in (2, 1, 0)])
    await search.fill(f"id:{made['file_ids'][1][:13].upper()}")
    await expect(page.locator("#list > li .name")).to_have_text(["sought/1"])
    await search.fill("sought/ after:yesterday")
    problem = page.locator("#search-problem")
    await expect(problem).to_have_text(re.compile("^after:yesterday is not a time; write after:2026-01-31"))


async def look_for_an_id(visitor: Visitor, wanted: str) -> str:
    """An id leads to its file, whenever Enter is pressed; returns the address, which is for others too."""
    page, search, read = visitor.page, visitor.page.get_by_role("searchbox"), asyncio.Event()

    async def answer_later(route: Route) -> None:
        await read.wait()
        await route.continue_()

    # What no list holds is read.
    await search.fill("sought/nothing")
    await expect(page.locator("#list > li")).to_have_count(0)
    await page.route(f"**/api/v1/files/{wanted}", answer_later)
    await search.fill(f" {wanted.upper()} ")
    await expect(page).to_have_url(re.compile(f"#/files/{wanted}"))
    await page.keyboard.press("Enter")
    read.set()
    dialog = page.get_by_role("dialog", name="sought/customer Y.pdf")
    await expect(dialog).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_role("heading", name="sought/customer Y.pdf")).to_be_focused()
    assert f"#/files/{wanted}" in page.url
    return page.url


async def delete_content(visitor: Visitor, name: str) -> Locator:
    """Delete a file's content in its details, which stay open, and see that everything says so."""
    await visitor.row(name).details.click()
    dialog = visitor.page.get_by_role("dialog", name=name)
    await dialog.get_by_role("button", name="Delete content").click()
    await expect(dialog.locator(".warning")).to_have_text(re.compile(f"This deletes the 9 bytes of .?{name}"))
    await dialog.get_by_role("button", name="Fetched already").click()
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.row(name).line).to_have_text(
        re.compile(r"^9 bytes, completed [\d:]+; its bytes were let go [\d:]+ by a")
    )
    await expect(dialog.get_by_role("button", name="Delete content")).to_be_hidden()
    await expect(dialog.get_by_role("link", name="Download")).to_be_hidden()
    await expect(dialog.get_by_role("heading", name=name)).to_be_focused()
    return dialog


async def follow_links(other: Visitor, home: str, wanted: str, batch_id: str) -> None:
    dialog = other.page.get_by_role("dialog", name="sought/customer Y.pdf")
    await expect(dialog.locator("#facts")).to_contain_text(wanted)
    await dialog.get_by_role("button", name="Cancel", exact=True).click()
    await expect(dialog.locator(".warning")).to_have_text(re.compile("^This page did not begin it. .*customer Y.pdf"))
    await dialog.get_by_role("button", name="Cancel the upload").click()
    await expect(dialog.locator("#trail li")).to_have_count(2)
    await expect(dialog.get_by_role("button", name="Cancel", exact=True)).to_be_hidden()
    await other.page.keyboard.press("Escape")
    await expect(other.page).to_have_url(re.compile(r"#/(\?.*)?$"))
    await other.page.goto(f"{home}/#/files/{batch_id}")
    dialog = other.page.get_by_role("dialog", name="Batch of 3 files")
    await expect(dialog.locator("#trail strong")).to_have_text(["announced as pending", "pending → cancelled"])
    await dialog.get_by_role("button", name="3", exact=True).click()
    await expect(other.page.locator("#list > li .name")).to_have_text([f"sought/{number}" for number in (2, 1, 0)])
    await other.page.goto(f"{home}/#/files/none")
    alert = other.page.get_by_role("alert")
    await expect(alert).to_have_text(re.compile("^There is no upload and no batch with the id"))


async def test_under_the_prefix_of_a_proxy(open_page: OpenPage, server: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "by a prefix.txt"
    path.write_text("all of it")
    another = {"filename": "let go by another.txt", "size_bytes": "9", "data": b64encode(b"all of it").decode()}
    async with httpx.AsyncClient(base_url=server.url) as client:
        file_id = (await client.post("/api/v1/upload/put", json=another)).json()["file_id"]
    with nginx(tmp_path, server.http_port) as url:
        visitor = await open_page(f"{url}/files-svc/")
        page = visitor.page
        await visitor.choose(path)
        row = visitor.row(path.name)
        await expect(row.badge).to_have_text("Completed")
        assert await saved(page, row.row.get_by_role("link", name="Download")) == "all of it"
        await row.details.click()
        assert page.url == f"{url}/files-svc/#/files/{(await file_of(server, path.name))['file_id']}"
        await page.keyboard.press("Escape")
        # Out of one's own uploads it is a row as any other.
        await row.row.get_by_role("button", name="Dismiss").click()
        await expect(page.locator("#tray")).to_be_hidden()
        await expect(page.locator("#list .name", has_text=path.name)).to_be_visible()
        await delete_content(visitor, path.name)
        await page.keyboard.press("Escape")
        await expect(row.row.get_by_role("link", name="Download")).to_be_hidden()
        async with httpx.AsyncClient(base_url=server.url) as client:

            async def another_first(route: Route) -> None:
                assert (await client.delete(f"/api/v1/files/{file_id}/content")).status_code == 200
                await route.continue_()

            await page.route(f"**/api/v1/files/{file_id}/content?*", another_first)
            dialog = await delete_content(visitor, another["filename"])
        await expect(dialog.get_by_role("alert")).to_have_text(re.compile("^Its content was deleted already"))
        # Once each, of what the watch tells.
        await expect(page.locator("#feed li", has_text="were let go")).to_have_count(2)
        visitor.problems.clear()  # the browser's own of a refused call
        await page.keyboard.press("Escape")
        await expect(page.locator("#strip")).to_contain_text("Open uploads")
        await page.goto(f"{url}/files-svc/docs")
        await expect(page.locator("openapi-explorer")).to_contain_text("InitiateUpload", use_inner_text=False)
        assert visitor.problems == []
