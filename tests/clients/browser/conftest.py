"""A real Chromium on the page at / of a real server, and a network between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page

from support.chromium import launched_chromium
from support.eventually import eventually
from support.process import ServerProcess
from support.proxy import FaultProxy, fault_proxy

LOOP = "session"
INSECURE_HOST = "uploads.test"

StartServer = Callable[..., ServerProcess]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests of a worker; every context of it has a profile of its own.

    A name that is not this machine's leads to it: a page there is no secure context.
    """
    async with launched_chromium(f"--host-resolver-rules=MAP {INSECURE_HOST} 127.0.0.1") as launched:
        yield launched


class Visitor:
    """A page of the console, with what a test does to it again and again."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        self.requested: set[str] = set()
        page.on("console", lambda message: self.problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requested.add(request.url))

    def row(self, name: str) -> Row:
        """The row of a file or batch by a part of its name."""
        return Row(self.page, name)

    async def open(self, url: str) -> Visitor:
        """Open the page and wait until it is live."""
        await self.page.goto(url)
        await self.page.locator("#live[data-state=live]").wait_for()
        return self

    async def choose(self, *paths: Path) -> None:
        """Choose files, as in the browser's dialog."""
        await self.page.set_input_files("#files", list(paths))

    async def choose_folder(self, path: Path) -> None:
        """Choose a folder."""
        await self.page.set_input_files("#folder", path)


async def saved(page: Page, button: Locator) -> str:
    """What a press on this button or link saves, as text."""
    async with page.expect_download() as download:
        await button.click()
    path = await (await download.value).path()
    return await asyncio.to_thread(path.read_text)


class Row:
    """A line of the list."""

    def __init__(self, page: Page, name: str) -> None:
        self._page = page
        self.row = page.locator(".row", has=page.locator(".name", has_text=name)).first
        self.badge = self.row.locator(".badge")
        self.line = self.row.locator(".line")
        self.cancel = self.row.locator("> .side > .cancel")
        self.details = self.row.locator(".open")
        self.files = self.row.locator(".files")

    async def ask_to_cancel(self) -> None:
        """Press the row's cancel button and wait for the question of its reason."""
        await self.cancel.click()
        await self.row.locator(".ask input").wait_for()

    async def press_cancel(self, reason: str = "") -> None:
        """Cancel the row in the page, and look that the very next frame that is painted has news of it."""
        await self.row.evaluate(
            """async (row, reason) => {
              row.querySelector(".side > .cancel").click();
              row.querySelector(".ask input").value = reason;
              row.querySelector(".ask [type=submit]").click();
              await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
              const badge = row.querySelector(".badge").dataset.state;
              if (badge !== "cancelling" && badge !== "cancelled") throw new Error(`shows ${badge}`);
            }""",
            reason,
        )

    async def percent(self) -> float:
        """How far its progress bar is."""
        bar = self.row.locator("progress")
        found: float = await bar.evaluate("(bar) => 100 * bar.value / bar.max") if await bar.count() else 0.0
        return found

    async def reaches(self, percent: float) -> None:
        """Wait until the progress bar is so far."""
        await eventually(lambda: self._is_at(percent))

    async def _is_at(self, percent: float) -> bool:
        return await self.percent() >= percent


OpenPage = Callable[..., Awaitable[Visitor]]


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Open the console at a URL: ``await open_page(url)``; ``context=`` for another tab of the same browser."""
    async with AsyncExitStack() as stack:

        async def open_one(url: str, context: BrowserContext | None = None, **options: object) -> Visitor:
            if context is None:
                context = await browser.new_context(**options)  # type: ignore[arg-type]
                stack.push_async_callback(context.close)
            page = await context.new_page()
            page.set_default_timeout(20_000)
            return await Visitor(page).open(url)

        yield open_one


@pytest_asyncio.fixture(loop_scope="session")
async def network(server: ServerProcess) -> AsyncIterator[FaultProxy]:
    """A network to the shared server."""
    async with fault_proxy(server.http_port) as opened:
        yield opened


@pytest.fixture(scope="session")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 200 MB, each block of it its own."""
    path = tmp_path_factory.mktemp("files") / "holiday film.mov"
    with path.open("wb") as out:
        for _ in range(200):
            out.write(os.urandom(1_000_000))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with twelve files of 4 MB."""
    path = tmp_path / "photos"
    path.mkdir()
    for number in range(12):
        (path / f"IMG_{number:02}.jpg").write_bytes(os.urandom(4_000_000))
    return path
