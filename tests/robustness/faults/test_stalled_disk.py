"""On a disk that stalls the uploads of every door hold no more memory than is stated here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
import websockets

from clients.tus.client import Slow
from conftest import open_channel
from robustness.faults.stalled_disk import StalledServer
from support.grpc_upload import UploadCall, stub_on
from support.process import ServerProcess
from upload_server.ingest import Limits

KIB = 1024
MIB = 1024 * KIB
UPLOADS = 100
# Each upload has more to send than anybody keeps for it.
UPLOAD_BYTES = 16 * MIB
# What all streams together may hold. Beyond it each upload may have one message, and what one read of its socket
# brings, a quarter of a MiB; the rest are objects of its own and what the allocator does not give back.
SHARED_BYTES = Limits().total_buffer_bytes
SLACK_BYTES = 384 * KIB

Send = Callable[[bytes], Awaitable[None]]
Door = Callable[[ServerProcess, str], contextlib.AbstractAsyncContextManager[Send]]


@contextlib.asynccontextmanager
async def grpc_sender(server: ServerProcess, file_id: str) -> AsyncIterator[Send]:
    async with open_channel(server) as channel, UploadCall(stub_on(channel), file_id) as call:
        yield call.send


@contextlib.asynccontextmanager
async def websocket_sender(server: ServerProcess, file_id: str) -> AsyncIterator[Send]:
    uri = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{file_id}?on_disconnect=keep"
    socket = await websockets.connect(uri, max_size=None, ping_interval=None, close_timeout=0)
    try:
        yield socket.send
    finally:
        socket.transport.abort()


@contextlib.asynccontextmanager
async def tus_sender(server: ServerProcess, file_id: str) -> AsyncIterator[Send]:
    async with Slow(httpx.URL(server.url), f"/api/v1/tus/{file_id}", UPLOAD_BYTES) as request:
        yield request.send


async def announced(server: ServerProcess) -> list[str]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        made = [
            await client.post("/api/v1/upload/initiate", json={"filename": "a", "size_bytes": str(UPLOAD_BYTES)})
            for _ in range(UPLOADS)
        ]
    return [answer.json()["file"]["file_id"] for answer in made]


async def settled(server: ServerProcess) -> int:
    """Wait until memory has not grown for a second and a half; nobody is told when it does. Returns bytes."""
    loop = asyncio.get_running_loop()
    most, since = server.rss(), loop.time()
    async with asyncio.timeout(60):
        while loop.time() < since + 1.5:
            await asyncio.sleep(0.1)
            if (now := server.rss()) > most + MIB // 4:
                most, since = now, loop.time()
    return most


async def held(server: ServerProcess, door: Door, message_bytes: int) -> int:
    """Return the memory, in bytes, that 100 uploads make the server take, each sending as fast as it is let."""
    file_ids = await announced(server)
    before = server.rss()
    data = bytes(message_bytes)

    async def send(file_id: str) -> None:
        async with door(server, file_id) as take:
            for _ in range(UPLOAD_BYTES // message_bytes):
                await take(data)

    sending = [asyncio.create_task(send(file_id)) for file_id in file_ids]
    try:
        return await settled(server) - before
    finally:
        server.kill()
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)


@pytest.mark.parametrize(
    ("door", "message_bytes"),
    # Clients of ours send a quarter of a MiB at once; a page of somebody else may send a whole one.
    [(grpc_sender, MIB // 4), (websocket_sender, MIB // 4), (websocket_sender, MIB), (tus_sender, MIB // 4)],
    ids=["grpc", "websocket", "websocket-1MiB", "tus"],
)
async def test_uploads_on_a_stalled_disk_keep_within_a_bound_whatever_the_door(
    tmp_path: Path, door: Door, message_bytes: int
) -> None:
    with StalledServer(tmp_path / "data") as server:
        taken = await held(server, door, message_bytes)
    assert taken < SHARED_BYTES + UPLOADS * (message_bytes + SLACK_BYTES), f"{taken / MIB:.0f} MiB"


async def test_a_server_with_hanging_threads_ends_all_the_same(tmp_path: Path) -> None:
    with StalledServer(tmp_path / "data", ("--drain-grace", "0")) as server:
        [file_id] = (await announced(server))[:1]
        async with grpc_sender(server, file_id) as send:
            await send(bytes(MIB))
            await asyncio.to_thread(server.wait_log, lambda line: line.get("to") == "uploading")
            server.popen.terminate()
            await asyncio.to_thread(server.wait_log, lambda line: line["event"] == "stopped")
            assert await asyncio.to_thread(server.popen.wait, 20) == 0
