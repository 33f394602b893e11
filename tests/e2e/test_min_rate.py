"""Whoever sends, but slower than --min-rate, is ended through every door as the silent are, and can go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import websockets

from clients.tus.client import Tus, reason, tus_on
from support.grpc_upload import UploadCall, stub_on, upload
from support.process import StartServer
from upload.v1 import upload_pb2 as pb

SIZE = 2000


@contextlib.asynccontextmanager
async def dripping(send: Callable[[bytes], Awaitable[None]]) -> AsyncIterator[None]:
    """Send a byte again and again beside the block, far oftener than --idle-timeout."""

    async def drip() -> None:
        for _ in range(SIZE):
            await send(b"x")
            await asyncio.sleep(0.05)

    task = asyncio.create_task(drip())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_sender_that_drips_is_told_so_through_every_door_and_can_go_on(start_server: StartServer) -> None:
    server = start_server("--idle-timeout", "500ms", "--min-rate", "1KiB")
    async with grpc.aio.insecure_channel(server.target) as channel, tus_on(server) as client, asyncio.timeout(30):
        stub, tus = stub_on(channel), Tus(client)
        specs = [pb.FileSpec(filename=name, size_bytes=SIZE) for name in "ab"]
        over_grpc, over_websocket = (await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))).file_ids
        url = await tus.create(SIZE)

        async def by_grpc() -> str:
            async with UploadCall(stub, over_grpc) as call, dripping(call.send):
                return (await call.refused()).reason

        async def by_websocket() -> str:
            address = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{over_websocket}"
            async with websockets.connect(address) as page, dripping(page.send):
                async for message in page:
                    if (said := json.loads(message))["type"] == "error":
                        return str(said["error"]["details"][0]["reason"])
            return ""

        async def by_tus() -> str:
            async with tus.slow(url, SIZE) as sending, dripping(sending.send):
                return reason(await sending.answer())

        refusals = await asyncio.gather(by_grpc(), by_websocket(), by_tus())
        assert set(refusals) == {"UPLOAD_IDLE"}
        for file_id in (over_grpc, over_websocket, url.rsplit("/", 1)[-1]):
            there = (await stub.GetFile(pb.GetFileRequest(file_id=file_id))).bytes_received
            assert 0 < there < SIZE / 2
            assert (await upload(stub, file_id, bytes(SIZE - there), there)).status == pb.UPLOAD_STATUS_COMPLETED
