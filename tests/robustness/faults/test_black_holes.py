"""Peers that vanish without a word (packets are dropped, nothing is reset) are found within the promised time."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Awaitable
from pathlib import Path

import grpc
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from robustness.faults.namespace import namespace
from robustness.prove.clients import Connections
from support.doors import Json
from support.grpc_upload import UploadCall
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

# gRPC pings every 20 s and waits 10 s, a WebSocket 20 s; what HTTP sends, at least every 15 s, waits 40 s to be taken.
_FOUND_SECONDS = 55.0
# For a machine with other things to do.
_SPARE_SECONDS = 20.0

KINDS = ("uploads", "watches", "websockets")

pytestmark = pytest.mark.timeout(180)


async def _watch_grpc(clients: Connections) -> None:
    async for _ in clients.stub.WatchStatus(pb.WatchStatusRequest(all=True)):
        pass


async def _watch_http(url: str, accept: str) -> None:
    async with httpx.AsyncClient(timeout=300) as client:
        headers = {"accept": accept}
        async with client.stream("GET", f"{url}/api/v1/watch?all=true", headers=headers) as response:
            async for _ in response.aiter_lines():
                pass


async def _socket(server: ServerProcess, file_id: str) -> None:
    url = f"{server.url.replace('http', 'ws', 1)}/api/v1/upload/ws/{file_id}"
    async with connect(url, compression=None, proxy=None, ping_interval=None) as socket:
        await socket.send(bytes(1000))
        async for _ in socket:
            pass


async def _quietly(work: Awaitable[None]) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, httpx.HTTPError, WebSocketException, OSError):
        await work


def inside(server: ServerProcess, name: str) -> dict[str, int]:
    """What is open, asked from within the server's own network."""
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:%d/metrics').read().decode())"
    command = ["ip", "netns", "exec", name, "python3", "-c", script % server.http_port]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in text.splitlines() if " " in line}
    return {kind: int(float(found[f"upload_open_{kind}"])) for kind in KINDS}


async def test_vanished_peers_are_found_in_time(tmp_path: Path) -> None:
    with namespace() as space:
        server = await asyncio.to_thread(
            space.serve, tmp_path / "data", ("--idle-timeout", "120", "--websocket-grace", "1")
        )
        clients = Connections(server)
        try:
            files = [await _initiate(clients) for _ in range(2)]
            watching = [
                asyncio.create_task(_quietly(work))
                for work in (
                    _watch_grpc(clients),
                    _watch_http(server.url, "application/json"),
                    _watch_http(server.url, "text/event-stream"),
                    _socket(server, files[0]),
                )
            ]
            async with UploadCall(clients.stub, files[1]) as call:
                await call.send(bytes(1000))
                await call.hear_durable(1000)
                await _all_open(server, space.name)
                space.block()
                took = await _time_until_alone(server, space.name)
                space.heal()
            found = await _status(clients, files)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
        finally:
            await clients.close()
            await asyncio.to_thread(server.kill)

    print(f"seconds until they were let go: {took}")
    assert all(seconds <= _FOUND_SECONDS + _SPARE_SECONDS for seconds in took.values()), took
    # The page that vanished is cancelled for; the gRPC sender can resume.
    assert found == ["UPLOAD_STATUS_CANCELLED", "UPLOAD_STATUS_UPLOADING"]


async def _all_open(server: ServerProcess, name: str) -> None:
    seen = []
    for _ in range(40):
        found = await asyncio.to_thread(inside, server, name)
        if tuple(found.values()) == (2, 3, 1):
            return
        await asyncio.sleep(0.2)
        seen.append(tuple(found.values()))
    raise AssertionError(f"open: {seen}, {server.log[-5:]}")


async def _initiate(clients: Connections) -> str:
    made: Json = await clients.doors[1].call("InitiateUpload", filename="a.bin", size_bytes=10_000)
    return str(made["file"]["file_id"])


async def _status(clients: Connections, files: list[str]) -> list[str]:
    async with asyncio.timeout(60):
        while True:
            try:
                async with httpx.AsyncClient(base_url=clients.server.url, timeout=5) as client:
                    answers = [await client.get(f"/api/v1/files/{file_id}") for file_id in files]
                return [answer.json()["status"] for answer in answers]
            except httpx.TransportError:
                await asyncio.sleep(0.2)


async def _time_until_alone(server: ServerProcess, name: str) -> dict[str, float]:
    """Seconds until the last upload, watch and WebSocket were let go; what is never let go counts as 100."""
    started = time.monotonic()
    took: dict[str, float] = {}
    while len(took) < 3 and time.monotonic() - started < 100:
        now = await asyncio.to_thread(inside, server, name)
        for kind in KINDS:
            if now[kind] == 0:
                took.setdefault(kind, round(time.monotonic() - started, 1))
        await asyncio.sleep(0.5)
    return {kind: took.get(kind, 100.0) for kind in KINDS}
