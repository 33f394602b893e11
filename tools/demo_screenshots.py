"""Makes the pictures of the page at / under docs/images: a server of its own, the demo's people, a real Chromium.

``.venv/bin/python tools/demo_screenshots.py``; look at them before you commit them.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.async_api import Browser, Page, async_playwright

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = ROOT / "docs" / "images"
WIDE: Final = {"width": 1440, "height": 900}
NARROW: Final = {"width": 390, "height": 844}
DEMO_SECONDS: Final = 75
MB: Final = 1_000_000


async def start_server(data_dir: Path) -> tuple[asyncio.subprocess.Process, str, str]:
    """Start a server; returns it, its page's URL and its gRPC address."""
    program = Path(sys.executable).parent / "upload-server"
    options = ["--grpc-port", "0", "--http-port", "0", "--data-dir", str(data_dir), "--log-format", "json"]
    process = await asyncio.create_subprocess_exec(program, *options, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None  # noqa: S101 - for the type checker
    async for line in process.stderr:
        text = line.decode()
        if '"serving"' in text:
            ports = dict(re.findall(r'"(grpc_port|http_port)":\s*(\d+)', text))
            return process, f"http://127.0.0.1:{ports['http_port']}", f"127.0.0.1:{ports['grpc_port']}"
    raise RuntimeError("the server did not start")


async def drain(process: asyncio.subprocess.Process) -> None:
    """Read the log, so that the server never waits for us."""
    if process.stderr is not None:
        while await process.stderr.read(64 * 1024):
            pass


def files(folder: Path) -> tuple[Path, Path]:
    """A big film and a folder of photos; nothing but holes, which is quick to make."""
    film, photos = folder / "wedding film.mov", folder / "photos of the tour"
    photos.mkdir()
    for path, size in ((film, 4_000 * MB), *((photos / f"IMG_{number:04}.jpg", 60 * MB) for number in range(24))):
        with path.open("wb") as out:
            out.truncate(size)
    return film, photos


async def open_page(browser: Browser, url: str, scheme: str, size: dict[str, int]) -> Page:
    """Open the page in a window of this size and in light or dark."""
    options = {"color_scheme": scheme, "viewport": size, "device_scale_factor": 1}
    context = await browser.new_context(**options)  # type: ignore[arg-type]
    page = await context.new_page()
    await page.goto(url)
    await page.locator("#live[data-state=live]").wait_for()
    return page


async def take(page: Page, name: str) -> None:
    """Take one picture."""
    await page.screenshot(path=IMAGES / f"{name}.png")
    sys.stderr.write(f"{name}\n")


async def cancel(page: Page, name: str, reason: str) -> None:
    """Cancel the file or batch of this name."""
    row = page.locator(".row", has=page.locator(".name", has_text=name)).first
    press = """(row, reason) => {
      row.querySelector(".side > .cancel").click();
      row.querySelector(".ask input").value = reason;
      row.querySelector(".ask [type=submit]").click();
    }"""
    await row.evaluate(press, reason)


async def pictures(browser: Browser, url: str, folder: Path) -> None:
    """Do what the pictures show."""
    film, photos = files(folder)
    light = await open_page(browser, url, "light", WIDE)
    dark = await open_page(browser, url, "dark", WIDE)
    narrow = await open_page(browser, url, "light", NARROW)
    await asyncio.sleep(DEMO_SECONDS / 2)
    await light.set_input_files("#files", film)
    await light.set_input_files("#folder", photos)
    await light.locator(".row", has_text=film.name).get_by_text(re.compile("left$")).wait_for()
    await take(light, "console")
    await take(dark, "console-dark")
    # Pressed by the page itself: the list is busy, and the pictures should show these rows near the top.
    await cancel(light, film.name, "the wrong film")
    await cancel(light, photos.name, "")
    await light.locator(".line", has_text=re.compile(r"^Cancelled \d+ of 24")).wait_for()
    await take(light, "console-cancelled")
    await light.get_by_role("button", name=f"Details of {film.name}").evaluate("(button) => button.click()")
    await light.locator("#trail li").nth(2).wait_for()
    await take(light, "console-trail")
    await take(narrow, "console-narrow")


async def main() -> None:
    """Serve, play, take the pictures, stop."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    program = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as temporary:
        server, url, target = await start_server(Path(temporary) / "data")
        draining = asyncio.create_task(drain(server))
        arguments = ("--target", target, "--seconds", str(DEMO_SECONDS), "--seed", "8")
        demo = await asyncio.create_subprocess_exec(sys.executable, str(ROOT / "tools" / "demo.py"), *arguments)
        try:
            async with async_playwright() as playwright:
                flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
                browser = await playwright.chromium.launch(executable_path=program, args=flags)
                await pictures(browser, url, Path(temporary))
                await browser.close()
            await demo.wait()
        finally:
            server.terminate()
            await server.wait()
            await draining


if __name__ == "__main__":
    asyncio.run(main())
