"""Found by connections to a black hole: ``upload_open_watches`` was 0 whatever was open, so a leak would not show."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import httpx

from support.grpc_upload import stub_on
from support.process import ServerProcess, StartServer
from support.watching import Watcher, grpc_watch, ndjson_watch


async def open_watches(server: ServerProcess) -> int:
    async with httpx.AsyncClient(base_url=server.url) as client:
        text = (await client.get("/metrics")).text
    return next(int(float(line.split()[1])) for line in text.splitlines() if line.startswith("upload_open_watches "))


async def test_open_watches_are_counted(start_server: StartServer) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel, httpx.AsyncClient(base_url=server.url) as client:
        watchers = [Watcher(transport(all=True)) for transport in _transports(stub_on(channel), client)]
        for watcher in watchers:
            await watcher.opening()
        while_open = await open_watches(server)
        for watcher in watchers:
            await watcher.close()
        async with asyncio.timeout(30):
            while await open_watches(server):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)

    assert while_open == 2


def _transports(stub: Any, client: httpx.AsyncClient) -> tuple[Any, Any]:
    return grpc_watch(stub), ndjson_watch(client)
