"""The page /docs, through a real server and a real browser."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from contract.openapi.chromium import PROGRAM, Tab, open_tab
from contract.openapi.document import PATH
from support.process import ServerProcess

TEXT = "(document.querySelector('openapi-explorer')?.shadowRoot?.textContent ?? '')"


@pytest_asyncio.fixture
async def http(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url) as client:
        yield client


@pytest_asyncio.fixture
async def docs(server: ServerProcess) -> AsyncIterator[Tab]:
    if PROGRAM is None:
        # CI installs it, so a missing browser is a failure there.
        assert not os.environ.get("CI"), "CI has no chromium"
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    async with open_tab(f"{server.url}/docs") as tab:
        yield tab


async def test_the_document_is_served_as_committed(http: httpx.AsyncClient) -> None:
    answer = await http.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == PATH.read_bytes()


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json"])
async def test_a_page_that_the_browser_has_is_not_sent_again(http: httpx.AsyncClient, path: str) -> None:
    first = await http.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = await http.get(path, headers={"if-none-match": f'"other", {first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    other = await http.get(path, headers={"if-none-match": '"other"'})
    assert other.status_code == 200


async def test_the_viewer_is_shipped_and_may_be_kept(http: httpx.AsyncClient) -> None:
    page = await http.get("/docs")
    (script,) = [part.split('"')[0] for part in page.text.split('src="')[1:]]
    answer = await http.get(script)
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


async def test_docs_show_every_operation_and_ask_nobody_else(docs: Tab, server: ServerProcess, tmp_path: Path) -> None:
    await docs.wait_for(f"{TEXT}.includes('Cancel batch')")
    text = await docs.evaluate(f"{TEXT}")
    for shown in ("Initiate upload", "Cancel file", "Watch status", "Upload file by WebSocket", "Readiness"):
        assert shown in text
    await docs.evaluate("location.hash = '#?route=post-/api/v1/upload/cancel/-file_id-'")
    await docs.wait_for(f"{TEXT}.includes('no node accepts another byte of the file')")
    shot = tmp_path / "docs.png"
    shot.write_bytes(base64.b64decode((await docs.call("Page.captureScreenshot"))["data"]))
    assert shot.stat().st_size > 20_000
    assert docs.complaints == []
    assert docs.requests
    assert all(url.startswith((server.url, "data:")) for url in docs.requests)


async def test_a_reader_of_the_docs_can_try_a_change(docs: Tab) -> None:
    """The page's policy lets it ask this server, and the server takes the page for one of its own."""
    call = "fetch('/api/v1/upload/initiate', {method: 'POST', body: JSON.stringify({filename: 'tried.txt'})})"
    await docs.wait_for(f"{TEXT}.includes('Cancel batch')")
    assert await docs.evaluate(f"{call}.then(answer => answer.status)") == 200


async def test_scripts_from_elsewhere_do_not_run(docs: Tab) -> None:
    await docs.wait_for(f"{TEXT}.includes('Cancel batch')")
    inject = (
        "(() => { const s = document.createElement('script'); s.text = 'window.ran = 1'; document.body.append(s); })()"
    )
    await docs.evaluate(inject)
    assert await docs.evaluate("window.ran === undefined")
    assert any("Content Security Policy" in complaint for complaint in docs.complaints)
