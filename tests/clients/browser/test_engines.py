"""What holds in every engine: the page at /, WebSockets as pages make them, a plain ``EventSource`` over a restart.

One start of each browser serves all: it costs more than everything that is done with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from conftest import open_channel
from support.browsers import BROWSERS, BrowserPage
from support.grpc_upload import UploadCall, stub_on
from support.ports import free_port
from support.process import ServerProcess, StartServer

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

STATE = "() => document.querySelector('#live').dataset.state"
TITLE = "() => document.querySelector('#details:modal #details-title')?.textContent"

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

LISTEN = """() => {
  const source = new EventSource("/api/v1/watch?all=true");
  window.heard = { source, files: [], ends: 0 };
  source.addEventListener("message", (event) => {
    const { file } = JSON.parse(event.data);
    if (file) window.heard.files.push([file.file_id, file.status]);
  });
  source.addEventListener("end", () => (window.heard.ends += 1));
  return new Promise((resolve) => source.addEventListener("open", () => resolve(true)));
}"""
HEARD = "() => ({ state: window.heard.source.readyState, ends: window.heard.ends, files: window.heard.files })"

# What a page is left for: another page of the same server, so that it may come back.
AWAY = {
    "chromium": "the page was closed",
    "firefox": "the page was closed",
    "webkit": "the browser put the page aside for more than 2 s",
}


def announce(server: ServerProcess, size: int, name: str = "a.bin") -> str:
    answer = httpx.post(f"{server.url}/api/v1/upload/initiate", json={"filename": name, "size_bytes": str(size)})
    return str(answer.json()["file"]["file_id"])


def found(server: ServerProcess, file_id: str) -> Any:
    return httpx.get(f"{server.url}/api/v1/files/{file_id}").json()


def open_sockets(server: ServerProcess) -> int:
    text = httpx.get(f"{server.url}/metrics").text
    return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("upload_open_websockets "))


async def send(
    page: BrowserPage, server: ServerProcess, file_id: str, protocols: list[str], size: int, query: str = ""
) -> Any:
    url = f"{server.url.replace('http', 'ws')}/api/v1/upload/ws/{file_id}{query}"
    return await page.evaluate(SEND, [url, protocols, size])


async def until(page: BrowserPage, function: str, wanted: Callable[[Any], bool]) -> Any:
    """Ask a page until it answers what is wanted; a page tells nobody."""
    async with asyncio.timeout(40):
        while not wanted(answer := await page.evaluate(function)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return answer


@pytest.mark.parametrize("engine", BROWSERS)
async def test_what_holds_in_every_engine(server: ServerProcess, start_server: StartServer, engine: str) -> None:
    async with BROWSERS[engine]() as page:
        await the_page_goes_live_and_opens_what_its_address_says(page, server)
        await a_page_that_offers_a_subprotocol_uploads(page, server)
        await a_page_whose_message_is_too_large_is_told_and_its_upload_stays(page, server)
        await a_page_that_is_left_cancels_unless_the_browser_only_puts_it_aside(page, server, engine)
        await an_event_source_goes_on_after_a_restart(page, start_server)


async def the_page_goes_live_and_opens_what_its_address_says(page: BrowserPage, server: ServerProcess) -> None:
    await page.goto(f"{server.url}/#/files/{announce(server, 5, 'by its address.bin')}")
    await until(page, STATE, lambda state: state == "live")
    await until(page, TITLE, lambda title: title == "by its address.bin")


async def a_page_that_offers_a_subprotocol_uploads(page: BrowserPage, server: ServerProcess) -> None:
    for offered, chosen in ((["upload.v1"], "upload.v1"), (["upload.ticket.1", "mine"], "mine"), ([], "")):
        answer = await send(page, server, announce(server, 10_000), offered, 1000)
        assert answer.get("protocol") == chosen, answer


async def a_page_whose_message_is_too_large_is_told_and_its_upload_stays(
    page: BrowserPage, server: ServerProcess
) -> None:
    file_ids, before = [], open_sockets(server)
    for size in (1_200_000, 5_000_000):
        file_ids.append(announce(server, size))
        answer = await send(page, server, file_ids[-1], [], size, "?grace=0")
        assert (answer["code"], answer["heard"][-1]["type"]) == (4400, "error")
        assert answer["heard"][-1]["error"]["details"][0]["metadata"] == {"field": "data", "limit": str(1 << 20)}
    # A close that cancels does so before its socket is gone.
    async with asyncio.timeout(30):
        while open_sockets(server) > before:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    for file_id in file_ids:
        assert found(server, file_id)["status"] in {"UPLOAD_STATUS_PENDING", "UPLOAD_STATUS_UPLOADING"}


async def a_page_that_is_left_cancels_unless_the_browser_only_puts_it_aside(
    page: BrowserPage, server: ServerProcess, engine: str
) -> None:
    file_id = announce(server, 10_000)
    # Another page in between: to an address that differs in its fragment alone no page is left.
    await page.goto(f"{server.url}/docs")
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


async def an_event_source_goes_on_after_a_restart(page: BrowserPage, start_server: StartServer) -> None:
    ports = ("--http-port", str(free_port()), "--grpc-port", str(free_port()))
    server = start_server(*ports, "--drain-grace", "20s")
    await page.goto(f"{server.url}/docs")
    await page.evaluate(LISTEN)
    file_id = announce(server, 10)
    # A drain lasts as long as an upload runs: the browser comes back in the midst of it.
    async with open_channel(server) as channel, UploadCall(stub_on(channel), file_id) as upload:
        await upload.send(b"12345")
        await until(page, HEARD, lambda heard: [file_id, "UPLOAD_STATUS_UPLOADING"] in heard["files"])
        stopped = asyncio.create_task(asyncio.to_thread(server.terminate))
        await until(page, HEARD, lambda heard: heard["ends"] >= 2)
    assert await stopped == 0
    await asyncio.to_thread(start_server, *ports, data_dir=server.data_dir)
    after = announce(server, 10)
    heard = await until(page, HEARD, lambda heard: [after, "UPLOAD_STATUS_PENDING"] in heard["files"])
    assert heard["state"] != 2, "the page has given up for good"
