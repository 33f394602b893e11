"""Found by histories (seed a.0): a page that opened its socket behind the last byte of a file and closed it at once,
which cancels, completed the file instead."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from support.grpc_upload import UploadCall
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

DATA = b"every byte"


async def sent_without_commit(stub: Any) -> str:
    made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=len(DATA)))
    file_id = str(made.file.file_id)
    async with UploadCall(stub, file_id) as call:
        await call.send(DATA)
        await call.half_close()
        while await call.hear() is not None:
            pass
    return file_id


def behind_the_end(server: ServerProcess, file_id: str) -> connect:
    url = server.url.replace("http", "ws", 1)
    return connect(f"{url}/api/v1/upload/ws/{file_id}?offset={len(DATA)}", proxy=None)


async def next_message(socket: ClientConnection) -> Any:
    return json.loads(await socket.recv())


async def status(stub: Any, file_id: str) -> pb.File:
    file: pb.File = await stub.GetFile(pb.GetFileRequest(file_id=file_id))
    return file


async def test_closing_it_cancels(server: ServerProcess, stub: Any) -> None:
    file_id = await sent_without_commit(stub)
    watch = stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id], until_final=True))
    async with behind_the_end(server, file_id) as socket:
        assert await next_message(socket) == {"type": "progress", "bytes_received": len(DATA)}
        # A page that has said nothing would cancel nothing.
        await socket.send(b"")
    last = [event.file async for event in watch if event.HasField("file")][-1]
    assert (last.status, last.cancelled_by) == (pb.UPLOAD_STATUS_CANCELLED, "websocket_close")


async def test_closing_it_without_a_word_leaves_the_file_as_it_was(server: ServerProcess, stub: Any) -> None:
    file_id = await sent_without_commit(stub)
    before = await status(stub, file_id)
    async with behind_the_end(server, file_id) as socket:
        await next_message(socket)
    watch = stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id], until_final=True))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            async for _ in watch:
                pass
    watch.cancel()
    assert await status(stub, file_id) == before


async def test_a_commit_completes(server: ServerProcess, stub: Any) -> None:
    file_id = await sent_without_commit(stub)
    async with behind_the_end(server, file_id) as socket:
        await next_message(socket)
        await socket.send(json.dumps({"type": "commit"}))
        assert (await next_message(socket))["type"] == "success"
