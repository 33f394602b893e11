"""The WebSocket door of a real server process, over a restart."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import sqlite3
import time

import httpx
import pytest
import websockets

from support.process import ServerProcess, StartServer
from unit.doors.place import Json, Page
from unit.doors.raw import RawPeer


def announce(server: ServerProcess, size: int) -> str:
    answer = httpx.post(f"{server.url}/api/v1/upload/initiate", json={"filename": "a.bin", "size_bytes": str(size)})
    return str(answer.json()["file"]["file_id"])


def get(server: ServerProcess, file_id: str) -> Json:
    answer: Json = httpx.get(f"{server.url}/api/v1/files/{file_id}").json()
    return answer


async def page_of(server: ServerProcess, file_id: str, query: str = "") -> Page:
    uri = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{file_id}{query}"
    return Page(await websockets.connect(uri))


async def test_an_upload_goes_on_over_a_restart(start_server: StartServer) -> None:
    data = os.urandom(3_000_000)
    server = start_server("--drain-grace", "0.2", "--websocket-grace", "0")
    file_id = announce(server, len(data))
    page = await page_of(server, file_id)
    await page.send(data[:1_000_000])
    await page.send(data[1_000_000:1_500_000])
    await page.hear("progress")
    began = time.monotonic()
    server.popen.terminate()
    assert await page.error() == ("SHUTTING_DOWN", 1012)
    assert server.terminate() == 0
    assert time.monotonic() - began < 20

    server = start_server("--websocket-grace", "0")
    found = get(server, file_id)
    assert (found["status"], found["bytes_received"]) == ("UPLOAD_STATUS_UPLOADING", "1500000")
    page = await page_of(server, file_id, "?offset=1500000")
    await page.send(data[1_500_000:2_500_000])
    await page.send(data[2_500_000:])
    last, code = await page.end()
    assert (last["type"], code) == ("success", 1000)
    assert last["file"]["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_killed_server_cancels_nothing(start_server: StartServer) -> None:
    server = start_server("--websocket-grace", "0")
    file_id = announce(server, 10)
    page = await page_of(server, file_id)
    await page.send(b"hello")
    for _ in range(2):
        await page.hear("progress")
    server.kill()
    server = start_server("--websocket-grace", "0")
    assert get(server, file_id)["status"] == "UPLOAD_STATUS_UPLOADING"
    page = await page_of(server, file_id, f"?offset={get(server, file_id)['bytes_received']}")
    await page.hear("progress")
    await page.close()


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_restart_carries_out_what_a_lost_page_owes(start_server: StartServer, how: str) -> None:
    """The time at which it is due stands in the file's row; that a page is away is known to no process."""
    server = start_server("--log-level", "debug")
    lost, back = announce(server, 10), announce(server, 10)
    for file_id, grace in ((lost, "4s"), (back, "5m")):
        page = await page_of(server, file_id, f"?grace={grace}")
        await page.send(b"hello")
        while (await page.hear("progress"))["bytes_received"] < 5:
            pass
        page.socket.transport.abort()
    for file_id in (lost, back):
        await until_due(server, file_id)
    if how == "killed":
        server.kill()
    else:
        assert server.terminate() == 0

    server = start_server()
    returned = await page_of(server, back, "?offset=5")
    await returned.send(b"w")
    async with asyncio.timeout(20):
        while get(server, lost)["status"] != "UPLOAD_STATUS_CANCELLED":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    found = get(server, lost)
    assert found["cancelled_by"] == "websocket_close"
    assert found["cancel_reason"] == "the connection was lost for more than 4 s"
    assert get(server, back)["status"] == "UPLOAD_STATUS_UPLOADING"
    await returned.send(b"orld")
    assert (await returned.end())[0]["type"] == "success"


async def until_due(server: ServerProcess, file_id: str) -> None:
    """Wait until the loss of a file's page stands in its row."""
    query = "SELECT cancel_due_at FROM file WHERE file_id = ?"
    async with asyncio.timeout(30):
        while True:
            with contextlib.closing(sqlite3.connect(server.data_dir / "upload.sqlite3")) as connection:
                if connection.execute(query, (file_id,)).fetchone()[0] is not None:
                    return
            await asyncio.sleep(0.02)


async def test_nobody_outside_makes_an_error_line(start_server: StartServer) -> None:
    """What a library of ours says of a peer is at most a warning: who reads errors reads of the server's own."""
    server = start_server()
    file_id = announce(server, 10)
    path, foreign = f"/api/v1/upload/ws/{file_id}", "Origin: http://evil.example"
    for where, headers in (
        (path, [foreign]),
        (path, ["Host: evil.example"]),
        ("/api/v1/other", []),
        (path, ["Sec-WebSocket-Protocol: \u00e4, ,"]),
        (path, [f"X-{number}: a" for number in range(200)]),
    ):
        peer = await RawPeer.connect(server.http_port)
        assert (await peer.handshake(where, server.http_port, *headers))[0] >= 400
        peer.finish()
    peer = await RawPeer.connect(server.http_port)
    await peer.handshake(path, server.http_port)
    peer.frame(1, b"\xff")
    await peer.reader.readuntil(b"\x88")
    peer.finish()
    assert server.terminate() == 0
    assert [line for line in server.log if line["level"] in {"error", "critical"}] == []
