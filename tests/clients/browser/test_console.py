"""What people do on the page at /, in a real Chromium: upload, cancel, watch, lose the network, close the tab."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, Route, expect

from clients.browser.conftest import LOOP, OpenPage, Row, StartServer, Visitor
from support.eventually import eventually
from support.ports import free_port
from support.process import ServerProcess
from support.proxy import FaultProxy, fault_proxy

pytestmark = pytest.mark.asyncio(loop_scope=LOOP)
expect.set_options(timeout=20_000)

MB = 1_000_000


async def files_of(server: ServerProcess, name: str) -> list[dict[str, Any]]:
    """The files of this name, as the service has them."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = (await client.get("/api/v1/files", params={"page_size": 1000})).json()
    return [file for file in answer["files"] if name in file["filename"]]


async def file_of(server: ServerProcess, name: str) -> dict[str, Any]:
    """The one file of this name."""
    (file,) = await files_of(server, name)
    return file


async def announce(server: ServerProcess, name: str, size: int = 5) -> str:
    """Announce a file, as somebody else would."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/api/v1/upload/initiate", json={"filename": name, "size_bytes": str(size)})
    return str(answer.json()["file"]["file_id"])


async def cancel(server: ServerProcess, file_id: str, reason: str) -> None:
    """Cancel a file, as somebody else would."""
    async with httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post(f"/api/v1/upload/cancel/{file_id}", json={"reason": reason})
    assert answer.status_code == 200


async def status_of(server: ServerProcess, name: str) -> str:
    return str((await file_of(server, name))["status"]).removeprefix("UPLOAD_STATUS_").lower()


async def test_a_file_of_200_mb_cancelled_half_way_is_gone_from_the_disk(
    open_page: OpenPage, start_server: StartServer, big_file: Path
) -> None:
    server = start_server()
    async with fault_proxy(server.http_port) as network:
        network.up.throttle = 20 * MB
        visitor = await open_page(network.url)
        await visitor.choose(big_file)
        row = visitor.row("holiday film.mov")
        await expect(row.badge).to_have_text("Uploading")
        await row.reaches(40)
        # The rest takes a minute, however long it takes to look and to press.
        network.up.throttle = 2 * MB
        await expect(row.line).to_have_text(re.compile(r"MB of 200 MB, .*MB/s, \d+ s left"))
        assert server.stored_bytes() > 50 * MB
        await row.press_cancel("the wrong film")
        network.up.throttle = 0
        await expect(row.badge).to_have_text("Cancelled")
        await expect(row.line).to_have_text(re.compile(r"^Cancelled \d.* by you: “the wrong film”$"))
        await expect(row.cancel).to_be_hidden()
        # The only upload stands in the tray.
        await expect(visitor.page.locator("#empty")).to_have_text("No other uploads.")
        assert await status_of(server, "holiday film") == "cancelled"

        async def nothing_stored() -> bool:
            return server.stored_bytes() == 0

        await eventually(nothing_stored)
        await row.details.click()
        steps = visitor.page.locator("#trail li strong")
        await expect(steps).to_have_text(["announced as pending", "pending → uploading", "uploading → cancelled"])
        await expect(visitor.page.locator("#trail q")).to_have_text("the wrong film")
        # Before the network goes from under it.
        assert visitor.problems == []


async def test_what_was_chosen_arrives_and_a_reload_finds_it_again(
    open_page: OpenPage, server: ServerProcess, tmp_path: Path
) -> None:
    path = tmp_path / "report é 🎉.pdf"
    path.write_bytes(b"all of it" * 100_000)
    visitor = await open_page(server.url)
    await visitor.choose(path)
    await expect(visitor.row("report é 🎉.pdf").badge).to_have_text("Completed")
    assert (await file_of(server, "report é"))["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    await visitor.page.reload()
    await expect(visitor.row("report é 🎉.pdf").badge).to_have_text("Completed")
    await visitor.page.get_by_role("radio", name="Cancelled").check()
    await expect(visitor.row("report é 🎉.pdf").row).to_have_count(0)
    await visitor.page.get_by_role("radio", name="Completed").check()
    await expect(visitor.row("report é 🎉.pdf").row).to_be_visible()


async def test_a_folder_is_a_batch_that_one_button_cancels(
    open_page: OpenPage, server: ServerProcess, network: FaultProxy, folder: Path
) -> None:
    network.up.throttle = 2 * MB
    visitor = await open_page(network.url)
    await visitor.choose_folder(folder)
    batch = visitor.row("Batch of 12 files: photos/IMG_00.jpg, …")
    await expect(batch.badge).to_have_text("Uploading")
    await batch.reaches(5)
    await batch.press_cancel("no room")
    await expect(batch.badge).to_have_text("Cancelled")
    await expect(batch.line).to_have_text(re.compile(r"^Cancelled \d+ of 12 files.* · by you: “no room”$"))
    text = await batch.line.inner_text()
    files = await files_of(server, "photos/IMG_")
    statuses = [file["status"] for file in files]
    cancelled = statuses.count("UPLOAD_STATUS_CANCELLED")
    assert cancelled > 0
    assert text.startswith(f"Cancelled {cancelled} of 12 files")
    assert cancelled + statuses.count("UPLOAD_STATUS_COMPLETED") == 12
    await batch.files.click()
    await expect(visitor.page.locator(".inner .badge[data-state=cancelled]")).to_have_count(cancelled)


@pytest.mark.parametrize("fault", ["refused", "silent"])
async def test_http_made_to_fail_the_socket_is_closed_and_the_file_cancelled_all_the_same(
    open_page: OpenPage, server: ServerProcess, network: FaultProxy, tmp_path: Path, fault: str
) -> None:
    network.up.throttle = 5 * MB
    path = tmp_path / f"fallback {fault}.bin"
    path.write_bytes(bytes(60 * MB))
    visitor = await open_page(network.url)

    async def fail(route: Route) -> None:
        if fault == "refused":
            await route.abort()

    await visitor.page.route("**/upload/cancel/**", fail)
    await visitor.choose(path)
    row = visitor.row(path.name)
    await row.reaches(1)
    await row.press_cancel("no way to say it")
    await expect(row.line).to_have_text(re.compile(r"^Cancelled \d.* by you"))
    file = await file_of(server, path.name)
    assert (file["cancelled_by"], file["cancel_reason"]) == ("websocket_close", "no way to say it")


async def test_a_cancel_that_comes_too_late_says_so_and_shows_what_is(
    open_page: OpenPage, server: ServerProcess
) -> None:
    visitor = await open_page(server.url)
    file_id = await announce(server, "finished meanwhile.bin", 0)
    row = visitor.row("finished meanwhile.bin")
    await expect(row.cancel).to_be_visible()

    async def finish_first(route: Route) -> None:
        await visitor.page.evaluate(COMPLETE, file_id)
        await route.continue_()

    await visitor.page.route("**/upload/cancel/**", finish_first)
    await row.press_cancel()
    await expect(row.line).to_have_text(re.compile("^Too late to cancel. 0 bytes, completed"))
    await expect(row.badge).to_have_text("Completed")
    await expect(visitor.page.locator("#said")).to_have_text(re.compile("Too late to cancel"))
    assert await status_of(server, "finished meanwhile") == "completed"


# Somebody else completes a file of 0 bytes.
COMPLETE = """(id) => new Promise((resolve) => {
  const socket = new WebSocket(`ws://${location.host}/api/v1/upload/ws/${id}`);
  socket.onopen = () => socket.send('{"type":"commit"}');
  socket.onclose = resolve;
})"""


async def test_the_server_restarted_under_the_page(
    open_page: OpenPage, start_server: StartServer, tmp_path: Path
) -> None:
    port = ("--http-port", str(free_port()))
    server = start_server(*port)
    path = tmp_path / "long.bin"
    path.write_bytes(bytes(20 * MB))
    async with fault_proxy(server.http_port) as network:
        network.up.throttle = 2 * MB
        visitor = await open_page(network.url)
        await visitor.choose(path)
        row = visitor.row("long.bin")
        await row.reaches(10)
        await asyncio.to_thread(server.kill)
        await expect(visitor.page.locator("#live-text")).to_have_text("Reconnecting…")
        await expect(row.badge).to_have_text("Reconnecting")
        network.up.throttle = 0
        again = await asyncio.to_thread(start_server, *port)
        await expect(row.badge).to_have_text("Completed")
        await expect(visitor.page.locator("#live-text")).to_have_text("Live")
        assert await status_of(again, "long.bin") == "completed"


async def test_a_network_lost_for_a_moment_cancels_nothing(
    open_page: OpenPage, server: ServerProcess, network: FaultProxy, tmp_path: Path
) -> None:
    path = tmp_path / "through a tunnel.bin"
    path.write_bytes(bytes(30 * MB))
    network.up.throttle = 3 * MB
    visitor = await open_page(network.url)
    await visitor.choose(path)
    row = visitor.row(path.name)
    await row.reaches(10)
    network.away = True
    network.reset_all()
    await expect(row.badge).to_have_text("Reconnecting")
    network.up.throttle = 0
    network.away = False
    await expect(row.badge).to_have_text("Completed")
    assert await status_of(server, path.name) == "completed"


async def test_closing_the_tab_cancels_also_what_waited_for_its_turn(
    open_page: OpenPage, server: ServerProcess, network: FaultProxy, tmp_path: Path
) -> None:
    network.up.throttle = 2 * MB
    paths = [tmp_path / f"closed {number}.bin" for number in range(8)]
    for path in paths:
        path.write_bytes(bytes(6 * MB))
    visitor = await open_page(network.url)
    await visitor.choose(*paths)
    await visitor.row("Batch of 8 files").reaches(1)
    # The browser asks for somebody who has used the page; who stays has lost nothing.
    await visitor.page.mouse.click(5, 5)
    async with visitor.page.expect_event("dialog") as asked:
        await visitor.page.close(run_before_unload=True)
    question = await asked.value
    assert question.type == "beforeunload"
    await question.dismiss()
    assert {file["status"] for file in await files_of(server, "closed ")}.isdisjoint({"UPLOAD_STATUS_CANCELLED"})
    await visitor.page.close()

    async def all_cancelled() -> bool:
        files = await files_of(server, "closed ")
        return len(files) == 8 and all(file["status"] == "UPLOAD_STATUS_CANCELLED" for file in files)

    await eventually(all_cancelled)


async def test_two_pages_one_cancels_and_the_other_sees_by_whom_when_and_why(
    open_page: OpenPage, server: ServerProcess, network: FaultProxy, tmp_path: Path
) -> None:
    path = tmp_path / "seen by two.bin"
    path.write_bytes(bytes(60 * MB))
    network.up.throttle = 5 * MB
    sender = await open_page(network.url)
    other = await open_page(server.url)
    await sender.choose(path)
    theirs = other.row(path.name)
    await theirs.reaches(1)
    await theirs.press_cancel("quota is used up")
    mine = sender.row(path.name)
    await expect(mine.line).to_have_text(re.compile(r"^Cancelled \d.* by a user: “quota is used up”$"))
    await expect(theirs.line).to_have_text(re.compile(r"by you: “quota is used up”$"))
    await expect(other.page.locator("#feed li").first).to_have_text(
        re.compile("seen by two.bin was cancelled by you: “quota is used up”")
    )


async def test_eight_tabs_hold_one_watch_and_hand_it_on(open_page: OpenPage, start_server: StartServer) -> None:
    server = start_server()
    first = await open_page(server.url)
    tabs = [first, *[await open_page(server.url, first.page.context) for _ in range(7)]]
    assert watches_of(tabs) == 1
    early = await announce(server, "seen by eight.bin")
    for tab in tabs:
        await expect(tab.row("seen by eight.bin").badge).to_have_text("Pending")
    await first.page.close()
    await cancel(server, early, "after the first tab was closed")
    for tab in tabs[1:]:
        await expect(tab.row("seen by eight.bin").line).to_have_text(re.compile("after the first tab was closed"))
    assert watches_of(tabs) == 2, "one after the other"


def watches_of(tabs: list[Visitor]) -> int:
    """How many watches these tabs have opened."""
    return sum("/api/v1/watch" in url for tab in tabs for url in tab.requested)


async def test_it_loads_nothing_from_elsewhere_under_a_strict_policy(
    open_page: OpenPage, server: ServerProcess
) -> None:
    visitor = await open_page(server.url)
    async with httpx.AsyncClient(base_url=server.url) as client:
        policy = (await client.get("/")).headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
    assert "unsafe" not in policy
    assert {url for url in visitor.requested if not url.startswith(server.url)} == set()
    ran = await visitor.page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.ran = true";
          document.head.append(script);
          return window.ran === true;
        }"""
    )
    assert ran is False


async def test_bad_files_say_in_one_sentence_what_happened_and_what_to_do(
    open_page: OpenPage, server: ServerProcess
) -> None:
    visitor = await open_page(server.url)
    # So many that no other test's batch has them.
    good = [f"good {number}.txt" for number in range(7)]
    await choose_named(visitor.page, *good, "bell\u0007.txt", f"{'x' * 300}.txt", "")
    await expect(visitor.row("bell").line).to_have_text(re.compile("its name holds a character that cannot be shown"))
    await expect(visitor.row("xxx").line).to_have_text(
        re.compile("304 characters of at most 255; give it a shorter name")
    )
    await expect(visitor.row("xxx").badge).to_have_text("Not uploaded")
    await expect(visitor.row("Batch of 7 files").badge).to_have_text("Completed")
    await choose_named(visitor.page, "empty.txt")
    await expect(visitor.row("empty.txt").badge).to_have_text("Completed")

    # More than a batch takes follows in another batch, unless there is no getting on: here a proxy refuses the first.
    told = asyncio.Event()

    async def refuse(route: Route) -> None:
        await told.wait()
        await route.fulfill(status=413)

    await visitor.page.route("**/api/v1/batch/initiate", refuse)
    await choose_named(visitor.page, *[f"{number}.txt" for number in range(10_001)])
    notices = visitor.page.locator("#notices")
    await expect(notices).to_have_text(re.compile("^1 more file to follow: a batch takes 10,000"))
    told.set()
    await expect(notices).to_have_text(re.compile("^1 file not begun, as the batch before was cancelled or could"))
    await expect(visitor.row("Batch of 10,000").line).to_have_text(re.compile("^That is too much for one request"))


async def choose_named(page: Page, *names: str) -> None:
    """Choose files of 0 bytes whose names no disk would take."""
    await page.evaluate(
        """(names) => {
          const transfer = new DataTransfer();
          for (const name of names) if (name) transfer.items.add(new File([], name));
          const input = document.querySelector("#files");
          input.files = transfer.files;
          input.dispatchEvent(new Event("change"));
        }""",
        list(names),
    )


async def test_by_keyboard_alone(open_page: OpenPage, server: ServerProcess) -> None:
    await announce(server, "by keyboard.bin")
    visitor = await open_page(server.url)
    row = visitor.row("by keyboard.bin")
    await expect(row.cancel).to_be_visible()
    await visitor.page.keyboard.press("Tab")
    await expect(visitor.page.get_by_text("Skip to the list of uploads")).to_be_focused()
    await visitor.page.keyboard.press("Enter")
    await tab_to(visitor.page, row)
    await visitor.page.keyboard.press("Enter")
    await expect(row.row.get_by_label(re.compile("^Why"))).to_be_focused()
    await visitor.page.keyboard.press("Enter")
    await expect(row.badge).to_have_text("Cancelled")
    # The button has gone; the focus has not.
    await expect(row.details).to_be_focused()
    await visitor.page.keyboard.press("Enter")
    await expect(visitor.page.get_by_role("dialog", name="by keyboard.bin")).to_be_visible()
    await visitor.page.keyboard.press("Escape")
    await expect(row.details).to_be_focused()


async def tab_to(page: Page, row: Row) -> None:
    for _ in range(200):
        await page.keyboard.press("Tab")
        if await row.cancel.evaluate("(button) => button === document.activeElement"):
            return
    pytest.fail("the button cannot be reached by Tab")


async def test_nothing_moves_away_under_a_hand(open_page: OpenPage, server: ServerProcess) -> None:
    aimed_at = await announce(server, "aimed at.bin")
    visitor = await open_page(server.url)
    row = visitor.row("aimed at.bin")
    await row.cancel.hover()
    place = "(it) => it.getBoundingClientRect().y"
    before = await row.cancel.evaluate(place)
    for number in range(3):
        await announce(server, f"newer {number}.bin")
    fresh = visitor.page.get_by_role("button", name="Show 3 newer")
    await expect(fresh).to_be_visible()
    await cancel(server, aimed_at, "its line changes, its place does not")
    await expect(row.badge).to_have_text("Cancelled")
    assert await row.details.evaluate(place) == before
    await visitor.page.mouse.move(0, 0)
    await expect(visitor.row("newer 2.bin").row).to_be_visible()
    await expect(fresh).to_be_hidden()
