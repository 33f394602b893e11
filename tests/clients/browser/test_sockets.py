"""WebSockets as the engines make them: what a page offers, sends too much of, and says when it is left."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from support.browsers import BROWSERS, BrowserPage
from support.process import ServerProcess

pytestmark = pytest.mark.timeout(120)

# Opens a socket, sends so many bytes in one message, and answers once they are durable or the socket is closed.
SEND = """([url, protocols, size]) => new Promise((resolve) => {
    const heard = [];
    const socket = globalThis.socket = new WebSocket(url, protocols);
    socket.onopen = () => socket.send(new Uint8Array(size));
    socket.onmessage = ({ data }) => {
        heard.push(JSON.parse(data));
        if (heard.at(-1).bytes_received === size) resolve({ protocol: socket.protocol, heard });
    };
    socket.onclose = ({ code }) => resolve({ code, heard });
})"""


def announce(server: ServerProcess, size: int) -> str:
    answer = httpx.post(f"{server.url}/api/v1/upload/initiate", json={"filename": "a.bin", "size_bytes": str(size)})
    return str(answer.json()["file"]["file_id"])


def found(server: ServerProcess, file_id: str) -> Any:
    return httpx.get(f"{server.url}/api/v1/files/{file_id}").json()


async def send(
    page: BrowserPage, server: ServerProcess, file_id: str, protocols: list[str], size: int, query: str = ""
) -> Any:
    url = f"{server.url.replace('http', 'ws')}/api/v1/upload/ws/{file_id}{query}"
    return await page.evaluate(SEND, [url, protocols, size])


@pytest.mark.parametrize("engine", BROWSERS)
async def test_a_page_that_offers_a_subprotocol_uploads(server: ServerProcess, engine: str) -> None:
    async with BROWSERS[engine]() as page:
        await page.goto(server.url)
        for offered, chosen in ((["upload.v1"], "upload.v1"), (["upload.ticket.1", "mine"], "mine"), ([], "")):
            answer = await send(page, server, announce(server, 10_000), offered, 1000)
            assert answer.get("protocol") == chosen, answer


@pytest.mark.parametrize("size", [1_200_000, 5_000_000])
@pytest.mark.parametrize("engine", BROWSERS)
async def test_a_page_whose_message_is_too_large_is_told_and_its_upload_stays(
    server: ServerProcess, engine: str, size: int
) -> None:
    file_id = announce(server, size)
    async with BROWSERS[engine]() as page:
        await page.goto(server.url)
        answer = await send(page, server, file_id, [], size, "?grace=0")
    assert (answer["code"], answer["heard"][-1]["type"]) == (4400, "error")
    assert answer["heard"][-1]["error"]["details"][0]["metadata"] == {"field": "data", "limit": str(1 << 20)}
    await asyncio.sleep(0.5)  # a cancel would have come by now
    assert found(server, file_id)["status"] in {"UPLOAD_STATUS_PENDING", "UPLOAD_STATUS_UPLOADING"}


# What the page is left for: another page of the same server, so that it may come back.
AWAY = {
    "chromium": "the page was closed",
    "firefox": "the page was closed",
    "webkit": "the browser put the page aside for more than 2 s",
}


@pytest.mark.parametrize("engine", BROWSERS)
async def test_a_page_that_is_left_cancels_unless_the_browser_only_puts_it_aside(
    server: ServerProcess, engine: str
) -> None:
    file_id = announce(server, 10_000)
    async with BROWSERS[engine]() as page:
        await page.goto(server.url)
        await send(page, server, file_id, [], 1000, "?grace=2s")
        began = asyncio.get_running_loop().time()
        await page.goto(f"{server.url}/docs")
        async with asyncio.timeout(20):
            while found(server, file_id)["status"] != "UPLOAD_STATUS_CANCELLED":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
    file = found(server, file_id)
    assert (file["cancelled_by"], file["cancel_reason"]) == ("websocket_close", AWAY[engine])
    assert engine != "webkit" or asyncio.get_running_loop().time() - began >= 2
