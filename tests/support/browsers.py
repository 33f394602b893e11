"""Three engines for one test: Chromium, Firefox and WebKit of the system, without a window; pages run our functions.

Playwright drives only Firefox and WebKit of its own making, and Debian has no geckodriver. So Firefox is spoken to by
Marionette, WebKit by its WebDriver: the same commands, differently wrapped.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

import httpx

from support.chromium import launched_chromium
from support.wanting import missing

_START_SECONDS: Final = 60.0
_MINI_BROWSER: Final = Path("/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser")
# Where Firefox writes the port that it has found for Marionette.
_MARIONETTE_PORT: Final = "MarionetteActivePort"
_PREFERENCES: Final = {"marionette.port": 0, "browser.shell.checkDefaultBrowser": False}


class BrowserPage(Protocol):
    """A page of a browser; Playwright's ``Page`` is one."""

    async def goto(self, url: str, /) -> object:
        """Open a URL; returns once it is loaded."""

    async def evaluate(self, function: str, arg: Any = None, /) -> Any:
        """Call a function, given as its source, and await its promise, at most 30 s; values travel as JSON."""


class _DriverPage:
    """A page driven by WebDriver's commands."""

    def __init__(self, command: Callable[[str, Mapping[str, Any]], Awaitable[Any]]) -> None:
        self._command = command

    async def goto(self, url: str) -> None:
        await self._command("url", {"url": url})

    async def evaluate(self, function: str, arg: Any = None) -> Any:
        script = f"return ({function})(arguments[0])"
        return await self._command("execute/sync", {"script": script, "args": [arg]})


@asynccontextmanager
async def chromium_page() -> AsyncIterator[BrowserPage]:
    """Run Chromium; yields a page of it. Skips without one, except in CI."""
    async with launched_chromium() as browser:
        yield await browser.new_page()


@asynccontextmanager
async def webkit_page() -> AsyncIterator[BrowserPage]:
    """Run WebKit (the GTK port) on a display in memory; yields a page of it. Skips without one, except in CI."""
    programs = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
    if not all(programs) or not _MINI_BROWSER.exists():
        missing("needs WebKit (apt-get install webkit2gtk-driver libwebkit2gtk-4.1-0 xvfb)")
    async with _display() as display, _webkit_driver(display) as driver:
        options = {"binary": str(_MINI_BROWSER), "args": ["--automation"]}
        asked = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        session = (await _ask(driver, "/session", asked))["sessionId"]

        async def command(name: str, arguments: Mapping[str, Any]) -> Any:
            return await _ask(driver, f"/session/{session}/{name}", arguments)

        yield _DriverPage(command)
        # Else the browser outlives its driver.
        await driver.delete(f"/session/{session}")


@asynccontextmanager
async def _display() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *("Xvfb", "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    async with _ended(process):
        async with asyncio.timeout(_START_SECONDS):
            number = await process.stdout.readline()
        yield f":{number.decode().strip()}"


@asynccontextmanager
async def _webkit_driver(display: str) -> AsyncIterator[httpx.AsyncClient]:
    # It would not say which port it has found by itself.
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *("WebKitWebDriver", f"--port={port}"),
        env={**os.environ, "DISPLAY": display},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    async with _ended(process), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90) as client:
        async with asyncio.timeout(_START_SECONDS):
            while not await _listens(port):  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.02)
        yield client


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _ask(driver: httpx.AsyncClient, path: str, arguments: Mapping[str, Any]) -> Any:
    answer = await driver.post(path, json=arguments)
    assert answer.is_success, answer.text
    return answer.json()["value"]


@asynccontextmanager
async def firefox_page() -> AsyncIterator[BrowserPage]:
    """Run Firefox; yields a page of it. Skips without one, except in CI."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    if program is None:
        missing("needs Firefox (apt-get install firefox-esr)")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        profile = Path(folder)
        lines = (f'user_pref("{name}", {json.dumps(value)});\n' for name, value in _PREFERENCES.items())
        (profile / "user.js").write_text("".join(lines))
        process = await asyncio.create_subprocess_exec(
            *(program, "--headless", "--marionette", "--no-remote", "--profile", folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with _ended(process):
            marionette = await _marionette(profile / _MARIONETTE_PORT)
            await marionette.command("WebDriver:NewSession", {})
            yield _DriverPage(marionette.page_command)
            await marionette.command("Marionette:Quit", {"flags": ["eForceQuit"]})
            marionette.close()
            await process.wait()


class _Marionette:
    """Firefox's own protocol: messages of JSON, each behind its length and a colon."""

    _NAMES: Final = {"url": "WebDriver:Navigate", "execute/sync": "WebDriver:ExecuteScript"}

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.close = writer.close

    async def hear(self) -> Any:
        """Return the next message."""
        length = (await self._reader.readuntil(b":"))[:-1]
        return json.loads(await self._reader.readexactly(int(length)))

    async def command(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Carry out one command."""
        message = json.dumps([0, 1, name, arguments]).encode()
        self._writer.write(b"%d:%s" % (len(message), message))
        _, _, error, result = await self.hear()
        assert error is None, error
        return result

    async def page_command(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Carry out a command by its name in WebDriver."""
        return (await self.command(self._NAMES[name], arguments))["value"]


async def _marionette(port_file: Path) -> _Marionette:
    async with asyncio.timeout(_START_SECONDS):
        while not (port_file.exists() and port_file.read_text()):  # noqa: ASYNC110, ASYNC240 - nobody is told
            await asyncio.sleep(0.05)
        port = int(port_file.read_text())  # noqa: ASYNC240 - five digits
        marionette = _Marionette(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 24))
        await marionette.hear()  # its greeting
        return marionette


@asynccontextmanager
async def _ended(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """See to it that a process has ended when the block has."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
        await process.wait()


BROWSERS: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[BrowserPage]]]] = {
    "chromium": chromium_page,
    "firefox": firefox_page,
    "webkit": webkit_page,
}
