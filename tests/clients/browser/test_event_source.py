"""A plain ``EventSource`` of a page, in every engine, outlives a restart of the service while an upload runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from conftest import open_channel
from support.browsers import BROWSERS, BrowserPage
from support.grpc_upload import UploadCall, stub_on
from support.ports import free_port
from support.process import ServerProcess, StartServer
from upload.v1 import upload_pb2 as pb

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

_LISTEN = """() => {
  const source = new EventSource("/api/v1/watch?all=true");
  window.heard = { source, files: [], ends: 0 };
  source.addEventListener("message", (event) => {
    const { file } = JSON.parse(event.data);
    if (file) window.heard.files.push([file.file_id, file.status]);
  });
  source.addEventListener("end", () => (window.heard.ends += 1));
  return new Promise((resolve) => source.addEventListener("open", () => resolve(true)));
}"""
_HEARD = """() => ({ state: window.heard.source.readyState, ends: window.heard.ends, files: window.heard.files })"""


async def _announce(server: ServerProcess) -> str:
    async with open_channel(server) as channel:
        made = await stub_on(channel).InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=10))
        return str(made.file.file_id)


async def _until(page: BrowserPage, wanted: Callable[[Any], bool]) -> Any:
    """Look at what the page has heard until it is what is wanted; a page tells nobody."""
    async with asyncio.timeout(40):
        while not wanted(heard := await page.evaluate(_HEARD)):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return heard


@pytest.mark.parametrize("engine", BROWSERS)
async def test_an_event_source_goes_on_after_a_restart(engine: str, start_server: StartServer) -> None:
    ports = ("--http-port", str(free_port()), "--grpc-port", str(free_port()))
    server = start_server(*ports, "--drain-grace", "20s")
    async with BROWSERS[engine]() as page, open_channel(server) as channel:
        await page.goto(f"{server.url}/docs")
        await page.evaluate(_LISTEN)
        file_id = await _announce(server)
        # A drain lasts as long as an upload runs: the browser comes back in the midst of it.
        async with UploadCall(stub_on(channel), file_id) as upload:
            await upload.send(b"12345")
            await _until(page, lambda heard: [file_id, "UPLOAD_STATUS_UPLOADING"] in heard["files"])
            stopped = asyncio.create_task(asyncio.to_thread(server.terminate))
            await _until(page, lambda heard: heard["ends"] >= 2)
        assert await stopped == 0
        start_server(*ports, data_dir=server.data_dir)
        after = await _announce(server)
        heard = await _until(page, lambda heard: [after, "UPLOAD_STATUS_PENDING"] in heard["files"])
    assert heard["state"] != 2, "the page has given up for good"
