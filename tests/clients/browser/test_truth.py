"""What the page at / says is so: counts, lists and times are the service's, however much it has, whenever one looks."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Route, expect

from clients.browser.conftest import LOOP, OpenPage, StartServer, Visitor
from clients.browser.test_console import announce, cancel, file_of
from support.ports import free_port
from support.process import ServerProcess
from support.proxy import FaultProxy

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)

BATCHES, OF = 10, 10_000
MOST_ELEMENTS = 3_000
MOST_HEAP = 60_000_000


async def announce_batch(server: ServerProcess, name: str, files: int, size: int = 5) -> dict[str, Any]:
    """Announce a batch, as somebody else would."""
    specs = [{"filename": f"{name}/{number}", "size_bytes": str(size)} for number in range(files)]
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        answer = await client.post("/api/v1/batch/initiate", json={"files": specs})
    made: dict[str, Any] = answer.json()
    return made


async def cancel_batch(server: ServerProcess, made: dict[str, Any], reason: str) -> None:
    """Cancel a batch, as somebody else would."""
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        answer = await client.post(f"/api/v1/batch/cancel/{made['batch']['batch_id']}", json={"reason": reason})
    assert answer.status_code == 200


def filter_of(visitor: Visitor, name: str) -> Any:
    """The number on a button that chooses what is shown."""
    return visitor.page.locator("#filters label", has_text=name).locator(".number")


async def scroll_down_and_up(visitor: Visitor) -> None:
    """Any number of rows, of which the page holds a part: down beyond it, and up again to the newest."""
    rows = visitor.page.locator("#list > li")
    for _ in range(8):
        last = await rows.last.locator(".name").inner_text()
        await visitor.page.locator("#end").scroll_into_view_if_needed()
        await expect(rows.last.locator(".name")).not_to_have_text(last)
    await expect(visitor.row("job 1/9600").row).to_be_attached()
    await expect(visitor.row("job 1/9999").row).to_have_count(0)
    assert await rows.count() <= 300
    await expect(rows.locator(".badge:not([data-state=cancelled])")).to_have_count(0)
    await visitor.page.evaluate("scrollTo(0, 0)")
    await expect(visitor.row("job 1/9700").row).to_be_attached()
    await visitor.page.get_by_role("button", name="Back to the newest").click()
    await expect(rows).to_have_count(60)
    await expect(visitor.row("job 1/9999").row).to_be_visible()


@pytest.mark.timeout(240)
async def test_100_000_files_are_told_truly_on_every_visit_and_nothing_grows(
    open_page: OpenPage, start_server: StartServer
) -> None:
    server = start_server()
    made = [await announce_batch(server, f"job {number}", OF) for number in range(BATCHES)]
    for number in (0, 1):
        await cancel_batch(server, made[number], "too many")
    await announce(server, "alone.bin")
    visitor = await open_page(server.url)
    for _ in range(2):
        await expect(filter_of(visitor, "All")).to_have_text("100,001")
        await expect(filter_of(visitor, "Cancelled")).to_have_text("20,000")
        await expect(filter_of(visitor, "Pending")).to_have_text("80,001")
        await expect(visitor.row("alone.bin").badge).to_have_text("Pending")
        oldest = visitor.row("Batch of 10,000 files: job 0/0, …")
        await expect(oldest.line).to_have_text("0 completed, 10,000 cancelled · by a user: “too many”")
        await expect(visitor.page.locator("#list > li")).to_have_count(1 + BATCHES)
        await expect(visitor.page.locator("#end")).to_be_hidden()
        await expect(visitor.page.locator("#share")).to_have_text(
            re.compile(r"^100,001 begun, 20,000 cancelled\. No cancels came too late")
        )
        assert sum("/api/v1/files" in url or "/api/v1/batches" in url for url in visitor.requested) < 2 + 2 * BATCHES
        await visitor.page.reload()
    await visitor.page.get_by_role("radio", name="Cancelled").check()
    rows = visitor.page.locator("#list > li")
    await expect(rows).to_have_count(60)
    await expect(visitor.row("job 1/9999").badge).to_have_text("Cancelled")
    await scroll_down_and_up(visitor)
    await visitor.page.evaluate("scrollTo(0, 0)")
    await visitor.page.get_by_role("radio", name="All").check()
    await cancel_batch(server, made[5], "now too")
    await expect(visitor.row("job 5/").line).to_have_text(re.compile("^0 completed, 10,000 cancelled"))
    await expect(filter_of(visitor, "Cancelled")).to_have_text("30,000")
    await visitor.row("job 4/").files.click()
    await expect(visitor.page.locator(".inner > li")).to_have_count(20)
    assert await visitor.page.evaluate("document.querySelectorAll('*').length") < MOST_ELEMENTS
    assert await visitor.page.evaluate("performance.memory.usedJSHeapSize") < MOST_HEAP


async def test_a_change_while_a_list_is_read_is_not_lost(open_page: OpenPage, server: ServerProcess) -> None:
    file_id = await announce(server, "changed meanwhile.bin")
    visitor = await open_page(server.url)
    read, changed = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        answer = await route.fetch()
        read.set()
        await changed.wait()
        await route.fulfill(response=answer)

    await visitor.page.route("**/api/v1/files?*statuses=*", late)
    await visitor.page.get_by_role("radio", name="Pending").check()
    await read.wait()
    await cancel(server, file_id, "while it is read")
    await expect(visitor.page.locator("#feed li").first).to_have_text(re.compile("changed meanwhile.bin was cancelled"))
    changed.set()
    await expect(visitor.page.locator("#list > li, #empty:visible").first).to_be_visible()
    # At once, not when something else happens to be told.
    await expect(visitor.row("changed meanwhile.bin").row).to_have_count(0, timeout=12_000)


@pytest.mark.parametrize("aims", ["before", "between"])
async def test_an_own_upload_has_one_row_whoever_tells_of_it_first(
    open_page: OpenPage, server: ServerProcess, network: FaultProxy, tmp_path: Path, aims: str
) -> None:
    path = tmp_path / f"no ghost {aims}.bin"
    path.write_bytes(bytes(20_000_000))
    network.up.throttle = 1_000_000
    aimed_at = f"aimed at {aims}.bin"
    await announce(server, aimed_at)
    visitor = await open_page(network.url)
    told = asyncio.Event()

    async def late(route: Route) -> None:
        answer = await route.fetch()
        await told.wait()
        await route.fulfill(response=answer)

    await visitor.page.route("**/api/v1/upload/initiate", late)
    rows = visitor.page.locator(".row .name", has_text=path.name)
    if aims == "before":
        await visitor.row(aimed_at).row.hover()
    await visitor.choose(path)
    if aims == "before":
        # The watch has told of the file, which waits behind the button, as somebody aims at the list.
        await expect(visitor.page.get_by_role("button", name="Show 1 newer")).to_be_visible()
    else:
        await expect(rows).to_have_count(2)
        await visitor.row(aimed_at).row.hover()
    told.set()
    row = visitor.row(path.name)
    await expect(row.badge).to_have_text("Uploading")
    await expect(rows).to_have_count(1)
    await row.ask_to_cancel()
    await row.row.locator(".ask [type=submit]").click()
    await expect(row.badge).to_have_text("Cancelled")
    await expect(row.cancel).to_be_hidden()
    await visitor.page.mouse.move(0, 0)
    await expect(rows).to_have_count(1)
    # What was cancelled by mistake goes out anew at a press; the old one is a row of the list then.
    network.up.throttle = 0
    await row.row.get_by_role("button", name="Retry").click()
    await expect(visitor.page.locator("#tray .badge")).to_have_text("Completed")
    await expect(visitor.page.locator("#list .badge").first).to_have_text("Cancelled")


async def test_a_reason_is_one_cancels_own(open_page: OpenPage, server: ServerProcess) -> None:
    for name in ("first.bin", "second.bin", "third.bin"):
        await announce(server, f"reasons {name}")
    visitor = await open_page(server.url)
    longest = "because 📷 " * 50
    first, second, third = (visitor.row(f"reasons {name}.bin") for name in ("first", "second", "third"))
    await first.ask_to_cancel()
    await first.row.locator(".ask input").fill(longest[:499] + "📷" + "more")
    await first.row.get_by_role("button", name="Cancel the upload").click()
    await expect(first.badge).to_have_text("Cancelled")
    assert (await file_of(server, "reasons first"))["cancel_reason"] == longest[:499] + "📷"

    await second.ask_to_cancel()
    await expect(second.row.locator(".ask input")).to_have_value("")
    await second.row.get_by_role("button", name="Wrong file").click()
    await third.ask_to_cancel()
    await expect(visitor.page.locator(".ask")).to_have_count(1)
    await third.row.locator(".ask").press("Escape")
    await expect(third.cancel).to_be_focused()
    await second.ask_to_cancel()
    await expect(second.row.locator(".ask input")).to_have_value("")
    await second.row.get_by_role("button", name="Wrong file").click()
    await visitor.page.keyboard.press("Enter")
    await expect(second.line).to_have_text(re.compile("“Wrong file”$"))

    # What ends meanwhile is not asked about any more, and the focus is not lost.
    await third.ask_to_cancel()
    await cancel(server, str((await file_of(server, "reasons third"))["file_id"]), "by somebody else")
    await expect(visitor.page.locator(".ask")).to_have_count(0)
    await expect(third.details).to_be_focused()


async def test_cancels_too_late_are_told_with_since_when_they_are_known(
    open_page: OpenPage, start_server: StartServer
) -> None:
    port = ("--http-port", str(free_port()))
    server = start_server(*port)
    for number in range(3):
        file_id = await announce(server, f"{number}.bin")
        await cancel(server, file_id, "")
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.post(f"/api/v1/upload/cancel/{file_id}", json={})).status_code == 400
    visitor = await open_page(server.url)
    share = visitor.page.locator("#share")
    await expect(share).to_have_text(
        re.compile(r"^3 begun, 3 cancelled\. 3 cancels came too late since [\d:]+, when the server started; before")
    )
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(start_server, *port)
    await expect(share).to_have_text(
        re.compile(r"^3 begun, 3 cancelled\. No cancels came too late since .*before that it is not known\.$")
    )


async def test_what_began_before_the_page_is_not_told_as_news(open_page: OpenPage, server: ServerProcess) -> None:
    made = await announce_batch(server, "running", 3)
    visitor = await open_page(server.url)
    told = asyncio.Event()

    async def late(route: Route) -> None:
        await told.wait()
        await route.continue_()

    # The watch tells that the batch begins before a list has told the page of the batch.
    await visitor.page.route("**/api/v1/batches?*", late)
    await visitor.page.reload()
    await visitor.page.locator("#live[data-state=live]").wait_for()
    async with httpx.AsyncClient(base_url=server.url) as client:
        start = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        for file_id in (*made["file_ids"][:2], await announce(server, "running alone.bin")):
            assert (await client.patch(f"/api/v1/tus/{file_id}", headers=start, content=b"abc")).status_code == 204
        batch = (await client.get(f"/api/v1/batch/{made['batch']['batch_id']}")).json()
    feed = visitor.page.locator("#feed li", has_text="Batch of 3 files: running/0")
    await expect(feed).to_have_text(re.compile("began to upload"))
    shown = await feed.locator("time").get_attribute("datetime")
    began = datetime.fromisoformat(batch["updated_at"])
    assert shown is not None
    assert abs((datetime.fromisoformat(shown) - began).total_seconds()) < 0.001
    told.set()
    again = await open_page(server.url)
    await expect(again.row("Batch of 3 files: running/0").badge).to_have_text("Uploading")
    await announce(server, "the first news.bin")
    await cancel(server, str((await file_of(server, "the first news"))["file_id"]), "")
    await expect(again.page.locator("#feed li")).to_have_text([re.compile("^the first news.bin was cancelled")])


async def test_a_notice_stays_until_who_put_it_takes_it_back(
    open_page: OpenPage, server: ServerProcess, tmp_path: Path
) -> None:
    visitor = await open_page(server.url)
    read = asyncio.Event()

    async def late(route: Route) -> None:
        await read.wait()
        await route.continue_()

    await visitor.page.route("**/api/v1/files?*", late)
    await visitor.page.reload()
    drop = 'dispatchEvent(new DragEvent("drop", { dataTransfer: new DataTransfer() }))'
    await visitor.page.locator("#live[data-state=live]").wait_for()
    await visitor.page.evaluate(drop)
    alert = visitor.page.get_by_role("alert")
    await expect(alert).to_have_text(re.compile("^There is nothing to upload in that"))
    await announce(server, "read late.bin")
    read.set()
    await expect(visitor.row("read late.bin").badge).to_have_text("Pending")
    await expect(alert).to_have_text(re.compile("^There is nothing to upload in that"))
    good = tmp_path / "good.txt"
    good.write_text("x")
    await visitor.choose(good)
    await expect(alert).to_have_text("")
