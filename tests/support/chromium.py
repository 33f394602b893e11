"""A real browser for tests, without a window."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, async_playwright

from support.wanting import missing

# No GPU, no QUIC, and none of the services that a browser talks to by itself.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_program() -> str:
    """Where Chromium is; skips without one, except in CI."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        missing("needs Chromium (apt-get install chromium)")
    return program


@asynccontextmanager
async def launched_chromium(*flags: str) -> AsyncIterator[Browser]:
    """Run Chromium; skips without one, except in CI. Every context of it has a profile of its own."""
    program = chromium_program()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=[*_FLAGS, *flags])
        yield browser
        await browser.close()


@asynccontextmanager
async def chromium_with(profile: Path, preferences: Mapping[str, object]) -> AsyncIterator[BrowserContext]:
    """Run Chromium on a profile of these preferences, as its settings page would write them."""
    program = chromium_program()
    (profile / "Default").mkdir(parents=True)
    (profile / "Default" / "Preferences").write_text(json.dumps(preferences))
    async with async_playwright() as playwright:
        context = await playwright.chromium.launch_persistent_context(
            profile, executable_path=program, args=list(_FLAGS)
        )
        yield context
        await context.close()
